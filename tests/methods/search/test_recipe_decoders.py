"""What scoring took is counted apart from the scores, which are means over the seeds."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from shoestring import config, rooms
from shoestring.methods.search import recipe_decoders
from shoestring.methods.search.proxies import parameters
from shoestring.methods.search.recipe_decoders import Counted
from shoestring.methods.search.recipe_schema import Recipe
from shoestring.methods.search.score import Score

SMOKE = config.load(Path(rooms.__file__).with_name("methods") / "search" / "recipes" / "smoke.yaml", Recipe)


def twice(model, inputs):
    model(model(inputs))
    return Score(-1.0)


def test_flops_of_a_proxy_by_hand():
    """Two products of (4, 3) by (3, 3), a multiply-add being two."""
    model, inputs = nn.Linear(3, 3), torch.ones(4, 3)
    assert Counted(twice)(model, inputs).value == 2 * 2 * 4 * 3 * 3
    assert Counted(parameters)(model, inputs).value == 0


class _Drawn:
    every = ("one", "two")


class _Ground:
    """Networks of one weight: the seed, or ten times it."""

    drawn, workers = _Drawn(), 1

    def build(self, text, seed):
        return partial(_one_weight, {"one": 1.0, "two": 10.0}[text] * seed)


def _one_weight(value):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def weight(model, inputs):
    model(inputs)
    return Score(model.weight.item())


def test_scores_are_means_over_the_seeds_and_costs_their_sums(tmp_path):
    recipe = SMOKE.model_copy(update={"seeds": (1, 3)})
    told = recipe_decoders._said(recipe, _Ground(), {"weight": weight}, torch.ones(5, 1), tmp_path)
    assert {text: one["weight"].value for text, one in told.items()} == {"one": 2, "two": 20}
    assert {one["weight"].cost.flops for one in told.values()} == {2 * 2 * 5}
    assert all(one["weight"].cost.seconds > 0 for one in told.values())
    kept = (tmp_path / "scores.jsonl").read_text()
    assert recipe_decoders._said(recipe, _Ground(), {"weight": weight}, torch.ones(5, 1), tmp_path) == told
    assert (tmp_path / "scores.jsonl").read_text() == kept


def test_an_unknown_proxy_is_refused_before_anything_is_done(tmp_path):
    recipe = SMOKE.model_copy(update={"proxies": ("naswot", "sinflow")})
    with pytest.raises(ValueError, match="no proxy is called 'sinflow'; did you mean 'synflow'"):
        recipe_decoders.run_decoders(recipe, None, tmp_path, "smoke")
    assert not list(tmp_path.iterdir())
