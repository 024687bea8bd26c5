"""The report of a ranked table: a group a column of accuracies, a row a proxy, a point an architecture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

from shoestring.cost import Cost
from shoestring.evaluate.scores import Report, Row, Scatter, Score
from shoestring.methods.search.ranks import Tau, difference_interval, kendall_interval, top, within_groups
from shoestring.methods.search.tools_rank import Ranked
from shoestring.methods.search.tools_score import NASWOT

Value = TypeVar("Value")
TAU, LOW, HIGH, TOP = "τ", "from", "to", "τ, best tenth"
SIZE = "parameters"
METHODS = (NASWOT, "span")  # the room's own; all others are their twins


def report(found: Ranked, facts: Mapping[str, str]) -> Report:
    """Each proxy's tau with each column, its interval, and the points behind it.

    Raises ValueError where no proxy orders any column.
    """
    rows: list[Row] = []
    scatters: list[Scatter] = []
    notes = [f"{name} is not in the table: {why}" for name, why in found.refused.items()]
    for column, truth in found.truth.items():
        for name, values in found.scores.items():
            scored = {text: value for text, value in values.items() if not math.isnan(value)}
            try:
                tau = kendall_interval(list(scored.values()), [truth[text] for text in scored])
            except ValueError as error:
                notes.append(f"{column}: {name} is not in the table: {error}.")
                continue
            rows.append(_row(name, column, scored, truth, tau, found.seconds[name]))
            scatters += _scatter(name, column, scored, truth, tau)
        notes += _against_size(found, column)
    notes += [f"{name} refused {count} networks, which it is not counted on." for name, count in _refused(found)]
    if not rows:
        raise ValueError(f"no proxy orders anything: {' '.join(notes)}")
    notes.append(
        "From and to are the 95 % percentile bootstrap interval of τ over architectures, of one draw of weights."
    )
    notes.append("Costs are the median time of one network, measured on the first few, times the networks.")
    return Report(
        "search", "rank", tuple(rows), (), (), TAU, tuple(notes), facts, lower_is_better=False, scatters=tuple(scatters)
    )


def _row(
    name: str, column: str, scored: Mapping[str, float], truth: Mapping[str, float], tau: Tau, seconds: float
) -> Row:
    values = {TAU: tau.value, LOW: tau.low, HIGH: tau.high}
    best = _if_ordered(partial(top, list(scored.values()), [truth[text] for text in scored]))
    if best is not None:
        values[TOP] = best
    told = {metric: Score.of([value]) for metric, value in values.items()}
    return Row(f"{name}, {column}", name not in METHODS, told, Cost(seconds=seconds * len(scored)), column, name)


def _scatter(
    name: str, column: str, scored: Mapping[str, float], truth: Mapping[str, float], tau: Tau
) -> list[Scatter]:
    shown = tuple(("", value, truth[text]) for text, value in scored.items() if math.isfinite(value))
    said = f"τ {tau.value:.3f} [{tau.low:.3f}, {tau.high:.3f}]"
    says = f"{column} against {name}, {tau.n} architectures: {said}."
    if len(shown) < len(scored):
        says += f" {len(scored) - len(shown)} score -inf and have no place."
    return [Scatter(f"{name}: {said}", name, column, shown, says)] if shown else []


def _against_size(found: Ranked, column: str) -> Iterator[str]:
    """The room's own scores beside the parameter count: the difference, and what they order at one size."""
    if SIZE not in found.scores:
        return
    truth, sizes = found.truth[column], found.scores[SIZE]
    for method in METHODS:
        scores = found.scores.get(method, {})
        both = {text: value for text, value in scores.items() if not math.isnan(value + sizes[text])}
        first, second = list(both.values()), [sizes[text] for text in both]
        accuracies = [truth[text] for text in both]
        apart = _if_ordered(partial(difference_interval, first, second, accuracies))
        if apart is not None:
            yield (
                f"{column}: τ of {method} less that of {SIZE}: {apart.value:+.3f} "
                f"[{apart.low:+.3f}, {apart.high:+.3f}], paired over {apart.n} architectures."
            )
        inside = _if_ordered(partial(within_groups, first, accuracies, second))
        if inside is not None:
            yield (
                f"{column}: among networks of equal size, τ of {method} is {inside.value:.3f} "
                f"[{inside.low:.3f}, {inside.high:.3f}], over {inside.n} architectures."
            )


def _if_ordered(count: Callable[[], Value]) -> Value | None:
    """Nothing where there are too few rows, or they are all alike."""
    try:
        return count()
    except ValueError:
        return None


def _refused(found: Ranked) -> list[tuple[str, int]]:
    counts = {name: sum(map(math.isnan, values.values())) for name, values in found.scores.items()}
    return [(name, count) for name, count in counts.items() if count]
