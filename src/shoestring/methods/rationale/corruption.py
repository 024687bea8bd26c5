"""Span corruption, by which an encoder-decoder learns from plain text: spans are cut out, and written by it.

L tokens a window
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shoestring.types import Batch, Batches

MARKS = 32  # at most so many spans a window
DENSITY, SPAN = 0.15, 3.0


def marks() -> list[str]:
    """The tokens that stand for spans, by T5's names."""
    return [f"<extra_id_{place}>" for place in range(MARKS)]


class Corrupted:
    """An endless stream of windows with spans cut out, for an encoder-decoder.

    windows  a stream of `input_ids` (B, L)
    marks    ids of the tokens that stand for spans; end, of the one that ends a text
    What is cut out hangs on the seed and on how many batches were drawn, so that a resumed stream is the same. All
    windows have as many spans of as many tokens in all. Raffel et al. 2020 (T5), section 3.1.4: 15 % of the tokens, in
    spans of three in the mean.
    """

    def __init__(self, windows: Batches, marks: Sequence[int], end: int, seed: int) -> None:
        self._windows, self._marks, self._end, self._seed = windows, list(marks), end, seed
        self._drawn = 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._windows:
            random = np.random.Generator(np.random.Philox(key=np.array([self._seed, self._drawn], dtype=np.uint64)))
            self._drawn += 1
            pairs = [corrupted(row, self._marks, self._end, random) for row in batch["input_ids"].numpy()]
            inputs, labels = (torch.from_numpy(np.stack(rows)) for rows in zip(*pairs, strict=True))
            yield {"input_ids": inputs, "attention_mask": torch.ones_like(inputs), "labels": labels}

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self._drawn, "windows": self._windows.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._drawn = int(state["drawn"])
        self._windows.load_state_dict(state["windows"])


def corrupted(
    ids: NDArray[np.int64], marks: Sequence[int], end: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What is left of a window, with a mark for each span, and the spans, each after its mark; both end with `end`.

    Raises ValueError where the window is too short for a span, or has more spans than there are marks.
    """
    noise = round(len(ids) * DENSITY)
    spans = max(1, round(noise / SPAN))
    if noise < 1 or spans > len(marks) or spans > len(ids) - noise:
        raise ValueError(f"a window of {len(ids)} tokens does not hold {spans} spans with {len(marks)} marks for them")
    left, cut = _parts(len(ids) - noise, spans, random), _parts(noise, spans, random)
    source, target, place = [], [], 0
    for mark, kept, taken in zip(marks, left, cut, strict=False):
        source += [*ids[place : place + kept], mark]
        target += [mark, *ids[place + kept : place + kept + taken]]
        place += kept + taken
    return np.asarray([*source, end], dtype=np.int64), np.asarray([*target, end], dtype=np.int64)


def _parts(whole: int, count: int, random: np.random.Generator) -> list[int]:
    """`count` parts of one or more that make `whole`, every such cut alike likely."""
    cuts = np.sort(random.choice(np.arange(1, whole), count - 1, replace=False)) if count > 1 else np.array([], int)
    return [int(size) for size in np.diff([0, *cuts, whole])]
