"""Recipes that could not end well are refused before anything is trained."""

from __future__ import annotations

import pytest

from shoestring import config, rooms
from shoestring.methods.averaging.recipe_schema import Recipe

SMOKE = rooms.find("averaging").recipe("smoke")


def test_the_grid_by_hand():
    recipe = config.load(SMOKE, Recipe)
    assert (recipe.steps, recipe.evaluate_every) == (60, 10)
    assert [recipe.on_grid(part) for part in (0.5, 0.7, 0.74, 0.76, 0.99)] == [30, 40, 40, 50, 60]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cooldowns=[0.05]"], "cooldowns that begin after the warm-up and evaluate_every=10 steps or more before"),
        (["cooldowns=[0.95]"], "cooldowns that begin after the warm-up"),
        (["spike.at=0.2"], "a spike after step 25, when the widest window is full"),
        (["spike.until=0.5"], "a spike after step 25, .* got one from step 30 to 30"),
        (["averages.counts=[]"], r"averages.counts: "),
        (["averages.decays=[]"], r"averages.decays: "),
        (["averages.counts=[8]"], "steps of at least twice warmup_steps [+] the widest window = 90, got 60"),
        (["averages.strides=[7]"], "strides that every=5 divides, got 7"),
        (["evaluate_every=12"], "evaluate_every that averages.every=5 divides, got 12"),
        (["evaluate_every=25"], "steps that evaluate_every=25 divides, got 60"),
        (["accumulate=3"], "text.batch that accumulate=3 divides, got 4"),
        (["seeds=[1, 1]"], "each seed and each learning rate once"),
        (["learning_rates=[0]"], "learning_rates.0: "),
        (["learning_rates=[.nan]"], "learning_rates.0: "),
        (["compute.processes=2"], "workers=1 with processes=2, got 2"),
    ],
)
def test_what_could_not_end_well_is_refused_in_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as caught:
        config.load(SMOKE, Recipe, overrides)
    assert "\n" not in str(caught.value)
    assert "(the whole)" not in str(caught.value)
