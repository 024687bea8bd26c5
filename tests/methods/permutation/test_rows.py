"""What a row of JSON lines holds, and which rows are held out."""

from __future__ import annotations

from typing import Any

import pytest

from shoestring.methods.permutation.rows import Labelled, classes, held_out, labelled, listed, parted, shown

ROW = {"one": "a text", "two": "another", "gold": 3}


def test_texts_and_their_class() -> None:
    found = labelled(ROW, ("one", "two"), "gold", "f:7")
    assert found == Labelled("elsewhere", ("a text", "another"), "3"), "where it stands is no part of what it is"
    assert found.place == "f:7"


@pytest.mark.parametrize(
    ("columns", "label", "changes", "said"),
    [
        (
            ("three",),
            "gold",
            {},
            r"^f:7: no 'three'; it has 'one', 'two', 'gold': name the right",
        ),
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


def cut(rows: list[tuple[str, str, str]]) -> tuple[list[Any], list[Any], bool]:
    """Rows of two texts and a class."""
    return parted(rows, lambda row: row[:2], lambda row: row[2])


def test_rows_of_one_first_text_are_on_one_side() -> None:
    rows = [(f"text {number // 4}", str(number), str(number % 3)) for number in range(400)]
    train, dev, together = cut(rows)
    assert together
    assert sorted(train + dev) == sorted(rows)
    assert dev == [row for row in rows if held_out(row[0])]


def test_a_class_that_only_dev_would_have_is_learnt_and_nothing_else_moves() -> None:
    held = next(f"text {number}" for number in range(100) if held_out(f"text {number}"))
    rows = [(f"text {number // 4}", str(number), "usual") for number in range(400)]
    train, dev, together = cut([*rows, (held, "", "rare")])
    assert together
    assert (held, "", "rare") in train
    assert dev == [row for row in cut(rows)[1] if row[0] != held]


@pytest.mark.parametrize("contexts", [5, 8, 12, 30])
@pytest.mark.parametrize("seed", range(8))
def test_dev_is_about_a_tenth_however_few_first_texts_there_are(contexts: int, seed: int) -> None:
    rows = [(f"{seed} {number % contexts}", str(number), "one") for number in range(10 * contexts)]
    train, dev, together = cut(rows)
    assert sorted(train + dev) == sorted(rows)
    assert 0.03 * len(rows) <= len(dev) <= 0.25 * len(rows)
    assert together == (not {row[0] for row in train} & {row[0] for row in dev})


def test_where_first_texts_are_few_each_class_is_cut_row_by_row() -> None:
    rows = [("the same", str(number), "often" if number % 10 else "seldom") for number in range(100)]
    train, dev, together = cut([*rows, ("the same", "alone", "once")])
    assert not together
    assert sorted(train + dev) == sorted([*rows, ("the same", "alone", "once")])
    assert sorted(row[2] for row in dev) == ["often"] * 9 + ["seldom"]
    assert ("the same", "alone", "once") in train
    assert sorted(cut([*reversed(rows)])[1]) == sorted(cut(rows)[1]), "whatever the order"
    assert [len(part) for part in cut(rows[1:3])[:2]] == [1, 1]
    with pytest.raises(ValueError, match="2 rows, none of a class that another has"):
        cut([("a", "b", "one"), ("a", "c", "two")])


def test_many_classes_are_not_all_told() -> None:
    assert listed(("a", "b")) == "'a', 'b'"
    assert listed([str(number) for number in range(1200)]).endswith("'6', '7' and 1,192 more")


def test_a_long_value_is_cut() -> None:
    assert shown("x") == "'x'"
    assert shown("x" * 99) == f"'{'x' * 56}..."
