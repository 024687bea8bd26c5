"""Orders of data by difficulty, the plain baselines: curricula over samples and over skills."""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import default_collate

from shoestring.methods.mixing.rounds import Weighed, same
from shoestring.types import Batch, Run

Schedule = list[tuple[int, dict[str, float]]]


def skill_curriculum(
    losses: Mapping[str, float],
    steps: int,
    mixing: float = 0.4,
) -> Schedule:
    """When to draw which skill: one after the other with some of those before, then all together.

    losses   by skill, of the model before training
    steps    of the whole run, shared as the released code shares samples: a skill's own, `mixing` times that of each
             skill before it, and at the end all once more
    Returns (step, weights from it on). Raises ValueError where a loss is none.
    Varshney et al. 2022 (arXiv 2205.09898), as Chen et al. 2023 use it.
    """
    if not losses or not all(map(math.isfinite, losses.values())) or not 0 <= mixing < math.inf:
        raise ValueError(f"losses {dict(losses)}, mixing={mixing}: expected finite losses, and a share of 0 or more")
    order = sorted(losses, key=lambda name: losses[name])
    phases = [{name: 1.0, **dict.fromkeys(order[:place], mixing)} for place, name in enumerate(order)]
    phases.append(dict.fromkeys(order, 1.0))
    whole = sum(sum(phase.values()) for phase in phases)
    schedule: Schedule = []
    done = 0.0
    for phase in phases:
        amount = sum(phase.values())
        schedule.append((round(steps * done / whole), {name: phase.get(name, 0.0) / amount for name in losses}))
        done += amount
    return schedule


class Scheduled:
    """A hook that sets a mixture's weights at given steps; `begin(run)` sets the first."""

    def __init__(self, mixture: Weighed, schedule: Schedule) -> None:
        if not schedule or schedule[0][0] != 0 or sorted(schedule, key=lambda entry: entry[0]) != schedule:
            raise ValueError(f"a schedule of steps {[step for step, _ in schedule]}: expected rising steps, from 0 on")
        self.mixture, self.schedule = mixture, schedule
        self.history: Schedule = []

    def begin(self, run: Run) -> None:
        """Set the weights of the first step; it does nothing on a run that went on from a checkpoint."""
        if not self.history:
            self._set(run.step)

    def __call__(self, run: Run) -> None:
        if any(step == run.step for step, _ in self.schedule):
            self._set(run.step)

    def state_dict(self) -> dict[str, Any]:
        return {"history": [[step, weights] for step, weights in self.history], "identity": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another stopped. Raises ValueError where that kept another schedule."""
        same("schedule", state.get("identity", {}), self._identity())
        self.history = [(step, dict(weights)) for step, weights in state["history"]]

    def _identity(self) -> dict[str, Any]:
        return {"schedule": [[step, weights] for step, weights in self.schedule]}

    def _set(self, step: int) -> None:
        place = bisect.bisect_right([start for start, _ in self.schedule], step) - 1
        weights = self.schedule[place][1]
        self.mixture.set_weights(weights)
        self.history.append((step, weights))


class Rows(Protocol):
    """Samples by place."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Any: ...


class Paced:
    """An endless stream from samples in order of difficulty: at first the front of the order, in the end all of it.

    samples  anything with a length and samples by place; `order` their places, easiest (or hardest) first
    steps    of the run, cut into `rounds`: in the i-th the samples before place i H / M are drawn from, each at most
             once more than any other; after the last step all are
    Chen et al. 2023, baselines "curriculum" and "anticurriculum": g(i) = i H / M.
    rank, world  which process this is, of how many; each gets its part of every batch
    """

    def __init__(
        self,
        samples: Rows,
        order: Sequence[int],
        batch_size: int,
        steps: int,
        rounds: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not len(samples) or not np.array_equal(np.sort(order), np.arange(len(samples))):
            raise ValueError(f"an order of {len(order)} places for {len(samples)} samples: expected each place once")
        if not 1 <= rounds <= steps or batch_size < 1 or not 0 <= rank < world or batch_size % world:
            raise ValueError(
                f"rounds={rounds}, steps={steps}, batch_size={batch_size}, rank={rank}, world={world}: expected from 1 "
                "to steps rounds, and a batch that divides among the processes, of which this is one"
            )
        self.samples, self.order = samples, np.asarray(order, dtype=np.int64)
        self.batch_size, self.rank, self.world = batch_size, rank, world
        mark = hashlib.sha256(self.order.tobytes()).hexdigest()[:16]
        self._identity = {"batch_size": batch_size, "steps": steps, "rounds": rounds, "seed": seed, "order": mark}
        self._starts = [round(steps * place / rounds) for place in range(rounds)]
        self._rounds, self._seed, self._drawn = rounds, seed, 0
        self._kept: tuple[tuple[int, int], NDArray[np.int64]] = ((-1, -1), np.empty(0, dtype=np.int64))

    def __iter__(self) -> Iterator[Batch]:
        own = self.batch_size // self.world
        while True:
            round_ = bisect.bisect_right(self._starts, self._drawn) - 1
            first = (self._drawn - self._starts[round_]) * self.batch_size + self.rank * own
            places = [self._place(round_, index) for index in range(first, first + own)]
            self._drawn += 1
            batch: Batch = default_collate([self.samples[int(place)] for place in places])
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self._drawn, "identity": self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        same("stream", state["identity"], self._identity)
        self._drawn = state["drawn"]

    def _place(self, round_: int, index: int) -> int:
        pool = max(1, len(self.order) * (round_ + 1) // self._rounds)
        epoch, place = divmod(index, pool)
        if self._kept[0] != (round_, epoch):  # each round and epoch has its own order
            raw = np.random.Philox(key=np.array([self._seed, round_ << 32 | epoch], dtype=np.uint64)).random_raw(pool)
            self._kept = (round_, epoch), np.argsort(raw, kind="stable")
        return int(self.order[self._kept[1][place]])
