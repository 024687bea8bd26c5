"""What arms learn from: the same examples for all, and what each makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from shoestring import config
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.recipe_data import Task
from shoestring.methods.rationale.recipe_lessons import (
    asks,
    check_lessons,
    cost_of_labels,
    lessons_of,
    way_of,
)
from shoestring.methods.rationale.recipe_schema import ARMS, Recipe


def task(count: int = 40) -> Task:
    examples = [
        Example(str(place), "yes" if place % 2 else "no", ("yes", "no"), f"since {place}", "yes")
        for place in range(count)
    ]
    return Task("T", examples, examples[:2], examples[:2], 4)


def test_all_arms_see_the_same_examples() -> None:
    whole = replace(task(), human=[replace(one, rationale=f"person {one.text}") for one in task().train])
    places = whole.drawn(0.5, 3)
    expected = [str(place) for place in places]
    for arm in ARMS:
        found = lessons_of(arm, whole, places, 3)
        assert [one.text for one in found] == expected, arm
        assert [one.label for one in found] == [whole.train[place].label for place in places]
        assert all(one.rationale for one in found) or arm == "two-task, agreeing reasons"


def test_what_arms_change() -> None:
    whole, places = task(), [3, 2, 5, 8]
    plain = lessons_of("two-task", whole, places, 0)
    assert plain == [whole.train[place] for place in places] == lessons_of("standard", whole, places, 0)
    mixed = lessons_of("two-task, shuffled reasons", whole, places, 0)
    assert all(one.rationale != two.rationale for one, two in zip(plain, mixed, strict=True))
    assert {one.rationale for one in plain} == {one.rationale for one in mixed}
    agreeing = lessons_of("two-task, agreeing reasons", whole, places, 0)
    assert [one.rationale for one in agreeing] == ["since 3", None, "since 5", None]


@pytest.mark.parametrize(
    ("arm", "way", "needs", "labels"),
    [
        ("standard", "standard", False, 2),
        ("standard, compute-matched", "standard", False, 2),
        ("distilled", "distilled", True, 0),
        ("two-task", "two-task", True, 2),
        ("two-task, shuffled reasons", "two-task", True, 2),
        ("two-task, human reasons", "two-task", False, 2),
        ("two-task, agreeing reasons", "two-task", True, 2),
        ("single-task", "single-task", True, 1),
        ("informed", "informed", True, 1),
    ],
)
def test_what_an_arm_is_and_needs(arm: str, way: str, needs: bool, labels: int) -> None:
    assert way_of(arm) == way
    assert asks(arm) is needs
    assert cost_of_labels(arm, [Example("x", "yes", rationale="so"), Example("y"), Example("z", "no")]) == labels
    assert len(ARMS) == 9


# what cannot be learned is refused before anything is run


def told(arms: list[str], learning_rates: Sequence[float] = (1e-3,)) -> Recipe:
    return config.check(
        {
            "sets": [{"form": "esnli", "train": "a", "test": "b"}],
            "model": {"names": ["t5-tiny"]},
            "arms": arms,
            "fractions": [0.1, 1.0],
            "steps": 4,
            "batch": 2,
            "evaluate_every": 2,
            "patience": 2,
            "held_out": [2, 2],
            "seeds": [0, 1],
            "tuning": {"seeds": [100], "learning_rates": learning_rates},
        },
        Recipe,
        "here",
    )


def without(whole: Task, places: Sequence[int], **lacking: Any) -> Task:
    return replace(whole, train=[replace(one, **lacking) if n in places else one for n, one in enumerate(whole.train)])


@pytest.mark.parametrize(
    ("arm", "lacking", "said"),
    [
        ("two-task", {"rationale": None}, "no example has a rationale"),
        ("two-task", {"label": None, "teacher_label": None}, "no example has a label"),
        ("standard", {"label": None, "teacher_label": None}, "no example has a label"),
        ("distilled", {"teacher_label": None}, "no example has a label of the teacher's"),
        ("two-task, agreeing reasons", {"teacher_label": "neither"}, "no example has a rationale"),
        ("two-task, shuffled reasons", {"rationale": None}, "0 reasons cannot be shuffled"),
        ("informed", {"rationale": "The answer is yes."}, "no example has a label and a rationale"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_an_arm_that_could_learn_nothing(arm: str, lacking: dict[str, Any], said: str) -> None:
    arms = list(dict.fromkeys(["standard", "two-task", arm]))
    recipe, whole = told(arms), task()
    check_lessons(recipe, [whole], arms)
    few = without(whole, whole.drawn(0.1, 1), **lacking)
    with pytest.raises(ValueError, match=rf"^T, 4 examples \(10 %\), seed 1, {arm}: {said}.*; take a larger fraction"):
        check_lessons(recipe, [few], [arm])


def test_seeds_that_nothing_is_chosen_at_are_not_missed() -> None:
    whole = task()
    few = without(whole, whole.drawn(0.1, 100), rationale=None)
    check_lessons(told(["standard", "two-task"]), [few], ["two-task"])
    with pytest.raises(ValueError, match=r"seed 100, two-task: no example has a rationale"):
        check_lessons(told(["standard", "two-task"], [1e-3, 2e-3]), [few], ["two-task"])


def test_arms_that_are_not_run_are_not_missed() -> None:
    check_lessons(told(["standard", "two-task"]), [without(task(), range(40), rationale=None)], ["standard"])
