"""Rank untrained networks in a forward pass."""

from shoestring.methods.search.evolve import area, naswot, random_search, regularised_evolution
from shoestring.methods.search.parallel import scores
from shoestring.methods.search.proxies import PROXIES
from shoestring.methods.search.score import Score, score
from shoestring.methods.search.span import span

__all__ = ["PROXIES", "Score", "area", "naswot", "random_search", "regularised_evolution", "score", "scores", "span"]
