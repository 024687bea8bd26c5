"""Rows of JSON lines that are learnt from: what a column holds, texts with their class, and which are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

R = TypeVar("R")
_DEV = 10  # one in so many of train
_LEAST, _MOST = 0.03, 0.25  # of the rows, where those of one first text stay together
_LISTED = 8


@dataclass(frozen=True)
class Labelled:
    """One text or two, and their class. place: the file and line that it stands at."""

    place: str = field(compare=False)
    texts: tuple[str, ...]
    label: str


def labelled(row: dict[str, Any], columns: Sequence[str], label: str, place: str) -> Labelled:
    """The row of one text or two. Raises ValueError, naming its place, where a column is missing or empty."""
    texts = tuple(text_of(row, column, place) for column in columns)
    return Labelled(place, texts, text_of(row, label, place, number=True))


def classes(rows: Iterable[Labelled]) -> tuple[str, ...]:
    """The classes of rows in order, numbers by their value."""
    found = {row.label for row in rows}
    numbers = all(label.isdecimal() for label in found)
    return tuple(sorted(found, key=lambda label: (int(label), label) if numbers else (0, label)))


def held_out(first: str) -> bool:
    """Whether a row of train is of dev, by a hash of its first text: rows of one premise or context stay together."""
    return int.from_bytes(_digest(first)[:8]) % _DEV == 0


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def parted(
    rows: Sequence[R], texts: Callable[[R], Sequence[str]], label: Callable[[R], str]
) -> tuple[list[R], list[R], bool]:
    """Train and dev, and whether all rows of one first text are on one side.

    texts, label  give all texts of a row, and its class
    By `held_out`, but for first texts whose classes train would lack: these are learnt. Where that makes dev none or
    much more or less than a tenth, first texts are taken in the order of their hashes until there is a tenth. Where
    that does not help either, as with few first texts, the rows of each class are cut by a hash of all their texts: of
    every class with two or more, a tenth of them, at least one. Raises ValueError where no class has two.
    """
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(texts(row)[0], []).append(place)
    firsts = sorted(groups, key=_digest)
    for chosen in ([first for first in firsts if held_out(first)], _tenth(firsts, groups, len(rows))):
        out = _covered(chosen, groups, [label(row) for row in rows])
        if _LEAST * len(rows) <= len(out) <= _MOST * len(rows):
            return *_sides(rows, out), True
    classed: dict[str, list[int]] = {}
    for place in sorted(range(len(rows)), key=lambda place: _digest("\0".join(texts(rows[place])))):
        classed.setdefault(label(rows[place]), []).append(place)
    out = {place for places in classed.values() for place in places[: -(-len(places) // _DEV)] if len(places) > 1}
    if not out:
        raise ValueError(f"{len(rows)} rows, none of a class that another has, too: expected more, or --dev")
    return *_sides(rows, out), False


def _tenth(firsts: Sequence[str], groups: Mapping[str, Sequence[int]], rows: int) -> list[str]:
    """First texts, in order, as many as have no more than a tenth of the rows together."""
    left, chosen = max(1, rows // _DEV), []
    for first in firsts:
        if len(groups[first]) <= left:
            chosen.append(first)
            left -= len(groups[first])
    return chosen


def _covered(chosen: Sequence[str], groups: Mapping[str, Sequence[int]], labels: Sequence[str]) -> set[int]:
    """The places of the rows of the first texts chosen, but for those with a class that no other rows have."""
    out = {place for first in chosen for place in groups[first]}
    learnt = {label for place, label in enumerate(labels) if place not in out}
    kept = [first for first in chosen if {labels[place] for place in groups[first]} <= learnt]
    return {place for first in kept for place in groups[first]}


def _sides(rows: Sequence[R], out: set[int]) -> tuple[list[R], list[R]]:
    return [row for place, row in enumerate(rows) if place not in out], [rows[place] for place in sorted(out)]


def text_of(row: dict[str, Any], column: str, place: str, number: bool = False) -> str:
    """What a column holds; number: or a whole one. Raises ValueError where it holds no words, or there is none such."""
    held = value_of(row, column, place)
    if not isinstance(held, str | int if number else str):
        kinds = "text or a whole number" if number else "text"
        raise ValueError(f"{place}: {column}: expected {kinds}, got {shown(held)}")
    if not str(held).strip():
        raise ValueError(f"{place}: {column}: empty: leave such rows out")
    return str(held)


def value_of(row: dict[str, Any], column: str, place: str) -> Any:
    if column not in row:
        there = ", ".join(map(repr, row)) or "nothing"
        raise ValueError(f"{place}: no {column!r}; it has {there}: name the right one (--columns, --label)")
    return row[column]


def listed(labels: Sequence[str]) -> str:
    """Classes in the words of an error: the first of many."""
    told = ", ".join(map(repr, labels[:_LISTED]))
    return told if len(labels) <= _LISTED else f"{told} and {len(labels) - _LISTED:,} more"


def shown(held: object) -> str:
    """A value in the words of an error."""
    told = repr(held)
    return told if len(told) <= 60 else f"{told[:57]}..."
