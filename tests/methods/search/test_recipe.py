"""The recipe says which of the two experiments it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoestring import config, rooms
from shoestring.cost import Ledger
from shoestring.methods.search import recipe as recipes

FOLDER = Path(rooms.__file__).with_name("methods") / "search" / "recipes"


@pytest.mark.parametrize(("name", "experiment"), [("cpu", "run_cells"), ("smoke", "run_decoders")])
def test_each_recipe_goes_to_its_experiment(name, experiment, tmp_path, monkeypatch):
    asked = []
    for known in ("run_cells", "run_decoders"):
        monkeypatch.setattr(recipes, known, lambda *given, known=known: asked.append((known, *given)))
    chosen, ledger = config.load(FOLDER / f"{name}.yaml", recipes.Recipe), Ledger()
    recipes.run(chosen, ledger, tmp_path, name)
    assert asked == [(experiment, chosen, ledger, tmp_path, name)]


CELLS = "cells={table: a.csv, images: b.npz, accuracies: [c], validation: c}"


@pytest.mark.parametrize("override", ["decoders=null", CELLS])
def test_none_and_both_are_refused(override):
    with pytest.raises(ValueError, match="either cells or decoders"):
        config.load(FOLDER / "smoke.yaml", recipes.Recipe, [override])
