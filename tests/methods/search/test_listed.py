"""A space cut down to a table's rows."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from shoestring.methods.search.cells201 import Cell, Cells201
from shoestring.methods.search.listed import Listed
from shoestring.methods.search.table import Table

SPACE = Cells201(channels=4, cells=1)
START: Cell = ("none",) * 6


def listed(*cells: Cell) -> Listed[Cell]:
    return Listed(SPACE, Table(("value",), {SPACE.encode(cell): [1.0] for cell in cells}, "mine.csv"))


def changed(edge: int, operation: str) -> Cell:
    return (*START[:edge], operation, *START[edge + 1 :])


def test_draws_are_uniform_over_the_rows() -> None:
    cells = [START, changed(0, "skip_connect"), changed(1, "nor_conv_1x1")]
    space, random = listed(*cells), Random(0)
    counts = Counter(space.draw(random) for _ in range(3000))
    assert set(counts) == set(cells)
    assert all(900 < count < 1100 for count in counts.values())


def test_mutations_stay_inside_and_are_uniform_over_the_listed_neighbours() -> None:
    near = [changed(0, "skip_connect"), changed(5, "nor_conv_1x1"), changed(5, "nor_conv_3x3")]
    far = ("skip_connect",) * 6
    space, random = listed(START, *near, far), Random(0)
    assert sorted(space.neighbours(START)) == sorted(near)
    counts = Counter(space.mutate(START, random) for _ in range(1500))
    assert set(counts) == set(near)
    assert all(400 < count < 600 for count in counts.values())


def test_a_cell_without_neighbours_is_told() -> None:
    space = listed(START, ("skip_connect",) * 6)
    with pytest.raises(ValueError, match=r"mine\.csv: holds no neighbour of \|none~0\|"):
        space.mutate(START, Random(0))


def test_it_is_the_space_otherwise() -> None:
    space = listed(START, changed(0, "skip_connect"))
    assert space.name == "nas-bench-201"
    assert len(space) == 2
    assert list(space) == [START, changed(0, "skip_connect")]
    assert space.decode(space.encode(START)) == START
    assert sum(tensor.numel() for tensor in space.build(START, 0).parameters()) > 0
    with pytest.raises(ValueError, match=r"is not in mine\.csv: expected one of its 2"):
        space.decode(SPACE.encode(("skip_connect",) * 6))
    with pytest.raises(ValueError, match="a NAS-Bench-201 cell is written"):
        space.decode("x")


def test_a_table_of_another_space_is_refused() -> None:
    with pytest.raises(ValueError, match="a NAS-Bench-201 cell is written"):
        Listed(SPACE, Table(("value",), {"01201": [1.0]}))
