"""What arms learn from: the same examples for all, and what each makes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.recipe_data import Task
from shoestring.methods.rationale.recipe_lessons import asks, cost_of_labels, lessons_of, unanswered, way_of
from shoestring.methods.rationale.recipe_schema import ARMS


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


def test_who_reads_a_reason_does_not_read_the_answer_and_no_example_is_lost() -> None:
    examples = [
        Example("x", "yes", ("yes", "no"), "It rains. So the answer is yes.", "yes"),
        Example("y", "no", ("yes", "no"), "The answer is no.", "no"),
        Example("z", "no", ("yes", "no"), None, None),
    ]
    found = unanswered(examples)
    assert [one.rationale for one in found] == ["It rains.", None, None]
    assert [one.text for one in found] == ["x", "y", "z"], "a test part is the same for every arm"


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
