"""Which source each next sample comes from, so that the counts keep to the weights at every moment."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np

APART = 1e-6  # how far a sum of weights may lie from one: what rounding in a file or in float32 leaves
SLACK = 1e-9  # below its target by more than this a source may be drawn. Quotas hold exactly while SLACK * sources < 1
STRETCH = 1 << 16  # draws after which times are counted from zero again, so that their rounding stays below SLACK


def checked(weights: Mapping[str, float] | Sequence[float], names: Sequence[str]) -> list[float]:
    """The weights in the order of the names, as given.

    Raises ValueError where a name is unknown or missing, a weight is negative or not finite, all are zero, or their sum
    is not one within 1e-6: nothing is normalised in silence.
    """
    if isinstance(weights, Mapping) and tuple(weights) == tuple(names):
        values = [*map(float, weights.values())]
    elif isinstance(weights, Mapping):
        known = set(names)
        unknown, missing = (
            [name for name in weights if name not in known],
            [name for name in names if name not in weights],
        )
        if unknown or missing:
            told = [
                f"{kind} {', '.join(map(repr, some))}"
                for kind, some in (("unknown", unknown), ("missing", missing))
                if some
            ]
            raise ValueError(f"weights by name: {'; '.join(told)}: expected one for each of {', '.join(names)}")
        values = [float(weights[name]) for name in names]
    else:
        if len(weights) != len(names):
            raise ValueError(f"there are {len(weights)} weights for {len(names)} sources: give one a source")
        values = [*map(float, weights)]
    if not all(map(math.isfinite, values)) or min(values) < 0:
        name, wrong = next(pair for pair in zip(names, values, strict=True) if not (0 <= pair[1] < math.inf))
        raise ValueError(f"the weight of {name!r} is {wrong}: expected a number from 0 to 1")
    total = math.fsum(values)
    if total == 0:
        raise ValueError(f"all weights are zero ({', '.join(names)}): give at least one source a weight")
    if abs(total - 1) > APART:
        raise ValueError(f"the weights sum to {total:.9g}: expected 1; divide each by their sum")
    return values


class Draws:
    """An endless draw of sources with as little chance in it as can be.

    weights  one a source, summing to one (see `checked`); a source without weight is never drawn
    seed     which source goes first where two are due alike

    While weights stand, after every n draws each source was drawn less than one time more or less than weight * n: a
    source that is at or above its target is left out, and of the others the one goes next that would first fall a
    whole draw behind. Baruah et al. 1996 (Pfair), Balinski and Young 1975 (the quota method).

    When weights change, what each source is ahead or behind is carried over, so that counts follow the sum of all
    weights that were in effect: never a whole draw above it, and below it by less than 1 + (1 + 1/2 + ... + 1/sources),
    however often and however spitefully they change (Bender et al. 2019, the fullest cup is emptied). Nothing is reset:
    a small source that is re-weighed after every draw still gets its share. What a source is owed when it loses its
    weight is dropped, and as much is forgiven to those that are ahead, in proportion.
    """

    def __init__(self, weights: Sequence[float], seed: int = 0) -> None:
        self._seed, self._sources = seed, len(weights)
        self._names = [str(source) for source in range(len(weights))]
        raw = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64)).random_raw(max(1, len(weights)))
        self._ranks: list[int] = np.argsort(np.argsort(raw, kind="stable")).tolist()
        self._lags = [0.0] * len(weights)  # target minus count when time was last zero
        self._taken = [0] * len(weights)  # draws of each since
        self._time = 0  # draws of all since
        self._weights = [0.0] * len(weights)
        self.set_weights(weights)

    @property
    def weights(self) -> list[float]:
        return list(self._weights)

    @property
    def lags(self) -> list[float]:
        """By how much each source is behind (positive) or ahead of its target, in draws."""
        here = zip(self._lags, self._weights, self._taken, strict=True)
        return [lag + weight * self._time - taken for lag, weight, taken in here]

    def set_weights(self, weights: Sequence[float]) -> None:
        """Go on with other weights. Raises ValueError where they are none, see `checked`."""
        self.follow(checked(weights, self._names))

    def follow(self, given: Sequence[float]) -> None:
        """The same, of weights that were checked."""
        total = math.fsum(given)
        lags = self.lags
        self._weights = [weight / total for weight in given]  # within 1e-6: else the lags would drift in a long run
        owed = math.fsum(lag for lag, weight in zip(lags, self._weights, strict=True) if lag > 0 and not weight)
        if owed:
            ahead = -math.fsum(lag for lag in lags if lag < 0)
            kept = (
                1 - owed / ahead if ahead > owed else 0.0
            )  # alike but for rounding where all that is ahead is forgiven
            lags = [
                lag * kept if lag < 0 else lag if weight else 0.0
                for lag, weight in zip(lags, self._weights, strict=True)
            ]
        self._rebase(lags)

    def take(self, count: int) -> list[int]:
        """The sources of the next `count` draws, by number."""
        drawn: list[int] = []
        while len(drawn) < count:
            if self._time == STRETCH:
                self._rebase(self.lags)
            self._run(min(count - len(drawn), STRETCH - self._time), drawn)
        return drawn

    def copy(self) -> Draws:
        """Others that go on alike, by themselves."""
        other = copy.copy(self)
        other._taken, other._waiting, other._ready = list(self._taken), list(self._waiting), list(self._ready)
        return other  # its weights and lags are replaced, never changed in place

    def state_dict(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "weights": list(self._weights),
            "lags": list(self._lags),
            "taken": list(self._taken),
            "time": self._time,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where other draws stopped. Raises ValueError where they had another seed or number of sources."""
        for what, theirs, mine in (
            ("seed", state["seed"], self._seed),
            ("number of sources", len(state["weights"]), self._sources),
        ):
            if theirs != mine:
                raise ValueError(f"the saved draws have {what} {theirs}, these {mine}: resume with the same")
        self._weights = [float(weight) for weight in state["weights"]]
        self._lags = [float(lag) for lag in state["lags"]]
        self._taken = [int(taken) for taken in state["taken"]]
        self._time = int(state["time"])
        self._queue()

    def _rebase(self, lags: list[float]) -> None:
        """Count time from zero. The lags are made to sum to zero: what they lack is given out by weight."""
        rest = -math.fsum(lags)
        self._lags = [lag + rest * weight for lag, weight in zip(lags, self._weights, strict=True)]
        self._taken = [0] * self._sources
        self._time = 0
        self._queue()

    def _queue(self) -> None:
        """Two heaps of (when, rank, source): who waits, by when it may be drawn; who is ready, by when it must be."""
        each = zip(self._taken, self._lags, self._weights, self._ranks, strict=True)
        # a source is released when its target is above its count
        self._waiting = [
            ((taken - lag + SLACK) / weight, rank, source)
            for source, (taken, lag, weight, rank) in enumerate(each)
            if weight
        ]
        self._ready: list[tuple[float, int, int]] = []
        heapify(self._waiting)

    def _run(self, count: int, drawn: list[int]) -> None:
        waiting, ready, taken, lags, weights = self._waiting, self._ready, self._taken, self._lags, self._weights
        for time in range(self._time + 1, self._time + count + 1):
            while waiting and waiting[0][0] < time:
                _, rank, source = heappop(waiting)
                heappush(ready, ((taken[source] + 1 - lags[source]) / weights[source], rank, source))
            if ready[0][0] <= time and any(entry[0] <= time for entry in ready[1:3]):
                entry = self._furthest_behind(time)
            else:
                entry = heappop(ready)
            _, rank, source = entry
            drawn.append(source)
            taken[source] += 1
            heappush(waiting, ((taken[source] - lags[source] + SLACK) / weights[source], rank, source))
        self._time += count

    def _furthest_behind(self, time: int) -> tuple[float, int, int]:
        """Of several that are a whole draw behind, which only a change of weights brings about, the one most so."""
        due = [entry for entry in self._ready if entry[0] <= time]
        worst = max(due, key=lambda entry: (self._behind(entry[2], time), -entry[1]))
        self._ready.remove(worst)
        heapify(self._ready)
        return worst

    def _behind(self, source: int, time: int) -> float:
        return self._lags[source] + self._weights[source] * time - self._taken[source]
