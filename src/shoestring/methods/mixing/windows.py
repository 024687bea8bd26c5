"""Windows of packed text, to be drawn from by place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from shoestring.data.batches import NOT_SCORED
from shoestring.data.splits import Split
from shoestring.data.tokens import Tokens
from shoestring.types import Batch

_STRETCH = 4  # windows that are held out together: of every ten such stretches one for dev and one for test


def least(length: int, part: Split | None) -> int:
    """Tokens of which a window of the part is made."""
    before = {None: 0, "train": 0, "dev": 8 * _STRETCH, "test": 9 * _STRETCH}[part]
    return (before + 1) * length


class Windows:
    """Windows of one length, side by side: `{"input_ids": (length,) int64}`.

    length   tokens a window; what is left at the end is dropped
    part     "train", "dev" or "test" of the text cut by stretches of windows; all of it where None
    `fingerprint` tells them from any others.
    Raises ValueError where the tokens do not fill one window.
    """

    def __init__(self, tokens: Tokens, length: int, part: Split | None = None) -> None:
        rows = np.asarray(tokens.ids)[: len(tokens) // length * length].reshape(-1, length)
        if part is not None:
            tenth = np.arange(len(rows)) // _STRETCH % 10
            rows = rows[{"train": tenth < 8, "dev": tenth == 8, "test": tenth == 9}[part]]
        if not len(rows):
            told = "a window" if part is None else f"windows for {part}"
            wanted = f"it takes {least(length, part):,}"
            raise ValueError(f"{tokens.folder}: {len(tokens)} tokens do not fill {told} of {length}: {wanted}")
        self._rows = rows
        self.fingerprint = f"{tokens.fingerprint} {part or 'all'} {length}"

    def batches(self, count: int, rows: int) -> list[Batch]:
        """At most `count` windows spread over all, `rows` at a time, each token but a window's first a target."""
        chosen = self._rows[np.arange(min(count, len(self))) * len(self) // min(count, len(self))]
        ids = torch.from_numpy(chosen.astype(np.int64))
        labels = ids.clone()
        labels[:, 0] = NOT_SCORED
        return [
            {"input_ids": some, "labels": scored}
            for some, scored in zip(torch.split(ids, rows), torch.split(labels, rows), strict=True)
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {"input_ids": torch.from_numpy(self._rows[place].astype(np.int64))}

    def __getitems__(self, places: Sequence[int]) -> list[dict[str, Tensor]]:
        return [{"input_ids": row} for row in torch.from_numpy(self._rows[list(places)].astype(np.int64))]
