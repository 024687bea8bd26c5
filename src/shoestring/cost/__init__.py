"""What a run cost: seven currencies, charged by whoever does the work."""

from shoestring.cost.ledger import CURRENCIES, Cost, Ledger, spent

__all__ = ["CURRENCIES", "Cost", "Ledger", "spent"]
