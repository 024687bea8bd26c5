"""What a report holds: rows of scores beside what they cost, and the measurements along the way."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shoestring.cost import Cost


@dataclass(frozen=True)
class Score:
    """A mean over `n` seeds and its sample standard deviation (n - 1 below the line; 0 where n is 1)."""

    mean: float
    sd: float
    n: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.sd)):
            raise ValueError(f"a score of {self.mean} ± {self.sd} is not finite: tell of a diverged run in a note")
        if self.n < 1 or self.sd < 0:
            raise ValueError(f"a score needs n of 1 or more and sd of 0 or more, not n={self.n}, sd={self.sd}")

    @classmethod
    def of(cls, values: Iterable[float]) -> Score:
        """The score of one value a seed. Raises ValueError where there is none, or one is not finite."""
        found = [float(value) for value in values]
        if not found:
            raise ValueError("a score needs at least one value, one for each seed")
        if not all(math.isfinite(value) for value in found):
            raise ValueError(f"a score of {found} is not finite: tell of a diverged run in a note")
        return cls(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else 0.0, len(found))


@dataclass(frozen=True)
class Row:
    """One way to train, its scores and its cost.

    twin   whether it is the plain baseline that the method is held against
    cost   of ONE run: the mean over seeds
    group  what it shares with other rows (a learning rate, say): each group gets a panel of its own
    label  how to call it within its group; the name where empty
    """

    name: str
    twin: bool
    scores: Mapping[str, Score]
    cost: Cost
    group: str = ""
    label: str = ""

    @property
    def title(self) -> str:
        return self.label or self.name


@dataclass(frozen=True)
class Point:
    """A measurement along a run; tokens, flops and seconds are all that it took to get there."""

    row: str
    seed: int
    step: int
    tokens: float
    flops: float
    seconds: float
    scores: Mapping[str, float]

    def __post_init__(self) -> None:
        named = {"tokens": self.tokens, "flops": self.flops, "seconds": self.seconds, **self.scores}
        for name, value in named.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"the point of {self.row!r} at step {self.step}, seed {self.seed} has {name} {value}: "
                    "expected a finite number; leave the point out and say so in a note"
                )


AXES = ("step", "tokens", "flops", "seconds")


@dataclass(frozen=True)
class Pair:
    """Two rows, by name, that are to be compared."""

    method: str
    twin: str


@dataclass(frozen=True)
class Scatter:
    """What two quantities have to do with each other: a panel of points. Those of one y stand in one picture.

    title   of the panel, with what was found in it
    x, y    what the axes count
    points  (label, x, y) each; those of one label have one colour, and the label is in the legend where it is not empty
    says    the same in a sentence, for who cannot see it
    joined  whether points of one label are a course, in the order of x: a line joins them
    """

    title: str
    x: str
    y: str
    points: tuple[tuple[str, float, float], ...]
    says: str
    joined: bool = False

    def __post_init__(self) -> None:
        if not self.points:
            raise ValueError(f"the scatter {self.title!r} has no points: leave it out and say so in a note")
        for number, (label, *place) in enumerate(self.points):
            if not all(map(math.isfinite, place)):
                raise ValueError(
                    f"point {number} ({label!r}) of the scatter {self.title!r} is at {place}: expected finite numbers; "
                    "leave the point out and say so in a note"
                )


@dataclass(frozen=True)
class Report:
    """What a recipe found: rows, the measurements behind them, and the facts that let another repeat it.

    metric  the score that the pictures plot and the savings are counted on
    notes   warnings and negative results, one sentence each
    facts   command, date, commit, machine, versions, data fingerprint, precision
    """

    room: str
    recipe: str
    rows: tuple[Row, ...]
    points: tuple[Point, ...]
    pairs: tuple[Pair, ...]
    metric: str
    notes: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    lower_is_better: bool = True
    scatters: tuple[Scatter, ...] = ()

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two rows of the report are named {name!r}: give each its own name")
        if not any(self.metric in row.scores for row in self.rows):
            found = sorted({metric for row in self.rows for metric in row.scores})
            raise ValueError(f"no row of the report has the score {self.metric!r} that it plots: found {found}")
        mentioned = [point.row for point in self.points]
        mentioned += [name for pair in self.pairs for name in (pair.method, pair.twin)]
        for name in dict.fromkeys(mentioned):
            if name not in names:
                raise ValueError(f"the report has no row {name!r}, which a point or a pair names: found {names}")
        titles = [(scatter.y, scatter.title) for scatter in self.scatters]
        for y, title in titles:
            if titles.count((y, title)) > 1:
                raise ValueError(f"two scatters of {y!r} are titled {title!r}: give each its own title")

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def groups(self) -> list[str]:
        """The groups of the rows, in order of appearance."""
        return list(dict.fromkeys(row.group for row in self.rows))

    def metrics(self) -> list[str]:
        """The names of all scores, in order of appearance."""
        return list(dict.fromkeys(metric for row in self.rows for metric in row.scores))

    def measured(self, row: str) -> dict[int, list[Point]]:
        """The points of a row that hold the metric, by seed, in order of steps."""
        seeds: dict[int, list[Point]] = {}
        for point in self.points:
            if point.row == row and self.metric in point.scores:
                seeds.setdefault(point.seed, []).append(point)
        return {seed: sorted(seeds[seed], key=lambda point: point.step) for seed in sorted(seeds)}
