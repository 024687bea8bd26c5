"""Which sample of which source stands where in each batch of all processes, and how many of each were drawn."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from shoestring.methods.mixing.draws import Draws, checked


class ExhaustedError(ValueError):
    """Every source that has a weight gave as many epochs as it may: the stream ends."""


class Course:
    """The one sequence that every process and every worker follows, each making its own part of it.

    lengths         rows of each source by name, None of a stream
    weights         shares of the samples, or of the tokens where `tokens` tells them apart, in the order of the names
    size            samples a batch over all processes
    caps            most samples of a source by name; where it has none, as many as are drawn
    tokens          mean tokens of a sample of each source, in the order of the names; all alike where None
    world           processes, of which each has its size / world of a batch, in the order of ranks

    It reads nothing. Changes of weights are told with the batch before which they take effect, and kept until then.
    """

    def __init__(
        self,
        lengths: Mapping[str, int | None],
        weights: Sequence[float],
        size: int,
        seed: int = 0,
        caps: Mapping[str, int] | None = None,
        tokens: Sequence[float] | None = None,
        world: int = 1,
    ) -> None:
        self.names, self.size, self.world, self.workers = list(lengths), size, world, 1
        self._tokens = [1.0] * len(self.names) if tokens is None else list(tokens)
        self._by_tokens = tokens is not None
        self._caps = [(caps or {}).get(name) for name in self.names]
        self._capped = [source for source, cap in enumerate(self._caps) if cap is not None]
        self._weights, self._changes = list(weights), dict[int, list[float]]()
        self.drawn, self.counts = 0, [0] * len(self.names)
        self._read = {source: [0] * world for source, name in enumerate(self.names) if lengths[name] is None}
        self._draws = Draws(self._shares(), seed)
        self._find_ending()

    @property
    def batch(self) -> int:
        """Batches so far."""
        return self.drawn // self.size

    @property
    def weights(self) -> list[float]:
        """The weights that the next batch is drawn by, as they were given."""
        due = [at for at in self._changes if at <= self.drawn]
        return list(self._changes[max(due)] if due else self._weights)

    @property
    def exhausted(self) -> list[int]:
        """The sources of which as many were drawn as may be."""
        return [source for source in self._capped if not self._left(source)]

    def advance(self) -> tuple[list[int], list[int]]:
        """Source of each sample of the next batch, and its number among all samples of that source.

        Raises ValueError, and stays where it is, where the sources with a weight no longer fill a batch.
        """
        self._change_what_is_due()
        self._check_enough()
        sources: list[int] = []
        numbers: list[int] = []
        while len(sources) < self.size:
            wanted = self.size - len(sources)
            drawn = self._draws.take(min([wanted, *map(self._left, self._ending)]))
            sources += drawn
            for source in drawn:
                numbers.append(self.counts[source])
                self.counts[source] += 1
            if any(not self._left(source) for source in self._ending) and not self._all_gone():
                self._weigh()
        if self._read:
            self._count_what_is_read(sources)
        self.drawn += self.size
        return sources, numbers

    def change(self, batch: int, weights: Sequence[float]) -> None:
        """Other weights from a batch on. Raises ValueError where that was drawn already."""
        if batch * self.size < self.drawn:
            raise ValueError(
                f"weights for batch {batch} came when {self.batch} were drawn: give Mixture a larger delay"
            )
        self._changes[batch * self.size] = list(weights)

    def split(self, workers: int) -> None:
        """So many workers a process, of which number b % workers makes batch b. ValueError in the midst of streams."""
        if workers == self.workers:
            return
        if any(map(any, self._read.values())):
            raise ValueError(
                f"the streams were read by {self.workers} workers in each of {self.world} processes: go on with as "
                f"many, not {workers}; only sources with a length can be divided anew"
            )
        self.workers = workers
        self._read = {source: [0] * (self.world * workers) for source in self._read}

    def read(self, source: int, shard: int) -> int:
        """Samples of a stream that were read from one of its shards."""
        return self._read[source][shard]

    def shard(self, rank: int) -> int:
        """Which of the world * workers shards of the streams the next batch of a process is read from."""
        return rank * self.workers + self.batch % self.workers

    def copy(self) -> Course:
        """Another at the same place, which goes on by itself."""
        other = copy.copy(self)
        other.counts, other._changes, other._draws = list(self.counts), dict(self._changes), self._draws.copy()
        other._read = {source: list(read) for source, read in self._read.items()}
        return other

    def state_dict(self) -> dict[str, Any]:
        names = self.names
        return {
            "drawn": self.drawn,
            "counts": dict(zip(names, self.counts, strict=True)),
            "weights": dict(zip(names, self._weights, strict=True)),
            "changes": [
                {"drawn": at, "weights": dict(zip(names, weights, strict=True))}
                for at, weights in sorted(self._changes.items())
            ],
            "draws": self._draws.state_dict(),
            "shards": self.world * self.workers,
            "read": {names[source]: list(read) for source, read in self._read.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another stopped. Raises ValueError where streams were read by another number of shards."""
        drawn = state["drawn"]
        if type(drawn) is not int or drawn < 0 or drawn % self.size:
            raise ValueError(f"the saved batches have drawn {drawn!r} samples: expected a multiple of {self.size}")
        shards = self.world * self.workers
        if any(map(any, state["read"].values())) and state["shards"] != shards:
            raise ValueError(
                f"the saved streams were read by {state['shards']} shards (processes x workers), these by {shards}: "
                "resume with the same (make the loader first, then load its state); only sources with a length can be "
                "divided anew"
            )
        self._draws.load_state_dict(state["draws"])
        self._find_ending()
        self.drawn = drawn
        self.counts = [int(state["counts"][name]) for name in self.names]
        self._weights = checked(state["weights"], self.names)
        self._changes = {int(change["drawn"]): checked(change["weights"], self.names) for change in state["changes"]}
        for source in self._read:
            read = [int(count) for count in state["read"][self.names[source]]]
            self._read[source] = read if state["shards"] == shards else [0] * shards

    def _change_what_is_due(self) -> None:
        due = sorted(at for at in self._changes if at <= self.drawn)
        for at in due:
            self._weights = self._changes.pop(at)
        if due and not self._all_gone():
            self._weigh()

    def _left(self, source: int) -> int:
        """Samples of a capped source that may still be drawn."""
        cap = self._caps[source]
        assert cap is not None
        return cap - self.counts[source]

    def _open(self, source: int) -> bool:
        return self._caps[source] is None or self._left(source) > 0

    def _all_gone(self) -> bool:
        return not any(weight and self._open(source) for source, weight in enumerate(self._weights))

    def _check_enough(self) -> None:
        weighed = [source for source, weight in enumerate(self._weights) if weight]
        if any(self._caps[source] is None for source in weighed):
            return
        if sum(self._left(source) for source in weighed) < self.size:
            told = ", ".join(self.names[source] for source in weighed)
            raise ExhaustedError(
                f"all sources with a weight are exhausted after {self.drawn} samples: {told} do not fill another batch "
                f"of {self.size} within their repeats: allow more, or end here"
            )

    def _weigh(self) -> None:
        self._draws.follow(self._shares())
        self._find_ending()

    def _find_ending(self) -> None:
        """Which of the sources that are drawn have a cap."""
        shares = self._draws.weights
        self._ending = [source for source in self._capped if shares[source]]

    def _shares(self) -> list[float]:
        """Of samples: the weights by tokens, of what is not exhausted."""
        if not self._capped and not self._by_tokens:
            return self._weights
        parts = [
            weight / tokens if self._open(source) else 0.0
            for source, (weight, tokens) in enumerate(zip(self._weights, self._tokens, strict=True))
        ]
        total = math.fsum(parts)
        return [part / total for part in parts]

    def _count_what_is_read(self, sources: Sequence[int]) -> None:
        own = self.size // self.world
        for rank in range(self.world):
            shard = self.shard(rank)
            for source in sources[rank * own : (rank + 1) * own]:
                if source in self._read:
                    self._read[source][shard] += 1
