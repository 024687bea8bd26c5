"""Rows on their way through the graphs of an exported student, in numpy: read once, then scored or written on.

R rows, S source tokens, T target tokens, V vocabulary
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Course(ABC):
    """Rows on their way through a graph: what was read of them, and what was written so far."""

    def __init__(self, session: Any, mask: NDArray[np.int64]) -> None:
        self.session, self.mask = session, mask
        shapes = [one.shape for one in session.get_inputs() if one.name.startswith("past_")]
        self.past: list[Any] = [np.zeros((len(mask), heads, 0, size), np.float32) for _, heads, _, size in shapes]

    def repeated(self, each: int) -> Course:
        """Each row so many times."""
        self.mask = self.mask.repeat(each, axis=0)
        self.past = [one.repeat(each, axis=0) for one in self.past]
        return self

    @abstractmethod
    def logits(self, targets: NDArray[np.int64]) -> NDArray[np.float32]:
        """(R, T, V): of each token of the targets (R, T), those before it given."""

    @abstractmethod
    def step(self, before: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """(R, 1, V): logits of the next token, after those (R,) that were written last; of none at first."""

    def next(self, before: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """(R,): the likeliest tokens after those."""
        found: NDArray[np.int64] = self.step(before)[:, -1].argmax(axis=-1)
        return found


class _After(Course):
    """An encoder-decoder's: it writes after a token that begins, and looks at what was read."""

    def __init__(self, session: Any, mask: NDArray[np.int64], begin: int, read: Sequence[Any]) -> None:
        super().__init__(session, mask)
        self.begin, self.read = begin, [*read]

    def repeated(self, each: int) -> Course:
        self.read = [one.repeat(each, axis=0) for one in self.read]
        return super().repeated(each)

    def logits(self, targets: NDArray[np.int64]) -> NDArray[np.float32]:
        begin = np.full((len(targets), 1), self.begin, dtype=np.int64)
        return self._run(np.concatenate([begin, targets[:, :-1]], axis=1))

    def step(self, before: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        begin = np.full(len(self.mask), self.begin, dtype=np.int64)
        return self._run((begin if before is None else before)[:, None])

    def _run(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        fed = {"decoder_input_ids": ids, "attention_mask": self.mask}
        for name, held in (("past", self.past), ("cross", self.read)):
            fed |= {f"{name}_{place}": one for place, one in enumerate(held)}
        found: list[Any] = self.session.run(None, fed)
        self.past = found[1:]
        logits: NDArray[np.float32] = found[0]
        return logits


class _On(Course):
    """A decoder's: it goes on after what was read, the last of whose logits are of the first token written."""

    def __init__(self, session: Any, mask: NDArray[np.int64], ids: NDArray[np.int64]) -> None:
        super().__init__(session, mask[:, :0])
        self.place = np.zeros((len(mask), 1), dtype=np.int64)
        self.first: NDArray[np.float32] = self._run(ids, mask, np.array([ids.shape[1] - 1]))

    def repeated(self, each: int) -> Course:
        self.first, self.place = self.first.repeat(each, axis=0), self.place.repeat(each, axis=0)
        return super().repeated(each)

    def logits(self, targets: NDArray[np.int64]) -> NDArray[np.float32]:
        if targets.shape[1] == 1:
            return self.first
        ids = targets[:, :-1]
        going = self._run(ids, np.ones_like(ids), np.arange(ids.shape[1]))
        return np.concatenate([self.first, going], axis=1)

    def step(self, before: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        if before is not None:
            ids = before[:, None]
            self.first = self._run(ids, np.ones_like(ids), np.array([0]))
        return self.first

    def _run(self, ids: NDArray[np.int64], mask: NDArray[np.int64], keep: NDArray[np.int64]) -> NDArray[np.float32]:
        places = self.place + mask.cumsum(axis=1) - 1
        self.mask, self.place = np.concatenate([self.mask, mask], axis=1), places[:, -1:] + 1
        fed = {"input_ids": ids, "attention_mask": self.mask, "position_ids": places.clip(min=0), "keep": keep}
        fed |= {f"past_{place}": one for place, one in enumerate(self.past)}
        found: list[Any] = self.session.run(None, fed)
        self.past = found[1:]
        logits: NDArray[np.float32] = found[0]
        return logits


def begun(sessions: Sequence[Any], sources: Sequence[Sequence[int]], filling: int, begin: int) -> Course:
    """Sources, read: by an encoder and to be written on by a decoder, where there are two; else by the one.

    filling  what fills short ones up; begin, the id that targets are written after, where there are two
    An encoder's begin together, as in training: BART's, say, takes each column for a position, whatever the mask.
    A decoder's end together, as what is written goes on from the last column.
    """
    width = max(map(len, sources))
    ids = np.full((len(sources), width), filling, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, source in enumerate(sources):
        first = width - len(source) if len(sessions) == 1 else 0
        ids[row, first : first + len(source)] = source
        mask[row, first : first + len(source)] = 1
    if len(sessions) == 1:
        return _On(sessions[0], mask, ids)
    return _After(sessions[1], mask, begin, sessions[0].run(None, {"input_ids": ids, "attention_mask": mask}))


def log_likelihoods(
    logits: NDArray[np.float32], targets: NDArray[np.int64], written: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(R,): of each row's targets (R, T), as far as `written` is 1, by logits (R, T, V), in nats."""
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(exact, targets[..., None], axis=-1)[..., 0] - np.log(np.exp(exact).sum(axis=-1))
    summed: NDArray[np.float64] = (chosen * written).sum(axis=1)
    return summed


def padded(rows: Sequence[Sequence[int]], filling: int) -> NDArray[np.int64]:
    """Rows (R, longest), filled up on the right."""
    found = np.full((len(rows), max(map(len, rows))), filling, dtype=np.int64)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found
