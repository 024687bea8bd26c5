"""Sentences that state the answer, and labels named word for word."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.rationale import leaks

ANSWERS = ("park", "math problem", "neutral")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("It counts. So the answer is (c) math problem.", "It counts."),
        ("It counts. So the answer is math problem", "It counts."),
        ("The answer is park. It is green.", "It is green."),
        ("It is open. Therefore, the correct answer is neutral!", "It is open."),
        ("It is open, so the answer is neutral.", "It is open."),
        ("It is open.\nAnswer: neutral\nMore.", "It is open.\n\nMore."),
        ("It is open.\n**Final answer: neutral**", "It is open."),
        ("A place. Of the above choices, the closest answer is (c) go somewhere.", "A place."),
        ("So the answer is park.", ""),
        ("", ""),
        # these state none
        ("The answer must be a place. Parks are places.", "The answer must be a place. Parks are places."),
        ("The answer is a place with trees. Only one has.", "The answer is a place with trees. Only one has."),
        ("She answers: it is a park.", "She answers: it is a park."),
        ("The answer is not known.", "The answer is not known."),
    ],
)
def test_what_is_cut(reason: str, expected: str) -> None:
    assert leaks.without_answer(reason, ANSWERS) == expected


def test_expressions() -> None:
    assert leaks.without_answer("Halve it. The answer is (84 / 2).", ["(84 / 2)"]) == "Halve it."
    assert leaks.without_answer("Halve it. So the answer is 42.", ["(84 / 2)"]) == "Halve it."
    assert leaks.without_answer("The answer is half of it.", ["(84 / 2)"]) == "The answer is half of it."


def test_where_nobody_knows_what_may_be_an_answer() -> None:
    assert leaks.without_answer("Halve it. So the answer is a park.", None) == "Halve it."
    assert leaks.without_answer("The answer must be a place.", None) == "The answer must be a place."


@pytest.mark.parametrize(
    ("reason", "label", "expected"),
    [
        ("Only a math  Problem fits.", "math problem", True),
        ("Only mathematical problems fit.", "math problem", False),
        ("Parks are green.", "park", False),
        ("So 84 / 2 = 42.", "(84 / 2)", True),
        ("So 84/2=42.", "(84 / 2)", True),
        ("So 184 / 2 = 92.", "(84 / 2)", False),
        ("So 84 / 25 is.", "(84 / 2)", False),
        ("So 84 / 2.5 is.", "(84 / 2)", False),
        ("(17 + 9) - 4", "((17 + 9) - 4)", True),
        ("First 17 + 9 = 26, then 26 - 4.", "((17 + 9) - 4)", False),
        ("There are 42.", "42", True),
        ("", "park", False),
        ("Anything", "!", False),
    ],
)
def test_labels_that_are_named(reason: str, label: str, expected: bool) -> None:
    assert leaks.names(reason, label) is expected


@given(st.text(max_size=100))
def test_nothing_else_is_cut(reason: str) -> None:
    assert "answer" in reason.casefold() or leaks.without_answer(reason, ANSWERS) == reason.strip()


@pytest.mark.parametrize(
    "reason",
    [
        "the answer is " * 7_000,
        ", so " * 20_000,
        "of x, " * 16_000,
        "." * 100_000,
        ". " * 50_000,
        " " * 100_000,
        "\n" * 100_000,
    ],
)
def test_long_reasons_are_read_in_time(reason: str) -> None:
    start = time.process_time()
    leaks.without_answer(reason, ANSWERS)
    assert time.process_time() - start < 2
