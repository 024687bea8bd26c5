"""Rows of JSON lines that a model is fine-tuned on, each checked as it is read, with the place that it stands at."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from shoestring import files
from shoestring.data import formats
from shoestring.methods.permutation.rows import Labelled, classes, held_out, labelled, shown, text_of, value_of
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


Row: TypeAlias = Labelled | Asked | Optioned


@dataclass(frozen=True)
class Rows:
    train: list[Row]
    dev: list[Row]
    test: list[Row]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of train in order."""
        return classes(row for row in self.train if isinstance(row, Labelled))


def read(setting: Setting) -> Rows:
    """The rows of all files. Without one for dev, a tenth of train is, by a hash of its texts: the same contexts stay
    on one side. Raises ValueError, naming file and line, where a row is not what the task wants."""
    train = _file(setting, setting.train)
    if setting.dev is not None:
        dev = _file(setting, setting.dev)
    else:
        dev = [row for row in train if held_out(row.texts[0])]
        train = [row for row in train if not held_out(row.texts[0])]
        if not dev or not train:
            raise ValueError(f"{setting.train}: {len(dev) + len(train)} rows leave none for train or dev: give --dev")
    rows = Rows(train, dev, [] if setting.test is None else _file(setting, setting.test))
    labels = rows.labels
    if setting.task == "classification" and len(labels) < 2:
        raise ValueError(f"{setting.train}: the labels are {', '.join(map(repr, labels))}: expected two or more")
    options = {len(row.options) for row in train if isinstance(row, Optioned)}
    for row in (*train, *dev, *rows.test):
        if isinstance(row, Labelled) and row.label not in labels:
            raise ValueError(f"{row.place}: the label {row.label!r} is none of train's: {', '.join(labels)}")
        if isinstance(row, Optioned) and len(options | {len(row.options)}) > 1:
            raise ValueError(f"{row.place}: {len(row.options)} options, others have more or fewer: expected as many")
    return rows


def _file(setting: Setting, name: str) -> list[Row]:
    found = [_row(setting, row, place) for place, row in formats.json_rows(files.find(name), name)]
    if not found:
        raise ValueError(f"{name}: no rows: expected JSON lines")
    return found


def _row(setting: Setting, row: dict[str, Any], place: str) -> Row:
    if setting.task == "classification":
        return labelled(row, setting.columns, setting.label, place)
    context, question = text_of(row, "context", place), text_of(row, "question", place)
    if setting.task == "spans":
        return Asked(place, (context,), question, tuple(_answers(row, place)))
    options = value_of(row, "options", place)
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(one, str) for one in options):
        raise ValueError(f"{place}: options: expected a list of two texts or more, got {shown(options)}")
    return Optioned(place, (context,), question, tuple(options), _right(row, setting.label, len(options), place))


def _answers(row: dict[str, Any], place: str) -> Iterator[tuple[int, str]]:
    held = value_of(row, "answers", place)
    expected = "expected [{start, text}], or {text: [...], answer_start: [...]}"
    if isinstance(held, dict):
        texts, starts = held.get("text"), held.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise ValueError(f"{place}: answers: {expected}, got {shown(held)}")
        pairs = [*zip(starts, texts, strict=True)]
    elif isinstance(held, list) and all(isinstance(one, dict) for one in held):
        pairs = [(one.get("start", one.get("answer_start")), one.get("text")) for one in held]
    else:
        raise ValueError(f"{place}: answers: {expected}, got {shown(held)}")
    for start, text in pairs:
        if type(start) is not int or not isinstance(text, str):
            raise ValueError(f"{place}: answers: {expected}, got {shown(held)}")
        yield start, text


def _right(row: dict[str, Any], column: str, count: int, place: str) -> int:
    """The place of the right option, from its number or its letter."""
    held, letters = value_of(row, column, place), string.ascii_uppercase[:count]
    if isinstance(held, str) and len(held) == 1 and held.upper() in letters:
        return letters.index(held.upper())
    if type(held) is not int or not 0 <= held < count:
        raise ValueError(f"{place}: {column}: expected 0 to {count - 1}, or A to {letters[-1]}, got {shown(held)}")
    return held
