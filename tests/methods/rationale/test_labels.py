"""When two labels are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.rationale import labels

CHOICES = ("Michigan", "body of water", "e. coli", "yes", "no")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Michigan", "Michigan"),
        ("michigan", "Michigan"),
        (" Body  of\nwater. ", "body of water"),
        ("body\u00a0of water", "body of water"),
        ("\u200byes\ufeff", "yes"),
        ("ｙｅｓ", "yes"),
        ("**yes**", "yes"),
        ("“Yes.”", "yes"),
        ("`no`", "no"),
        ("E. coli", "e. coli"),
        ("e. coli.", "e. coli"),
        ("water", None),
        ("", None),
        (".", None),
        ("yes no", None),
    ],
)
def test_matching(text: str, expected: str | None) -> None:
    assert labels.match(text, CHOICES) == expected


def test_what_fits_several_options_is_none_of_them() -> None:
    assert labels.match("a", ("A", "a.")) is None
    assert labels.match("A", ("A", "a.")) == "A"
    assert labels.match("x", ()) is None


def test_options_are_kept_once() -> None:
    assert labels.distinct(["bridge", "beach", "Bridge", "bridge."]) == ("bridge", "beach")
    assert labels.distinct(["!", "?", "."]) == ("!", "?", ".")


@pytest.mark.parametrize(
    ("first", "second", "options", "expected"),
    [
        ("yes", "Yes.", ("yes", "no"), True),
        ("yes", "no", ("yes", "no"), False),
        ("yes", "maybe", ("yes", "no"), False),
        ("4", "4.0", ("4", "4.0"), False),
        ("4", "4.0", (), False),
        ("(84 / 2)", "(21 * 2)", (), False),
        ("2020-01-05", "2014", (), False),
        ("2-1", "1", (), False),
        ("10/12", "5/6", (), False),
        ("Paris", "paris.", (), True),
        ("(some - 8)", "(Some - 8)", (), True),
        ("Paris", "London", (), False),
    ],
)
def test_sameness(first: str, second: str, options: tuple[str, ...], expected: bool) -> None:
    assert labels.same(first, second, options) is expected
    assert labels.same(second, first, options) is expected


@pytest.mark.parametrize(
    ("first", "second", "options", "expected"),
    [
        ("4", "4.0", (), True),
        ("(84 / 2)", "(21 * 2)", (), True),
        ("(84 / 2)", "(84 - 2)", (), False),
        ("10/12", "5/6", (), True),
        ("(some - 8)", "(Some - 8)", (), True),
        ("Paris", "paris.", (), True),
        ("Paris", "London", (), False),
        ("4", "4.0", ("4", "4.0"), False),
    ],
)
def test_expressions_are_the_same_by_value(first: str, second: str, options: tuple[str, ...], expected: bool) -> None:
    assert labels.same(first, second, options, expression=True) is expected
    assert labels.same(second, first, options, expression=True) is expected


@given(st.text("0123456789-+/*() .", max_size=12), st.text("0123456789-+/*() .", max_size=12))
def test_without_being_told_only_what_is_written_counts(first: str, second: str) -> None:
    assert labels.same(first, second) is (labels.folded(first) == labels.folded(second))
    assert labels.same(first, second, expression=True) or not labels.same(first, second)


@given(st.text(max_size=20))
def test_folding_twice_is_folding_once_more_or_less(text: str) -> None:
    """Only full stops may be left to fold, one at a time."""
    folded = labels.folded(text)
    assert labels.folded(folded).rstrip(". ") == folded.rstrip(". ")


@given(st.lists(st.text(max_size=8), max_size=6))
def test_distinct_options_match_themselves(options: list[str]) -> None:
    kept = labels.distinct(options)
    assert [labels.match(option, kept) for option in kept] == list(kept)
    assert labels.distinct(kept) == kept
