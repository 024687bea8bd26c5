"""What an arm is taught with and dev chooses: a learning rate, and lambda where it has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

from shoestring.methods.rationale.recipe_lessons import way_of
from shoestring.methods.rationale.recipe_schema import Recipe


class Setting(NamedTuple):
    """A learning rate, and lambda, of the reason's loss."""

    rate: float
    weight: float


def settings_of(recipe: Recipe, arm: str) -> list[Setting]:
    """What is tried for an arm. Raises ValueError where the runs of two would have one folder."""
    weights = recipe.tuning.weights if way_of(arm) == "two-task" else ()
    found = [Setting(*one) for one in product(recipe.tuning.learning_rates, weights or (recipe.lessons.weight,))]
    known: dict[str, Setting] = {}
    for one in found:
        if (other := known.setdefault(folder_of(one, found), one)) != one:
            raise ValueError(
                f"{other} and {one} differ by less than names of their folders tell: leave one of them out"
            )
    return found


def folder_of(setting: Setting, tried: Sequence[Setting]) -> str:
    """The part of a folder's name that tells a setting from the others tried."""
    rate = f"rate{setting.rate:g}"
    return f"{rate}-weight{setting.weight:g}" if len({one.weight for one in tried}) > 1 else rate


def wording(tried: Sequence[Setting]) -> tuple[str, Callable[[Setting], str]]:
    """What is chosen among settings, and how one is named: by what not all of them share."""
    if len({one.weight for one in tried}) == 1:
        return "learning rate", lambda one: f"{one.rate:g}"
    if len({one.rate for one in tried}) == 1:
        return "λ", lambda one: f"{one.weight:g}"
    return "learning rate and λ", lambda one: f"{one.rate:g} with λ {one.weight:g}"
