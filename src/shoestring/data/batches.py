"""Batches of packed tokens: an endless shuffled stream to train on, and one pass in order to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shoestring.data.tokens import Tokens
from shoestring.types import Batch

NOT_SCORED = -100  # the label that torch's cross-entropy and Hugging Face models leave out


class TokenBatches:
    """An endless stream of `{"input_ids": (batch, length) int64}` windows that knows where it is.

    batch_size   windows a step over all processes; each process gets its batch_size / world, in the order of ranks
    length       tokens a window
    rank, world  which process this is, of how many

    An epoch's windows do not overlap; it has its own order and its own start within the first `length` tokens, both
    from (seed, epoch) alone, so that the borders move and nothing but a count need be saved. Raises ValueError where
    the tokens do not fill one batch, or the batch does not divide among the processes.
    """

    def __init__(self, tokens: Tokens, batch_size: int, length: int, seed: int, rank: int = 0, world: int = 1) -> None:
        _positive(batch_size=batch_size, length=length, world=world)
        if batch_size % world:
            raise ValueError(f"a batch of {batch_size} does not divide among {world} processes: choose a multiple")
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world} processes: expected 0 to {world - 1}")
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed {seed}: expected a number from 0 to 2**64 - 1")
        self._windows = (len(tokens) - length + 1) // length  # what fits from any start below `length`
        if self._windows < batch_size:
            needed = batch_size * length + length - 1
            raise ValueError(
                f"{tokens.folder}: {len(tokens)} tokens do not fill a batch of {batch_size} windows of {length}, which "
                f"takes {needed}: give more text, or a smaller batch or length"
            )
        self._every = _every_window(tokens, length)
        self._identity = {
            "fingerprint": tokens.fingerprint,
            "batch_size": batch_size,
            "length": length,
            "seed": seed,
        }
        self._batch_size, self._length, self._seed = batch_size, length, seed
        self._rank, self._world = rank, world
        self._drawn = 0
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def __iter__(self) -> Iterator[Batch]:
        while True:
            starts = self._starts()
            self._drawn += 1
            yield {"input_ids": _gather(self._every, starts)}

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self._drawn, **self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another stream stopped, under any number of processes; ValueError where it was another stream."""
        for key, mine in self._identity.items():
            if state.get(key) != mine:
                raise ValueError(
                    f"the saved batches have {key} {state.get(key)!r}, these {mine!r}: resume with the same"
                )
        if type(state.get("drawn")) is not int or state["drawn"] < 0:
            raise ValueError(f"the saved batches have drawn {state.get('drawn')!r}: expected a count")
        self._drawn = state["drawn"]
        self._epochs = {}

    def _starts(self) -> NDArray[np.int64]:
        """Where this process's windows of the next batch start; a batch may end one epoch and begin the next."""
        own = self._batch_size // self._world
        first = self._drawn * self._batch_size + self._rank * own
        epochs, places = np.divmod(np.arange(first, first + own), self._windows)
        latest = int(epochs[-1])
        self._epochs = {epoch: order for epoch, order in self._epochs.items() if epoch >= int(epochs[0])}
        starts = np.empty(own, dtype=np.int64)
        for epoch in range(int(epochs[0]), latest + 1):
            if epoch not in self._epochs:
                self._epochs[epoch] = epoch_starts(self._windows, self._length, self._seed, epoch)
            here = epochs == epoch
            starts[here] = self._epochs[epoch][places[here]]
        return starts


def epoch_starts(windows: int, length: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """(windows,): where the windows of an epoch start, in the order in which they are drawn.

    Sorts raw Philox numbers: numpy keeps those the same in every version, which it does not promise of `permutation`.
    """
    raw = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(windows + 1)
    start = int(raw[0] % np.uint64(length))
    return start + length * np.argsort(raw[1:], kind="stable")


def windows(tokens: Tokens, length: int, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
    """One pass in order: without a limit every token but the first is a target exactly once.

    length  tokens a window; each starts with the last token of the one before, which it is not scored on again
    limit   at most so many targets: whole windows, spread evenly over the text; from its start if not one fits
    Yields `{"input_ids", "labels"}`, each (batch, length) int64. Labels are not shifted, as Hugging Face models want
    them, and -100 where nothing is scored: the first column, and what fills up the last window. The filling stands at
    the right, where a causal model does not look. Raises ValueError where there are fewer than two tokens.
    """
    _positive(batch_size=batch_size, limit=1 if limit is None else limit)
    if length < 2 or len(tokens) < 2:
        raise ValueError(f"windows of {length} over {len(tokens)} tokens hold no target: expected two or more of each")
    step, targets = length - 1, len(tokens) - 1
    there = targets // step
    chosen = np.arange(there)
    if limit is not None and limit < targets:
        chosen = np.arange(limit // step) * there // max(1, limit // step)
    for first in range(0, len(chosen), batch_size):
        input_ids = _gather(_every_window(tokens, length), step * chosen[first : first + batch_size])
        yield {"input_ids": input_ids, "labels": _labels(input_ids, step)}
    rest = targets - there * step if limit is None or limit >= targets else limit * (limit < step)
    if rest:
        start = there * step if limit is None or limit >= targets else 0
        input_ids = torch.zeros(1, length, dtype=torch.int64)
        input_ids[0, : rest + 1] = torch.from_numpy(tokens.ids[start : start + rest + 1].astype(np.int64))
        yield {"input_ids": input_ids, "labels": _labels(input_ids, rest)}


def _labels(input_ids: Tensor, scored: int) -> Tensor:
    labels = input_ids.clone()
    labels[:, 0] = NOT_SCORED
    labels[:, scored + 1 :] = NOT_SCORED
    return labels


def _every_window(tokens: Tokens, length: int) -> NDArray[np.unsignedinteger[Any]]:
    """(positions, length): a view of the window at each position, nothing copied."""
    return np.lib.stride_tricks.sliding_window_view(np.asarray(tokens.ids), length)


def _gather(every: NDArray[np.unsignedinteger[Any]], starts: NDArray[np.int64]) -> Tensor:
    """(len(starts), length) int64: the windows that start there."""
    return torch.from_numpy(every[starts].astype(np.int64))


def _positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} is {value}: expected one or more")
