"""What is cut is told of what a way reads and writes, and of nothing else."""

from __future__ import annotations

import pytest

from shoestring.data import tokenizers
from shoestring.methods.rationale.encode import Coder
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import LABEL, Lesson, Way, lessons
from shoestring.methods.rationale.recipe_ground import WORDING
from shoestring.methods.rationale.recipe_lengths import cut

EXAMPLES = [Example("t" * 20, "yes", (), "r" * (30 + place), "yes") for place in range(10)]
UNCUT = 10**6


def coder(source: int, target: int) -> Coder:
    return Coder(tokenizers.byte_tokenizer(), "encoder-decoder", source, target)


@pytest.mark.parametrize(
    ("way", "room", "said"),
    [
        ("standard", (UNCUT, 8), []),
        ("standard", (16, 8), ["10 of 10 texts (label task) are longer than 16 tokens and are cut"]),
        ("standard", (UNCUT, 3), ["10 of 10 labels (label task) are longer than 3 tokens and are cut"]),
        ("two-task", (UNCUT, 36), ["4 of 10 reasons (rationale task) are longer than 36 tokens and are cut"]),
        ("informed", (UNCUT, 8), []),
    ],
)
def test_by_hand(way: Way, room: tuple[int, int], said: list[str]) -> None:
    assert [*cut(coder(*room), EXAMPLES, [way])] == said


@pytest.mark.parametrize(("way", "what"), [("single-task", "reasons with their labels"), ("informed", "texts with")])
def test_what_goes_together_shares_the_room(way: Way, what: str) -> None:
    """Half of the examples fit where the room is that of the fifth, by the coder's own words."""

    def size(lesson: Lesson) -> int:
        (pair,) = coder(UNCUT, UNCUT).pairs([lesson])
        return len(pair.source if way == "informed" else pair.target)

    sizes = [size(lesson) for lesson in lessons(EXAMPLES, way, WORDING)[LABEL]]
    room = (sizes[4], 8) if way == "informed" else (UNCUT, sizes[4])
    (sentence,) = cut(coder(*room), EXAMPLES, [way])
    assert sentence.startswith(f"5 of 10 {what}")


def test_ways_that_read_the_same_say_it_once() -> None:
    found = [*cut(coder(16, 36), EXAMPLES, ["standard", "two-task", "informed"])]
    assert [sentence.split(" are ")[0] for sentence in found] == [
        "10 of 10 texts (label task)",
        "4 of 10 reasons (rationale task)",
        "10 of 10 texts with their reasons",
    ]


def test_of_many_examples_some_are_looked_at_and_a_rare_reason_is_not_missed() -> None:
    many = [Example("t", "yes", (), "r" * 99 if place == 1 else None, "yes") for place in range(5000)]
    assert [*cut(coder(UNCUT, 3), many, ["two-task"])] == [
        "1,000 of 1,000 labels (label task) that were looked at are longer than 3 tokens and are cut",
        "1 of 1 reasons (rationale task) are longer than 3 tokens and are cut",
    ]
