"""A batch in parts, for steps that are too large for the memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from shoestring.types import Batch, Batches


class MicroBatches:
    """Each batch of a stream in so many parts, the same rows in the same part each time, as a carried memory needs.

    both  whether a batch's second half is read from right to left: then so is the second half of each part
    What is saved is the place of the stream, so it is to be saved after the last part of a batch, as after a step.
    """

    def __init__(self, batches: Batches, parts: int, both: bool) -> None:
        self.batches, self.parts, self.both = batches, parts, both

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            halves = 2 if self.both else 1
            cut = {name: tensor.reshape(halves, self.parts, -1, *tensor.shape[1:]) for name, tensor in batch.items()}
            for part in range(self.parts):
                yield {name: torch.flatten(tensor[:, part], 0, 1) for name, tensor in cut.items()}

    def state_dict(self) -> dict[str, Any]:
        return self.batches.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches.load_state_dict(state)
