"""The latest weights of a run, kept in host memory while it goes on, and their average whenever it is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from shoestring.methods.averaging.average import average
from shoestring.methods.averaging.weights import check_same, replaced, weights_in_place
from shoestring.methods.averaging.window import suspicious
from shoestring.types import Run


class Latest:
    """A hook that keeps copies of the latest `count` weights, taken at the steps from `start` on that `every` divides.

    The copies are what `weights_in_place` names, in the model's own precision, in host memory: `count` times the size
    of what trains. Their memory is claimed as the first `count` arrive and then written over, the oldest first. Under
    FSDP2 each process keeps its own shards, so that neither keeping nor averaging needs communication; `average` then
    gives the shards of this process. The run is never changed. Without a run, call `take` with the model and the step.

    Sanyal et al. 2023 (LAWA): a moving window, as the text has it; its code averages disjoint blocks.
    """

    def __init__(self, count: int, every: int = 1, start: int = 0) -> None:
        for name, value, least in (("count", count, 1), ("every", every, 1), ("start", start, 0)):
            if value < least:
                raise ValueError(f"{name} is {value}: expected a whole number of at least {least}")
        self.count, self.every, self.start = count, every, start
        self._snapshots: list[dict[str, Tensor]] = []
        self._steps: list[int] = []

    @classmethod
    def of(cls, state: dict[str, Any]) -> Latest:
        """The window that a saved state is of."""
        made = cls(state["count"], state["every"], state["start"])
        made.load_state_dict(state)
        return made

    def __call__(self, run: Run) -> None:
        if self.due(run.step):
            self.take(run.model, run.step)

    def due(self, step: int) -> bool:
        """Whether a copy is taken after this step."""
        return step >= self.start and step % self.every == 0

    @torch.no_grad()
    def take(self, model: nn.Module, step: int) -> None:
        """Copy the model's weights, in place of the oldest copy where `count` are held.

        Raises ValueError where the model is not the one that the copies held are of.
        """
        own = weights_in_place(model)
        if self._snapshots:
            check_same(self._snapshots[-1], own, "the window", "the model's weights")
        if self.full:
            self._steps.pop(0)
            buffers = self._snapshots.pop(0)
        else:
            buffers = {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in own.items()}
        for name, tensor in own.items():
            buffers[name].copy_(tensor)
        self._snapshots.append(buffers)
        self._steps.append(step)

    @property
    def steps(self) -> list[int]:
        """The steps whose weights are held, oldest first."""
        return list(self._steps)

    @property
    def full(self) -> bool:
        """Whether `count` copies are held."""
        return len(self._snapshots) == self.count

    def average(self, weights: Sequence[float] | None = None, steps: Sequence[int] | None = None) -> dict[str, Tensor]:
        """The mean of the copies held, in host memory.

        weights  oldest first, one a copy; alike where None
        steps    whose copies are averaged, oldest first; all that are held where None
        Raises ValueError where none is held, or not one of those named.
        """
        if not self._snapshots:
            raise ValueError(
                f"no weights are held yet: the first are taken at the first step from {self.start} on "
                f"that {self.every} divides"
            )
        if steps is None:
            return average(self._snapshots, weights)
        held = dict(zip(self._steps, self._snapshots, strict=True))
        absent = [step for step in steps if step not in held]
        if absent:
            raise ValueError(f"the weights of step {absent[0]} are not held: expected steps among {self._steps}")
        return average([held[step] for step in steps], weights)

    @contextmanager
    def swapped(
        self, model: nn.Module, weights: Sequence[float] | None = None, steps: Sequence[int] | None = None
    ) -> Iterator[None]:
        """The model with the average inside the block, and with its live weights again after it, bit for bit."""
        with replaced(model, self.average(weights, steps)):
            yield

    def suspicious(self) -> list[str]:
        """What speaks against averaging the copies held, one sentence each: see `suspicious`."""
        return suspicious(self._snapshots, self._steps)

    def clear(self) -> None:
        """Forget all copies, as before the first step."""
        self._snapshots.clear()
        self._steps.clear()

    def state_dict(self) -> dict[str, Any]:
        """Whole numbers, and the copies by age ("0" is the oldest), which are not copied again."""
        snapshots = {str(age): dict(snapshot) for age, snapshot in enumerate(self._snapshots)}
        own = {"count": self.count, "every": self.every, "start": self.start}
        return own | {"steps": self.steps, "snapshots": snapshots}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises ValueError where it is that of another count, every or start, or is torn."""
        for name, own in (("count", self.count), ("every", self.every), ("start", self.start)):
            if state[name] != own:
                raise ValueError(
                    f"the saved window has {name} {state[name]} and this one {own}: "
                    f"give {name}={state[name]}, or start anew"
                )
        steps, snapshots = list(state["steps"]), state["snapshots"]
        if sorted(snapshots) != sorted(str(age) for age in range(len(steps))) or len(steps) > self.count:
            raise ValueError(
                f"the saved window has {len(snapshots)} copies for the steps {steps}: it is torn, start anew"
            )
        self._steps = steps
        self._snapshots = [
            {name: tensor.to("cpu", copy=True) for name, tensor in snapshots[str(age)].items()}
            for age in range(len(steps))
        ]
