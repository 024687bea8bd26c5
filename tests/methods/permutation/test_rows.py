"""What a row of JSON lines holds, and which rows are held out."""

from __future__ import annotations

from typing import Any

import pytest

from shoestring.methods.permutation.rows import Labelled, classes, held_out, labelled, shown

ROW = {"one": "a text", "two": "another", "gold": 3}


def test_texts_and_their_class() -> None:
    found = labelled(ROW, ("one", "two"), "gold", "f:7")
    assert found == Labelled("elsewhere", ("a text", "another"), "3"), "where it stands is no part of what it is"
    assert found.place == "f:7"


@pytest.mark.parametrize(
    ("columns", "label", "changes", "said"),
    [
        (("three",), "gold", {}, r"^f:7: no 'three'; it has 'one', 'two', 'gold': name the columns$"),
        (("one",), "label", {}, r"^f:7: no 'label'; it has"),
        (("gold",), "gold", {}, r"^f:7: gold: expected text, got 3$"),
        (("one",), "gold", {"gold": 0.5}, r"^f:7: gold: expected text or a whole number, got 0\.5$"),
        (("one",), "gold", {"one": " \n"}, r"^f:7: one: empty: leave such rows out$"),
        (("one",), "gold", {"gold": ""}, r"^f:7: gold: empty"),
    ],
)
def test_what_a_row_has_not(columns: Any, label: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        labelled({**ROW, **changes}, columns, label, "f:7")


@pytest.mark.parametrize(("labels", "order"), [("10 9 9 0", ("0", "9", "10")), ("b 10 a 9", ("10", "9", "a", "b"))])
def test_classes_are_in_order(labels: str, order: tuple[str, ...]) -> None:
    assert classes(Labelled("", ("x",), label) for label in labels.split()) == order


def test_a_tenth_is_held_out() -> None:
    found = [held_out(f"text {number}") for number in range(2000)]
    assert 150 < sum(found) < 250
    assert found == [held_out(f"text {number}") for number in range(2000)]


def test_a_long_value_is_cut() -> None:
    assert shown("x") == "'x'"
    assert shown("x" * 99) == f"'{'x' * 56}..."
