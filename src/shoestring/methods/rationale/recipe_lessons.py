"""What each arm of the experiment learns from, of the same examples drawn, and what that takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from shoestring.methods.rationale import filters
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import Way, Wording, lessons, shuffled
from shoestring.methods.rationale.recipe_data import Task
from shoestring.methods.rationale.recipe_schema import (
    AGREEING,
    DISTILLED,
    HUMAN,
    INFORMED,
    SHUFFLED,
    SINGLE,
    STANDARD,
    Recipe,
)

_WAYS: dict[str, Way] = {DISTILLED: "distilled", SINGLE: "single-task", INFORMED: "informed"}


def way_of(arm: str) -> Way:
    """How an arm's lessons are made."""
    return _WAYS.get(arm, "two-task" if arm.startswith("two-task") else "standard")


def lessons_of(arm: str, task: Task, places: Sequence[int], seed: int) -> list[Example]:
    """The examples an arm learns from, of those drawn."""
    source = task.train
    if arm == HUMAN:
        assert task.human is not None, "recipes with this arm are refused where there are none"
        source = task.human
    found = [source[place] for place in places]
    if arm == INFORMED:
        return [filters.unanswered(one) for one in found]
    if arm == SHUFFLED:
        return shuffled(found, seed)
    if arm == AGREEING:
        return filters.apply(found, ["agrees"]).examples
    return found


def check_lessons(recipe: Recipe, tasks: Iterable[Task], arms: Iterable[str]) -> None:
    """Raise ValueError where a run would have nothing to learn. Of a seed, what fewer labels are drawn stands among
    those of more."""
    least = min(recipe.fractions)
    tuned = max(len(recipe.tuning.learning_rates), len(recipe.tuning.weights)) > 1
    seeds = (*recipe.tuning.seeds, *recipe.seeds) if tuned else recipe.seeds
    for task, seed, arm in product(tasks, seeds, arms):
        places = task.drawn(least, seed)
        try:
            lessons(lessons_of(arm, task, places, seed), way_of(arm), Wording())
        except ValueError as error:
            drawn = f"{task.name}, {len(places):,} examples ({100 * least:.3g} %), seed {seed}"
            lacking = str(error).removeprefix(f"{way_of(arm)}: ")
            mend = "take a larger fraction, give more, or leave the arm out" if least < 1 else "give more"
            raise ValueError(f"{drawn}, {arm}: {lacking}; {mend}") from None


def cost_of_labels(arm: str, examples: Sequence[Example]) -> int:
    """How many gold labels an arm trains on: those that learn from text and reason at once leave out what has none."""
    whole = way_of(arm) in ("single-task", "informed")
    used = [example for example in examples if example.rationale] if whole else examples
    return 0 if arm == DISTILLED else sum(example.label is not None for example in used)


def asks(arm: str) -> bool:
    """Whether an arm needs the teacher's answers where each example has a gold label."""
    return not arm.startswith(STANDARD) and arm != HUMAN
