"""Rows of a table, from a file or from memory, and their cells: what is not as it should be is named by its place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoestring.data import formats
from shoestring.methods.rationale import labels

FORM = "form.json"  # in a student's folder: how rows become the texts that it reads


@dataclass(frozen=True)
class Row:
    """A row of a table, and how errors call it."""

    cells: Mapping[str, Any]
    place: str

    def cell(self, name: str) -> Any:
        if name not in self.cells:
            there = ", ".join(map(repr, self.cells)) or "none"
            raise ValueError(f"{self.place}: no column {name!r}; it has {there}{nearest(name, self.cells)}")
        return self.cells[name]

    def written(self, name: str, held: Any) -> str:
        """A cell, or a part of one, as text; a number is written out."""
        if isinstance(held, int | float) and not isinstance(held, bool):
            return str(held)
        if not isinstance(held, str):
            raise ValueError(f"{self.place}: column {name!r} holds {shown(held)}, expected text")
        try:
            held.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{self.place}: column {name!r} holds half a surrogate pair, which UTF-8 cannot hold: write it anew"
            ) from None
        return held

    def filled(self, name: str) -> str:
        found = self.written(name, self.cell(name))
        if not found.strip():
            raise ValueError(f"{self.place}: column {name!r} is blank, expected text: fill it, or leave the row out")
        return found

    def said(self, name: str) -> str | None:
        """What a teacher said; None where that is nothing."""
        held = self.cell(name)
        return None if held is None else self.written(name, held).strip() or None

    def listed(self, name: str) -> tuple[str, ...]:
        """The options of a row: what is listed twice is one option."""
        held = self.cell(name)
        if not isinstance(held, list | tuple) or not held:
            raise ValueError(f"{self.place}: column {name!r} holds {shown(held)}, expected a list of options")
        options = [self.written(name, option).strip() for option in held]
        if not all(options):
            raise ValueError(f"{self.place}: column {name!r} lists a blank option: leave it out")
        return labels.distinct(options)

    def share(self, name: str) -> float | None:
        held = self.cell(name)
        if held is None:
            return None
        if isinstance(held, bool) or not isinstance(held, int | float) or not 0 <= held <= 1:
            raise ValueError(f"{self.place}: column {name!r} holds {shown(held)}, expected a number from 0 to 1")
        return float(held)

    def truth(self, name: str) -> bool:
        held = self.cell(name)
        if not isinstance(held, bool):
            raise ValueError(f"{self.place}: column {name!r} holds {shown(held)}, expected true or false")
        return held


def read(source: str | Path | Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """The rows of a file (.jsonl, .jsonl.gz; a byte-order mark is dropped), or of what is given."""
    if isinstance(source, str | Path):
        yield from (Row(cells, place) for place, cells in _rows(Path(source)))
    else:
        yield from (Row(cells, f"row {number}") for number, cells in enumerate(source, start=1))


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not path.is_file():
        raise ValueError(
            f"{path}: {'a folder' if path.is_dir() else 'no such file'}, expected a .jsonl or .jsonl.gz file"
        )
    if formats.suffix(path) != ".jsonl":
        raise ValueError(f"{path}: expected a file that ends in .jsonl or .jsonl.gz")
    yield from formats.json_rows(path, str(path))


def nearest(name: str, names: Iterable[str], cutoff: float = 0.5) -> str:
    """`; did you mean 'x'?`, or nothing where no name is near."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]!r}?" if close else ""


def counted(number: int) -> str:
    """How many rows, in words."""
    return "1 row" if number == 1 else f"{number:,} rows"


def on_a_line(text: str) -> str:
    """A text of several lines as reports quote it."""
    line = " / ".join(text.split("\n"))
    return repr(line if len(line) <= 160 else line[:157] + "...")


def shown(held: Any) -> str:
    """A value as errors show it, not too long."""
    written = repr(held)
    return written if len(written) <= 60 else written[:57] + "..."
