"""The stream of lessons: endless, shuffled, several tasks a step, and it knows where it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from shoestring.methods.rationale.encode import Family, Pair, batch
from shoestring.methods.rationale.lessons import LABEL
from shoestring.types import Batch

Mode = Literal["mixed", "alternating"]


class Lessons:
    """An endless stream of micro-batches, `micro_batches` of them a step, for `loss.scaled`.

    pairs        by task, the first being the label's
    weights      by task: 1 for the label, lambda for the reason
    batch_size   examples a step of each task that the step has, over all processes
    mode         "mixed": each step has every task; "alternating": each step has one, in turn
    parts        micro-batches that a task's batch of a step is cut into, to need less memory
    Each task goes through its own pairs in epochs; those of tasks with as many pairs go through the same examples at
    the same time, as in the paper. An epoch's order is from (seed, epoch) alone. A task's loss is its mean over all of
    its target tokens in the step, over parts and processes. Raises ValueError where a batch cannot be cut so.
    """

    def __init__(
        self,
        pairs: Mapping[str, Sequence[Pair]],
        weights: Mapping[str, float],
        batch_size: int,
        *,
        family: Family,
        pad: int,
        seed: int,
        mode: Mode = "mixed",
        parts: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if min(batch_size, parts, world) < 1 or batch_size % (parts * world):
            raise ValueError(f"a batch of {batch_size} cannot be cut into {parts} parts for {world} processes")
        for task, weight in weights.items():
            if not pairs.get(task):
                raise ValueError(f"the task {task!r} has no lesson")
            if not 0 <= weight < float("inf"):
                raise ValueError(f"the weight of {task} is {weight}: expected zero or more")
        self._pairs = {task: list(pairs[task]) for task in weights}
        self._weights, self._size, self._parts = dict(weights), batch_size, parts
        self._family, self._pad, self._seed, self._mode = family, pad, seed, mode
        self._rank, self._world = rank, world
        self._step = 0
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}

    @property
    def micro_batches(self) -> int:
        return self._parts * (len(self._weights) if self._mode == "mixed" else 1)

    @property
    def epochs(self) -> float:
        """How often the label's lessons were gone through."""
        tasks = 1 if self._mode == "mixed" else len(self._weights)
        return self._step * self._size / tasks / len(self._pairs[LABEL])

    def __iter__(self) -> Iterator[Batch]:
        """Begins with the first micro-batch of a step, and is only to be left after the last of one."""
        while True:
            found = self._of_step(self._step)
            yield from found[:-1]
            self._step += 1
            yield found[-1]

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another stream stopped; ValueError where that was of other lessons, or drawn otherwise."""
        for name, mine in self._identity().items():
            if state.get(name) != mine:
                raise ValueError(f"the saved lessons have {name} {state.get(name)!r}, these {mine!r}")
        if type(state.get("step")) is not int or state["step"] < 0:
            raise ValueError(f"the saved lessons are at step {state.get('step')!r}: expected a count")
        self._step = state["step"]

    def _identity(self) -> dict[str, Any]:
        return {
            "fingerprint": self._fingerprint,
            "batch_size": self._size,
            "seed": self._seed,
            "mode": self._mode,
        }

    @cached_property
    def _fingerprint(self) -> str:
        """Of all lessons: made once, since half a million of them take seconds."""
        digest = hashlib.sha256()
        for task, pairs in self._pairs.items():
            digest.update(f"{task} {self._weights[task]!r} {len(pairs)}\n".encode())
            for pair in pairs:
                digest.update(np.asarray([len(pair.source), *pair.source, *pair.target], dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]

    def _of_step(self, step: int) -> list[Batch]:
        tasks = list(self._weights)
        if self._mode == "alternating":
            tasks, step = [tasks[step % len(tasks)]], step // len(tasks)
        found = []
        for task in tasks:
            chosen = self._chosen(task, step)
            targets = sum(len(pair.target) for pair in chosen)
            # gradients are means over processes, and each process counts one target a step
            scale = self._weights[task] * self._world / targets
            own = len(chosen) // (self._parts * self._world)
            for part in range(self._parts):
                first = (self._rank * self._parts + part) * own
                made = batch(chosen[first : first + own], self._family, self._pad)
                last = task == tasks[-1] and part == self._parts - 1
                found.append({**made, "scale": torch.tensor([scale, float(last)], dtype=torch.float64)})
        return found

    def _chosen(self, task: str, step: int) -> list[Pair]:
        pairs = self._pairs[task]
        epochs, places = np.divmod(np.arange(step * self._size, (step + 1) * self._size), len(pairs))
        return [pairs[self._order(len(pairs), int(epoch))[place]] for epoch, place in zip(epochs, places, strict=True)]

    def _order(self, count: int, epoch: int) -> NDArray[np.int64]:
        if (count, epoch) not in self._orders:
            self._orders = {known: order for known, order in self._orders.items() if known[1] >= epoch - 1}
            raw = np.random.Philox(key=np.array([self._seed, epoch], dtype=np.uint64)).random_raw(count)
            self._orders[count, epoch] = np.argsort(raw, kind="stable")
        return self._orders[count, epoch]
