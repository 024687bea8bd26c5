"""Self-consistency: the majority's label, its share, and the first reason for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.rationale.parse import Parsed
from shoestring.methods.rationale.vote import Vote, vote


def said(label: str, reason: str = "r", problem: str | None = None) -> Parsed:
    return Parsed(reason, label, problem)


def test_by_hand() -> None:
    samples = [said("a", "1"), said("b", "2"), said("b", "3"), said("c", "4", "no marker"), said("b", "5")]
    assert vote(samples) == Vote("b", "2", 0.6, 4)


def test_of_equals_the_first_wins() -> None:
    assert vote([said("b", "1"), said("a", "2"), said("a", "3"), said("b", "4")]) == Vote("b", "1", 0.5, 4)


def test_what_could_not_be_read_does_not_vote_but_counts() -> None:
    lost = said("b", problem="label outside the options")
    assert vote([lost, lost, said("a", "1"), Parsed("x", None)]) == Vote("a", "1", 0.25, 1)
    assert vote([lost, Parsed(None, None, "empty completion")]) == Vote(None, None, 0.0, 0)


def test_expressions_are_one_by_value() -> None:
    samples = [said("(4 + 2)"), said("(84 / 2)", "1"), said("(21 * 2)", "2")]
    assert vote(samples, expression=True) == Vote("(84 / 2)", "1", pytest.approx(2 / 3), 3)
    assert vote(samples, options=("(4 + 2)", "(84 / 2)", "(21 * 2)"), expression=True).label == "(4 + 2)"
    assert vote(samples) == Vote("(4 + 2)", "r", pytest.approx(1 / 3), 3), "nobody said that they are expressions"


def test_scores_and_dates_are_no_expressions() -> None:
    samples = [said("1", "first"), said("2-1", "second"), said("3-2", "third"), said("2-1", "fourth")]
    assert vote(samples) == Vote("2-1", "second", 0.5, 4)


def test_agreement_is_over_all_that_were_asked_for() -> None:
    assert vote([said("a")], asked=5) == Vote("a", "r", 0.2, 1)
    assert vote([said("a"), said("b", problem="no marker"), said("a")], asked=4) == Vote("a", "r", 0.5, 2)
    assert vote([said("a", problem="no marker")], asked=5) == Vote(None, None, 0.0, 0)


def test_nothing_to_vote() -> None:
    with pytest.raises(ValueError, match=r"^no sample to vote: expected at least one$"):
        vote([])


@given(st.lists(st.sampled_from("abc") | st.none(), min_size=1, max_size=12), st.integers(0, 5))
def test_against_counting(given_labels: list[str | None], missing: int) -> None:
    asked = len(given_labels) + missing
    found = vote([Parsed("r", label, None if label else "no marker") for label in given_labels], asked=asked)
    cast = [label for label in given_labels if label]
    if not cast:
        assert found.label is None
        return
    best = max(cast.count(label) for label in cast)
    assert found.label == next(label for label in cast if cast.count(label) == best)
    assert found.agreement == best / asked
