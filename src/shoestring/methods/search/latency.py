"""How long a forward pass takes here, and a space held to a limit on it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from shoestring.methods.search.inputs import Inputs, arguments, moved
from shoestring.methods.search.space import Space

A = TypeVar("A")
_WARM = 3  # passes that are not measured: memory is taken and kernels are chosen in the first ones
_PATIENCE = 200  # architectures in a row that are too slow


def latency(model: nn.Module, inputs: Inputs, repeats: int = 10) -> float:
    """Seconds of one forward pass in evaluation mode, without gradients: the median of so many, after three to warm up.

    On the device of the model's parameters, which is waited for. The mode of each module and torch's generators are as
    before; the network runs as it would when used, so that an embedding that renormalises itself does. What else the
    computer does at the same time is measured too. Raises ValueError where repeats is below one.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}: expected one or more")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    positional, named = arguments(moved(inputs, device))
    modes = [(module, module.training) for module in model.modules()]
    devices = [device.index] if device.type == "cuda" else []
    found = []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        try:
            model.eval()
            for _ in range(_WARM + repeats):
                _wait(device)
                since = time.perf_counter()
                model(*positional, **named)
                _wait(device)
                found.append(time.perf_counter() - since)
        finally:
            for module, training in modes:
                module.training = training
    return statistics.median(found[_WARM:])


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@dataclass
class Within(Generic[A]):
    """The architectures of a space whose forward pass takes at most `limit` seconds here; itself a space.

    inputs  what the pass is given: the shape of the work that the limit is meant for, on the device it is meant for
    known   seconds by text: each architecture is measured once, and is then what it was measured to be. Keep them and
            give them again, and the same seed draws the same
    Drawing and walking measure what they meet, so they are as slow as the networks. Raises ValueError where the limit
    is not positive, and in `draw` where 200 in a row are too slow, naming the fastest.
    """

    space: Space[A]
    limit: float
    inputs: Inputs
    repeats: int = 10
    known: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ValueError(f"the limit is {self.limit} seconds: expected more than none")

    @property
    def name(self) -> str:
        return self.space.name

    def seconds(self, architecture: A) -> float:
        """Of its forward pass, measured now if it was not before; the weights do not matter."""
        text = self.encode(architecture)
        if text not in self.known:
            first = self.inputs if isinstance(self.inputs, Tensor) else next(iter(self.inputs.values()))
            self.known[text] = latency(self.build(architecture, 0).to(first.device), self.inputs, self.repeats)
        return self.known[text]

    def draw(self, random: Random) -> A:
        fastest = float("inf")
        for _ in range(_PATIENCE):
            architecture = self.space.draw(random)
            fastest = min(fastest, self.seconds(architecture))
            if fastest <= self.limit:
                return architecture
        raise ValueError(
            f"{_PATIENCE} architectures in a row took more than {1000 * self.limit:g} ms, the fastest "
            f"{1000 * fastest:.3g} ms: allow more, or draw from smaller ones"
        )

    def mutate(self, architecture: A, random: Random) -> A:
        """A random neighbour that is fast enough. Raises ValueError where none is."""
        near = list(self.space.neighbours(architecture))
        random.shuffle(near)
        for other in near:
            if self.seconds(other) <= self.limit:
                return other
        text = self.encode(architecture)
        raise ValueError(f"{text}: none of its {len(near)} neighbours takes at most {1000 * self.limit:g} ms")

    def neighbours(self, architecture: A) -> Iterator[A]:
        return (other for other in self.space.neighbours(architecture) if self.seconds(other) <= self.limit)

    def encode(self, architecture: A) -> str:
        return self.space.encode(architecture)

    def decode(self, text: str) -> A:
        return self.space.decode(text)

    def build(self, architecture: A, seed: int) -> nn.Module:
        return self.space.build(architecture, seed)
