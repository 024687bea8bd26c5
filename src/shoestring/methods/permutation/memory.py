"""The states that the next batch may look back on, carried from one step to the next."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Sizes(Protocol):
    """What of an XLNet's configuration the memory's shape hangs on."""

    n_layer: int
    d_model: int
    mem_len: int | None
    reuse_len: int | None


class Memory:
    """Of each micro-batch of a step, the states that its layers read, without gradients; a hook, to be saved with runs.

    parts  micro-batches a step
    It is as long as `mem_len` of the configuration from the first batch on: what no batch has filled yet is zero, and
    the batch's `context` says that it is not to be seen. A step of several micro-batches has a memory for each of them,
    so that their rows stay the same streams. A checkpoint keeps it among the hooks.
    """

    def __init__(self, config: Sizes, parts: int = 1) -> None:
        self.layers, self.width, self.length = config.n_layer, config.d_model, config.mem_len or 0
        self.reuse, self.parts = config.reuse_len or None, parts
        self.slots: list[list[Tensor]] = []
        self.turn = 0

    def __call__(self, run: object) -> None:
        """A step is over: the next micro-batch is the first again."""
        self.turn = 0

    def before(self, inputs: Tensor) -> list[Tensor]:
        """Of each layer (M, B, width), what a batch of (B, S) looks back on."""
        if self.turn < len(self.slots):
            rows = self.slots[self.turn][0].shape[1]
            if rows != len(inputs):
                raise ValueError(
                    f"the memory is of {rows} rows and the batch has {len(inputs)}: go on with as many rows, processes "
                    "and micro-batches, or begin with a new memory"
                )
            return [layer.to(inputs.device) for layer in self.slots[self.turn]]
        shape = (self.length, len(inputs), self.width)
        return [torch.zeros(shape, device=inputs.device) for _ in range(self.layers)]

    def keep(self, states: list[Tensor]) -> None:
        """Put what a batch leaves in the place of what it looked back on."""
        self.slots[self.turn : self.turn + 1] = [states]
        self.turn = (self.turn + 1) % self.parts

    def state_dict(self) -> dict[str, Any]:
        return {"slots": [list(slot) for slot in self.slots]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.slots, self.turn = [list(slot) for slot in state["slots"]], 0
