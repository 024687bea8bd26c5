"""Rows from files and from memory, and what is wrong with them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from shoestring.methods.rationale import rows
from shoestring.methods.rationale.rows import Row

TORN = gzip.compress(b'{"a": 1}\n' * 9, mtime=0)[:-9]


def write(folder: Path, content: str | bytes, name: str = "a.jsonl") -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_rows_of_a_file(tmp_path: Path) -> None:
    found = list(rows.read(write(tmp_path, '\ufeff{"a": 1}\n\n{"a": "é"}')))
    assert [(row.cells, row.place.rsplit(":")[-1]) for row in found] == [({"a": 1}, "1"), ({"a": "é"}, "3")]
    packed = write(tmp_path, gzip.compress(b'{"a": 1}\n', mtime=0), "b.jsonl.gz")
    assert [row.cells for row in rows.read(str(packed))] == [{"a": 1}]


def test_rows_of_memory() -> None:
    assert list(rows.read([{"a": 1}, {"a": 2}])) == [Row({"a": 1}, "row 1"), Row({"a": 2}, "row 2")]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("{", "a.jsonl", r"a\.jsonl:1: not JSON"),
        ('{"a": 1}\n[1]', "a.jsonl", r"a\.jsonl:2: a JSON list, expected an object"),
        ("[" * 100_000, "a.jsonl", r"a\.jsonl:1: not JSON"),
        (b'{"a": "\xff"}', "a.jsonl", r"a\.jsonl: not UTF-8 at byte 7"),
        ("a,b\n1,2\n", "a.csv", r"a\.csv: expected a file that ends in \.jsonl or \.jsonl\.gz"),
        ("{}", "a.jsonl.gz", r"a\.jsonl\.gz: the gzip file is damaged or cut short"),
        (
            gzip.compress(b'{"a": 1}\n' * 9, mtime=0)[:-9],
            "a.jsonl.gz",
            r"a\.jsonl\.gz: the gzip file is damaged or cut short",
        ),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: str | bytes, name: str, message: str) -> None:
    file = write(tmp_path, content, name)
    with pytest.raises(ValueError, match=message) as refused:
        list(rows.read(file))
    assert "\n" not in str(refused.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.jsonl: no such file, expected a \.jsonl"):
        list(rows.read(tmp_path / "none.jsonl"))
    with pytest.raises(ValueError, match=r": a folder, expected a \.jsonl"):
        list(rows.read(tmp_path))


def test_cells() -> None:
    row = Row({"a": " x ", "n": 3, "blank": " ", "null": None, "list": ["b", "B.", 2], "p": 0.5, "t": True}, "f:1")
    assert row.filled("a") == " x "
    assert row.filled("n") == "3"
    assert row.said("a") == "x"
    assert row.said("blank") is None
    assert row.said("null") is None
    assert row.listed("list") == ("b", "2")
    assert row.share("p") == 0.5
    assert row.share("null") is None
    assert row.truth("t") is True


@pytest.mark.parametrize(
    ("reading", "held", "message"),
    [
        ("filled", "", r"^f:1: column 'a' is blank"),
        ("filled", None, r"holds None, expected text"),
        ("filled", ["x"], r"holds \['x'\], expected text"),
        ("filled", True, r"holds True, expected text"),
        ("filled", json.loads('"\\ud800"'), r"holds half a surrogate pair"),
        ("said", {"b": 1}, r"holds \{'b': 1\}, expected text"),
        ("listed", "abc", r"holds 'abc', expected a list of options"),
        ("listed", [], r"holds \[\], expected a list of options"),
        ("listed", ["x", " "], r"lists a blank option"),
        ("listed", ["x", None], r"holds None, expected text"),
        ("share", 1.5, r"holds 1\.5, expected a number from 0 to 1"),
        ("share", float("nan"), r"holds nan, expected a number"),
        ("share", True, r"holds True, expected a number"),
        ("truth", 1, r"holds 1, expected true or false"),
    ],
)
def test_cells_that_are_refused(reading: str, held: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(Row({"a": held}, "f:1"), reading)("a")


def test_a_column_that_is_missing() -> None:
    with pytest.raises(
        ValueError, match=r"^f:1: no column 'qestion'; it has 'question', 'x'; did you mean 'question'\?"
    ):
        Row({"question": "?", "x": 1}, "f:1").cell("qestion")
    with pytest.raises(ValueError, match=r"^f:1: no column 'a'; it has none$"):
        Row({}, "f:1").cell("a")


def test_long_values_are_shown_short() -> None:
    assert rows.shown("x" * 100_000) == "'" + "x" * 56 + "..."
