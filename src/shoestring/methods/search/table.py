"""Tabular benchmarks: the user's own file of architectures and what training them gave."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from shoestring.methods.search.history import Train, Trained
from shoestring.methods.search.space import Space

A = TypeVar("A")
NAMES = ("arch_str", "arch")


@dataclass(frozen=True)
class Table:
    """Architectures, as text, and numbers that are known of each.

    columns  the numbers' names
    rows     by architecture, the numbers in the order of `columns`
    source   what errors call it
    """

    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[float]]
    source: str = "the table"

    @classmethod
    def read(cls, path: str | Path, space: Space[Any] | None = None, name: str | None = None) -> Table:
        """Read a CSV file, gzipped or not: a header, then a row an architecture.

        space  whose architectures they are: each is checked, and written as the space writes it
        name   of the column with the architecture; where None it is `arch_str`, else `arch`, else the first
        All other columns must be numbers, and finite. UTF-8, commas, quotes as usual; blank lines are passed over.
        Raises ValueError, one line, naming file, line and column.
        """
        file = Path(path)
        lines = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
        try:
            header = next(lines, [])
            place = _place(header, file, name)
            rows: dict[str, list[float]] = {}
            seen: dict[str, int] = {}
            for row in lines:
                if not row:
                    continue
                where = f"{file} line {lines.line_num}"
                if len(row) != len(header):
                    raise ValueError(f"{where}: has {len(row)} columns, but the header has {len(header)}")
                text = _architecture(row[place], header[place], where, space)
                if text in seen:
                    raise ValueError(f"{where}: {text} stands in line {seen[text]} already: keep one row of the two")
                seen[text] = lines.line_num
                rows[text] = [_number(row[at], header[at], where) for at in range(len(header)) if at != place]
        except csv.Error as error:
            raise ValueError(f"{file} line {lines.line_num}: is no CSV ({error})") from error
        if not rows:
            raise ValueError(f"{file}: holds a header and no row: expected a row an architecture")
        return cls((*header[:place], *header[place + 1 :]), rows, str(file))

    def write(self, path: str | Path) -> None:
        """Write the table as a CSV file that `read` reads, gzipped where its name ends in .gz; beside, then renamed."""
        file, text = Path(path), io.StringIO(newline="")
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow([NAMES[1], *self.columns])
        lines.writerows([architecture, *numbers] for architecture, numbers in self.rows.items())
        content = text.getvalue().encode()
        beside = file.with_name(file.name + ".partial")
        beside.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
        beside.replace(file)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[str, dict[str, float]]]:
        """Each architecture with its numbers by name, in the order of the file."""
        for text, numbers in self.rows.items():
            yield text, dict(zip(self.columns, numbers, strict=True))

    def __contains__(self, text: object) -> bool:
        return text in self.rows

    def value(self, text: str, column: str) -> float:
        """One number. Raises ValueError where there is no such architecture or column."""
        if text not in self.rows:
            raise ValueError(f"{self.source}: holds no {text}: it lists {len(self)} architectures (see `Listed`)")
        return self.rows[text][self._index(column)]

    def train(self, space: Space[A], accuracy: str, cost: str | float, test: str | None = None) -> Train[A]:
        """Training, looked up: what the searches ask for.

        accuracy, test  the columns of these
        cost            a column, or what each costs
        """
        for column in (accuracy, cost, test):
            if isinstance(column, str):
                self._index(column)

        def looked_up(architecture: A) -> Trained:
            text = space.encode(architecture)
            price = self.value(text, cost) if isinstance(cost, str) else float(cost)
            return Trained(self.value(text, accuracy), price, self.value(text, test) if test else math.nan)

        return looked_up

    def _index(self, column: str) -> int:
        if column not in self.columns:
            raise ValueError(_absent(self.source, column, self.columns))
        return self.columns.index(column)


def _text(file: Path) -> str:
    if not file.is_file():
        raise ValueError(f"{file}: no such file: expected a table (.csv or .csv.gz)")
    content = file.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{file}: is torn or no gzip file ({error}): copy it anew") from error
    elif file.suffix == ".gz" and content:
        raise ValueError(f"{file}: is no gzip file, whatever its name says: copy it anew, or rename it")
    if not content.strip():
        raise ValueError(f"{file}: is empty: expected a header and a row an architecture")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{file} line {line}: is not UTF-8: save it as UTF-8") from error


def _place(header: list[str], file: Path, name: str | None) -> int:
    """Where the architecture stands."""
    if "" in header:
        raise ValueError(f"{file} line 1: column {header.index('') + 1} has no name")
    doubled = next((column for column in header if header.count(column) > 1), None)
    if doubled is not None:
        raise ValueError(f"{file} line 1: names the column {doubled!r} twice")
    if len(header) < 2:
        raise ValueError(f"{file} line 1: {','.join(header)!r} is one column: expected two or more, between commas")
    if name is not None and name not in header:
        raise ValueError(_absent(str(file), name, header))
    return header.index(name if name is not None else next((known for known in NAMES if known in header), header[0]))


def _architecture(text: str, column: str, where: str, space: Space[Any] | None) -> str:
    if not text.strip():
        raise ValueError(f"{where}: column {column!r} is empty: expected an architecture")
    if space is None:
        return text.strip()
    try:
        return space.encode(space.decode(text))
    except ValueError as error:
        raise ValueError(f"{where}: column {column!r}: {error}") from error


def _number(text: str, column: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{where}: column {column!r} is {text!r}: expected a number; else leave it out") from None
    if not math.isfinite(number):
        raise ValueError(f"{where}: column {column!r} is {text!r}: expected a finite number; or leave the row out")
    return number


def _absent(source: str, column: str, columns: Sequence[str]) -> str:
    close = difflib.get_close_matches(column, columns, n=1, cutoff=0.5)
    meant = f"; did you mean {close[0]!r}?" if close else f": expected one of {', '.join(columns)}"
    return f"{source}: has no column {column!r}{meant}"
