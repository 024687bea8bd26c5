"""The experiment: scores of untrained networks held against real trainings, of image cells or of language models."""

from __future__ import annotations

from pathlib import Path

from shoestring.cost import Ledger
from shoestring.evaluate.scores import Report
from shoestring.methods.search.recipe_cells import run_cells
from shoestring.methods.search.recipe_decoders import run_decoders
from shoestring.methods.search.recipe_schema import Recipe

__all__ = ["Recipe", "run"]


def run(recipe: Recipe, ledger: Ledger, out: Path, name: str = "recipe") -> Report:
    """Score, train or look up, and lay the scores beside their twins; what is finished in `out` is not redone."""
    return run_cells(recipe, ledger, out, name) if recipe.cells else run_decoders(recipe, ledger, out, name)
