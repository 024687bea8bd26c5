"""Exponential moving averages of the weights, several decays in one pass: the tuned rival of a window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from shoestring.methods.averaging.weights import check_same, replaced, weights_in_place
from shoestring.types import Run


class Ema:
    """A hook that keeps one moving average a decay: average = decay * average + (1 - decay) * weights.

    It moves at the steps from `start` on that `every` divides, so a decay is per move, not per step. The first move
    takes the weights as they are: an average that began at zero, or at the initial weights, would be biased towards
    them. The averages are float32 (float64 for float64 weights) on the model's device: one more copy of what trains a
    decay. Under FSDP2 they are those of this process's shards. The run is never changed.
    """

    def __init__(self, decays: Sequence[float] | float, every: int = 1, start: int = 0) -> None:
        self.decays = (float(decays),) if isinstance(decays, int | float) else tuple(float(decay) for decay in decays)
        if not self.decays or len(set(self.decays)) < len(self.decays):
            raise ValueError(f"decays is {list(self.decays)}: expected at least one, each once")
        for decay in self.decays:
            if not 0 <= decay < 1:
                raise ValueError(f"decay is {decay}: expected a number from 0 to below 1, such as 0.9")
        for name, value, least in (("every", every, 1), ("start", start, 0)):
            if value < least:
                raise ValueError(f"{name} is {value}: expected a whole number of at least {least}")
        self.every, self.start = every, start
        self._averages: dict[float, dict[str, Tensor]] = {}
        self._steps: list[int] = []

    def __call__(self, run: Run) -> None:
        if self.due(run.step):
            self.take(run.model, run.step)

    def due(self, step: int) -> bool:
        """Whether the averages move after this step."""
        return step >= self.start and step % self.every == 0

    @torch.no_grad()
    def take(self, model: nn.Module, step: int) -> None:
        """Move the averages towards the model's weights, or start them there."""
        own = weights_in_place(model)
        wide = {name: tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for name, tensor in own.items()}
        for decay in self.decays:
            if decay not in self._averages:
                self._averages[decay] = {name: tensor.clone() for name, tensor in wide.items()}
                continue
            held = self._averages[decay]
            check_same(held, wide, "the average", "the model's weights")
            for name, tensor in wide.items():
                held[name] = held[name].to(tensor.device)
            torch._foreach_lerp_([held[name] for name in wide], list(wide.values()), 1 - decay)
        self._steps = [*self._steps[:1], step] if self._steps else [step]

    @property
    def steps(self) -> list[int]:
        """The first and the latest step whose weights are in the averages."""
        return list(self._steps)

    def average(self, decay: float | None = None) -> dict[str, Tensor]:
        """A copy of one decay's average, in float32 or wider; `decay` may be left out where there is one."""
        if decay is None and len(self.decays) == 1:
            decay = self.decays[0]
        if decay is None or decay not in self.decays:
            raise ValueError(f"decay is {decay}: expected one of {', '.join(map(str, self.decays))}")
        if not self._averages:
            raise ValueError(
                f"no weights are averaged yet: the first are taken at the first step from {self.start} on "
                f"that {self.every} divides"
            )
        return {name: tensor.clone() for name, tensor in self._averages[decay].items()}

    @contextmanager
    def swapped(self, model: nn.Module, decay: float | None = None) -> Iterator[None]:
        """The model with an average inside the block, and with its live weights again after it, bit for bit."""
        with replaced(model, self.average(decay)):
            yield

    def state_dict(self) -> dict[str, Any]:
        """Numbers, and the averages by the position of their decay ("0" is the first), which are not copied."""
        averages = {str(self.decays.index(decay)): dict(held) for decay, held in self._averages.items()}
        own = {"decays": list(self.decays), "every": self.every, "start": self.start}
        return own | {"steps": self.steps, "averages": averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises ValueError where it is that of other decays, another every or start."""
        for name, own in (("decays", list(self.decays)), ("every", self.every), ("start", self.start)):
            if state[name] != own:
                raise ValueError(
                    f"the saved average has {name} {state[name]} and this one {own}: "
                    f"give {name}={state[name]}, or start anew"
                )
        self._steps = list(state["steps"])
        self._averages = {
            decay: {name: tensor.clone() for name, tensor in state["averages"][str(position)].items()}
            for position, decay in enumerate(self.decays)
            if str(position) in state["averages"]
        }
