"""What a student computes at once: as many rows and options as memory has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

_TOKENS = 16384  # read at once, padding included
_LOGITS = 1 << 26  # at once: 256 MiB in fp32, of which a few copies are made

Ids = Sequence[int]


class Size(NamedTuple):
    """Of a row: the tokens of its source, how many options it has, and the tokens of the longest of them."""

    source: int
    options: int = 1
    target: int = 1


def scored(
    sources: Sequence[Ids],
    options: Sequence[Sequence[Ids]],
    vocabulary: int,
    score: Callable[[list[Ids], list[Sequence[Ids]]], list[list[float]]],
) -> list[list[float]]:
    """What `score` finds for each option of each source, called with some sources at a time and as many options each.

    A source goes in once, save where the logits of its options would be too many to hold.
    """
    found = [[float("nan")] * len(some) for some in options]
    parts = [(row, part) for row, some in enumerate(options) for part in _parts(some, vocabulary)]
    chosen = [options[row][part] for row, part in parts]
    sizes = [Size(len(sources[row]), len(some), _longest(some)) for (row, _), some in zip(parts, chosen, strict=True)]
    for places in batches(sizes, vocabulary):
        lines = score([sources[parts[place][0]] for place in places], [chosen[place] for place in places])
        for place, line in zip(places, lines, strict=True):
            row, part = parts[place]
            found[row][part] = line
    return found


def batches(sizes: Sequence[Size], vocabulary: int = 1) -> Iterator[list[int]]:
    """Rows in batches of at most so many tokens and logits, longest first; those of one batch have as many options."""
    order = sorted(range(len(sizes)), key=lambda row: (sizes[row].options, -sizes[row].source, row))
    for options, alike in groupby(order, key=lambda row: sizes[row].options):
        rows: list[int] = []
        longest = 0  # target of the batch
        for row in alike:
            longest = max(longest, sizes[row].target)
            count = (len(rows) + 1) * options
            if rows and (count * sizes[rows[0]].source > _TOKENS or count * longest * vocabulary > _LOGITS):
                yield rows
                rows, longest = [], sizes[row].target
            rows.append(row)
        yield rows


def _parts(options: Sequence[Ids], vocabulary: int) -> Iterator[slice]:
    """The options of one row, in parts whose logits can be held."""
    most = max(1, _LOGITS // max(1, _longest(options) * vocabulary))
    return (slice(first, first + most) for first in range(0, len(options), most))


def _longest(options: Sequence[Ids]) -> int:
    return max(map(len, options), default=0)
