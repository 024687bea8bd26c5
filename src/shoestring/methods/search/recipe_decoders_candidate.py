"""One architecture of the experiment: what proxies say of it, and what training it came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

from shoestring.cost import Cost
from shoestring.methods.search.recipe_decoders_train import Training


class Said(NamedTuple):
    """A proxy's score of an architecture, and what saying it took."""

    value: float
    cost: Cost


class Along(NamedTuple):
    """A measurement on the way: what it took to get there at every learning rate, and the loss at the one chosen."""

    step: int
    cost: Cost
    test: float


@dataclass(frozen=True)
class Candidate:
    """An architecture with its scores by proxy and its trainings by learning rate and seed.

    Raises ValueError where no learning rate came through from all seeds.
    """

    text: str
    parameters: int
    said: Mapping[str, Said]
    trainings: Mapping[tuple[float, int], Training]

    def __post_init__(self) -> None:
        if not self._rates:
            raise ValueError(f"{self.text}: every learning rate diverged: {self.diverged[0]}: give lower ones")

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(seed for _, seed in self.trainings))

    @property
    def diverged(self) -> list[str]:
        """What was said of each training that ended early."""
        return [
            f"{self.text} at {rate:g}, seed {seed}: {training.diverged}"
            for (rate, seed), training in self.trainings.items()
            if training.diverged
        ]

    @cached_property
    def _rates(self) -> dict[float, float]:
        """The mean dev loss over the seeds of each learning rate that came through."""
        losses: dict[float, list[float]] = {}
        for (rate, _), training in self.trainings.items():
            if training.dev is not None:
                losses.setdefault(rate, []).append(training.dev)
        return {rate: fmean(found) for rate, found in losses.items() if len(found) == len(self.seeds)}

    @property
    def rate(self) -> float:
        """The learning rate of the lowest mean dev loss."""
        return min(self._rates, key=self._rates.__getitem__)

    @property
    def dev(self) -> float:
        return self._rates[self.rate]

    @property
    def test(self) -> float:
        """The mean over the seeds."""
        return fmean(self.tested(seed) for seed in self.seeds)

    def tested(self, seed: int) -> float:
        """The test loss of one seed at the end."""
        return self.trainings[self.rate, seed].test

    @property
    def cost(self) -> Cost:
        """Of finding its learning rate: one training at each of them, the mean over the seeds."""
        return mean([self._spent(seed) for seed in self.seeds])

    def along(self, seed: int) -> list[Along]:
        """The measurements of one seed. A training that ended early has cost what it cost from the first on."""
        found = []
        for place, point in enumerate(self.trainings[self.rate, seed].points):
            costs = [
                training.cost if training.diverged else Cost(**training.points[place]["cost"])
                for (_, other), training in self.trainings.items()
                if other == seed
            ]
            found.append(Along(int(point["step"]), sum(costs, Cost()), float(point["test"])))
        return found

    def _spent(self, seed: int) -> Cost:
        return sum((training.cost for (_, other), training in self.trainings.items() if other == seed), Cost())


def mean(costs: Sequence[Cost]) -> Cost:
    """Each currency's mean."""
    return Cost(**{each.name: fmean(getattr(cost, each.name) for cost in costs) for each in fields(Cost)})
