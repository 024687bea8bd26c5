"""Savings: how much of its twin's cost a method needed to score as well, counted on measured points, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from shoestring.evaluate.quantities import number, percent, plus_minus, seeds
from shoestring.evaluate.scores import AXES, Pair, Point, Report, Score


@dataclass(frozen=True)
class Saving:
    """What a method saved against its twin, paired over the seeds on which both were measured.

    of          seeds measured on both
    reached     seeds in which the method came to the twin's final metric or better
    target      the twin's final metric
    final       the method's final metric
    difference  method less twin, seed by seed
    fractions   by axis (step, tokens, flops, seconds): the method's cost at the first measured point that was as
                good, over the twin's cost at its end; over the seeds that reached. An axis on which the twin paid
                nothing is absent. Nothing is interpolated between points
    """

    method: str
    twin: str
    metric: str
    of: int
    reached: int
    target: Score
    final: Score
    difference: Score
    fractions: Mapping[str, Score]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def saving(report: Report, pair: Pair) -> Saving | None:
    """The saving of one pair; None where no seed was measured on both rows."""
    method, twin = report.measured(pair.method), report.measured(pair.twin)
    shared = [seed for seed in method if seed in twin]
    if not shared:
        return None
    metric = report.metric
    targets = [twin[seed][-1].scores[metric] for seed in shared]
    finals = [method[seed][-1].scores[metric] for seed in shared]
    ends: list[tuple[Point, Point]] = []
    for seed, target in zip(shared, targets, strict=True):
        first = _first_as_good(method[seed], metric, target, report.lower_is_better)
        if first is not None:
            ends.append((first, twin[seed][-1]))
    return Saving(
        pair.method,
        pair.twin,
        metric,
        of=len(shared),
        reached=len(ends),
        target=Score.of(targets),
        final=Score.of(finals),
        difference=Score.of(final - target for final, target in zip(finals, targets, strict=True)),
        fractions=_fractions(ends),
    )


def savings(report: Report) -> list[str]:
    """What each pair of the report shows, in words: how soon the method was as good as its twin, and how both ended."""
    return [" ".join(sentences(report, pair)) for pair in report.pairs]


def sentences(report: Report, pair: Pair) -> list[str]:
    """One sentence on how soon the method was as good as its twin, one on how both ended."""
    found = saving(report, pair)
    prefix, method, twin = _names(report, pair)
    if found is None:
        return [f"{prefix}{method} and {twin} share no measured seed, so no saving can be stated."]
    return [prefix + _reach(found, method, twin), _end(found, report.lower_is_better)]


def _first_as_good(points: list[Point], metric: str, target: float, lower_is_better: bool) -> Point | None:
    sign = 1 if lower_is_better else -1
    return next((point for point in points if sign * point.scores[metric] <= sign * target), None)


def _fractions(ends: list[tuple[Point, Point]]) -> dict[str, Score]:
    fractions = {}
    for axis in AXES:
        costs = [(float(getattr(method, axis)), float(getattr(twin, axis))) for method, twin in ends]
        if costs and all(whole > 0 for _, whole in costs):
            fractions[axis] = Score.of(part / whole for part, whole in costs)
    return fractions


def _names(report: Report, pair: Pair) -> tuple[str, str, str]:
    method, twin = report.row(pair.method), report.row(pair.twin)
    if method.group == twin.group:
        shown = method.group[:1].upper() + method.group[1:]
        return (f"{shown}: " if shown else ""), method.title, twin.title
    first, second = (f"{row.title} ({row.group})" if row.group else row.title for row in (method, twin))
    return "", first, second


def _reach(found: Saving, method: str, twin: str) -> str:
    goal = f"{twin}'s final {found.metric}"
    if found.reached == 0:
        ends = f"{plus_minus(found.final)} against {plus_minus(found.target)}"
        return f"{method} did not reach {goal} in {found.of} of {seeds(found.of)}: {ends}."
    words = {"step": "steps", "flops": "FLOPs", "seconds": "seconds"}
    parts = [f"{percent(found.fractions[axis])} of its {words[axis]}" for axis in words if axis in found.fractions]
    only = "only " if any(fraction.mean > 1 for fraction in found.fractions.values()) else ""
    listed = " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))
    after = f" {only}after {listed}" if parts else " while the twin paid nothing"
    target = f"({plus_minus(found.target)}, {seeds(found.of)})"
    if found.reached < found.of:
        missed = f"in {found.of - found.reached} of {found.of} it did not"
        return f"{method} reached {goal} {target} in {found.reached} of {seeds(found.of)},{after}; {missed}."
    return f"{method} reached {goal} {target}{after}."


def _end(found: Saving, lower_is_better: bool) -> str:
    difference = found.difference
    paired = f"paired over {seeds(found.of)}" if found.of > 1 else "from 1 seed only"
    if difference.mean == 0:
        return f"Both ended level on the mean, {paired}."
    better = (difference.mean < 0) == lower_is_better
    apart = abs(difference.mean)
    size = plus_minus(Score(apart, difference.sd, difference.n)) if difference.n > 1 else number(apart, 2)
    small = difference.n > 1 and abs(difference.mean) <= difference.sd
    doubt = ", a difference no larger than its spread" if small else ""
    ends = f": {plus_minus(found.final)} against {plus_minus(found.target)}" if found.reached else ""
    return f"It ended {size} {'better' if better else 'worse'}{ends}, {paired}{doubt}."
