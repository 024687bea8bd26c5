"""FLOPs of shapes that were not counted, from those that were: a step's are a polynomial of its batch's sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_AGREED = 3  # counts that were foretold before any is relied on
_CLOSE = 1e-9  # relative


class Sizes(NamedTuple):
    """Of a batch: its rows, the tokens of each, those of a decoder beside an encoder, the positions that are scored."""

    rows: int
    length: int
    target: int
    scored: int

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> Sizes | None:
        """None of a batch whose ids, or whose labels where it has some, are no matrix of as many rows."""
        ids, labels, scored = batch.get("input_ids"), batch.get("labels"), batch.get("scored")
        if ids is None or ids.dim() != 2 or (labels is not None and (labels.dim() != 2 or len(labels) != len(ids))):
            return None
        rows, length = ids.shape
        return cls(rows, length, 0 if labels is None else labels.shape[1], 0 if scored is None else len(scored))

    def terms(self) -> NDArray[np.float64]:
        """What products are made of: some of positions alone, most of each token, attention's of pairs of tokens."""
        rows, length, target, scored = self
        of_row = (1, length, length**2, target, target**2, length * target)
        return np.array([1, length, target, *(rows * term for term in of_row), scored], dtype=np.float64)


class Foretold:
    """Learns from each count, and foretells the next: relied on after it was right three times, not after it was wrong.

    A transformer's products on a batch are sums of a few terms, each a number of its own times rows, tokens or pairs
    of tokens. What the numbers are need not be known: where a batch's terms are a combination of those of batches that
    were counted, its FLOPs are the same combination of theirs. A batch that is larger or smaller than all that were
    counted is to be counted too: there a model may compute in another way (attention by blocks, say, is padded to one).
    """

    def __init__(self) -> None:
        self._sizes: list[Sizes] = []
        self._counts: list[int] = []
        self._agreed, self._wrong = 0, False

    def learn(self, sizes: Sizes, count: int) -> None:
        if self._wrong:
            return
        expected = self._combined(sizes)
        if expected is not None:
            right = abs(expected - count) <= _CLOSE * count
            self._agreed += right
            self._wrong |= not right
        self._sizes.append(sizes)
        self._counts.append(count)

    def __call__(self, sizes: Sizes) -> int | None:
        """The FLOPs of a batch of these sizes, or None where they are to be counted."""
        if self._wrong or self._agreed < _AGREED or not self._within(sizes):
            return None
        found = self._combined(sizes)
        return None if found is None else round(found)

    def _within(self, sizes: Sizes) -> bool:
        """Whether each size is between some that were counted."""
        known = zip(*self._sizes, strict=True)
        return all(min(some) <= size <= max(some) for size, some in zip(sizes, known, strict=True))

    def _combined(self, sizes: Sizes) -> float | None:
        """The counts' combination that fits the sizes; None where none does."""
        if not self._sizes:
            return None
        wanted = sizes.terms()
        known = np.stack([one.terms() for one in self._sizes], axis=1)
        scale = np.maximum(wanted, known.max(axis=1))
        scale[scale == 0] = 1
        weights, *_ = np.linalg.lstsq(known / scale[:, None], wanted / scale, rcond=1e-12)
        fits = np.abs(known / scale[:, None] @ weights - wanted / scale).max() <= _CLOSE
        return float(np.dot(weights, np.array(self._counts, dtype=np.float64))) if fits else None
