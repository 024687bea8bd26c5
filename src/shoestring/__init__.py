"""Train language models on a budget, and keep the receipt."""

__version__ = "0.1.0"
