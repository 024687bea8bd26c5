"""Rows of JSON lines that a model is fine-tuned on, each checked as it is read, with the place that it stands at."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from shoestring import files
from shoestring.data import formats
from shoestring.methods.permutation.rows import Labelled, classes, labelled, listed, parted, shown, text_of, value_of
from shoestring.methods.permutation.tools_finetune_setting import Setting


@dataclass(frozen=True)
class Asked:
    """A question on a context. answers: the character that each starts at, and its text; none where there is none."""

    place: str
    texts: tuple[str, ...]
    question: str
    answers: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Optioned:
    """A question on a context with options, of which the one at the place `right` is right."""

    place: str
    texts: tuple[str, ...]
    question: str
    options: tuple[str, ...]
    right: int


_FEW = 20  # classes; of more, each should have two rows or more, to learn from and to measure by
Row: TypeAlias = Labelled | Asked | Optioned


@dataclass(frozen=True)
class Rows:
    """together: rows of one first text are of dev or of train, not of both; None where dev has a file of its own."""

    train: list[Row]
    dev: list[Row]
    test: list[Row]
    together: bool | None

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of train in order."""
        return classes(row for row in self.train if isinstance(row, Labelled))


def read(setting: Setting) -> Rows:
    """The rows of all files. Without one for dev, a tenth of train is, as `parted` cuts it. Raises ValueError, naming
    file and line, where a row is not what the task wants."""
    every = _file(setting, setting.train)
    _check_labels(setting, every)
    dev = [] if setting.dev is None else _file(setting, setting.dev)
    test = [] if setting.test is None else _file(setting, setting.test)
    try:
        rows = Rows(every, dev, test, None) if dev else _parted(every, test)
    except ValueError as error:
        raise ValueError(f"{setting.train}: {error}") from error
    labels, options = rows.labels, Counter(len(row.options) for row in every if isinstance(row, Optioned))
    for row in (*every, *dev, *test):
        if isinstance(row, Labelled) and row.label not in labels:
            raise ValueError(f"{row.place}: the label {row.label!r} is none of train's: {listed(labels)}")
        if isinstance(row, Optioned) and len(row.options) != (usual := options.most_common(1)[0][0]):
            raise ValueError(f"{row.place}: {len(row.options)} options, where others have {usual}: expected as many")
    return rows


def _check_labels(setting: Setting, rows: Sequence[Row]) -> None:
    """Raises ValueError where the labels of train are no classes."""
    labels = classes(row for row in rows if isinstance(row, Labelled))
    if setting.task == "classification" and len(labels) < 2:
        raise ValueError(f"{setting.train}: the labels are {listed(labels)}: expected two or more")
    if setting.dev is None and len(labels) > _FEW and len(labels) > len(rows) / 2:
        raise ValueError(
            f"{setting.train}: {setting.label!r} has {len(labels):,} labels in {len(rows):,} rows, such as "
            f"{shown(labels[0])}: expected classes that rows share: name their column by --label"
        )


def _parted(every: Sequence[Row], test: list[Row]) -> Rows:
    def texts(row: Row) -> Sequence[str]:
        return row.texts if isinstance(row, Labelled) else (*row.texts, row.question)

    train, dev, together = parted(every, texts, lambda row: row.label if isinstance(row, Labelled) else "")
    return Rows(train, dev, test, together)


def _file(setting: Setting, name: str) -> list[Row]:
    found = [_row(setting, row, place) for place, row in formats.json_rows(files.find(name), name)]
    if not found:
        raise ValueError(f"{name}: no rows: expected JSON lines")
    return found


def _row(setting: Setting, row: dict[str, Any], place: str) -> Row:
    if setting.task == "classification":
        return labelled(row, setting.columns, setting.label, place)
    context, question = (text_of(row, column, place) for column in setting.columns[:2])
    column = setting.columns[2]
    if setting.task == "spans":
        return Asked(place, (context,), question, tuple(_answers(row, column, place)))
    options = value_of(row, column, place)
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(one, str) for one in options):
        raise ValueError(f"{place}: {column}: expected a list of two texts or more, got {shown(options)}")
    return Optioned(place, (context,), question, tuple(options), _right(row, setting.label, len(options), place))


def _answers(row: dict[str, Any], column: str, place: str) -> Iterator[tuple[int, str]]:
    held = value_of(row, column, place)
    expected = "expected [{start, text}], or {text: [...], answer_start: [...]}"
    if isinstance(held, dict):
        texts, starts = held.get("text"), held.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise ValueError(f"{place}: {column}: {expected}, got {shown(held)}")
        pairs = [*zip(starts, texts, strict=True)]
    elif isinstance(held, list) and all(isinstance(one, dict) for one in held):
        pairs = [(one.get("start", one.get("answer_start")), one.get("text")) for one in held]
    else:
        raise ValueError(f"{place}: {column}: {expected}, got {shown(held)}")
    for start, text in pairs:
        if type(start) is not int or not isinstance(text, str):
            raise ValueError(f"{place}: {column}: {expected}, got {shown(held)}")
        yield start, text


def _right(row: dict[str, Any], column: str, count: int, place: str) -> int:
    """The place of the right option, from its number or its letter."""
    held, letters = value_of(row, column, place), string.ascii_uppercase[:count]
    if isinstance(held, str) and len(held) == 1 and held.upper() in letters:
        return letters.index(held.upper())
    if type(held) is not int or not 0 <= held < count:
        raise ValueError(f"{place}: {column}: expected 0 to {count - 1}, or A to {letters[-1]}, got {shown(held)}")
    return held
