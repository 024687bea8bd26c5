"""What the trainings stand on is the same when a run is resumed, and refused where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from shoestring import config, rooms
from shoestring.methods.search.recipe_decoders_ground import prepare
from shoestring.methods.search.recipe_schema import Recipe

SMOKE = config.load(Path(rooms.__file__).with_name("methods") / "search" / "recipes" / "smoke.yaml", Recipe)


def test_a_resumed_run_finds_the_same_ground(tmp_path):
    chosen = SMOKE.decoders
    assert chosen is not None
    first = prepare(SMOKE, chosen, tmp_path)
    (tmp_path / "runs").mkdir()
    again = prepare(SMOKE, chosen, tmp_path)
    assert again == first
    shown = first.shown(chosen, 0)
    assert shown["input_ids"].shape == (2, 32)
    assert torch.equal(shown["input_ids"], again.shown(chosen, 0)["input_ids"])
    text = first.drawn.every[0]
    weights = [ground.run(chosen, text, 1e-3, 1).model.state_dict() for ground in (first, again)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    (tmp_path / "data.json").write_text(json.dumps({"python": "other"}))
    with pytest.raises(ValueError, match=r"begun on python other, which is \S+ now: give another --out"):
        prepare(SMOKE, chosen, tmp_path)
