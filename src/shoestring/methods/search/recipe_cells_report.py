"""What the scores of image cells, and searches by them, came to: rows, the notes that say it, and the pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from shoestring.cost import Cost
from shoestring.evaluate.scores import Pair, Point, Report, Row, Scatter, Score
from shoestring.methods.search.ranks import Tau, difference_interval, kendall_interval, top, within_groups
from shoestring.methods.search.recipe_schema import Cells, Recipe
from shoestring.methods.search.recipe_searches import EVOLUTION, RANDOM, Searched

COUNT = "parameters"
METHODS = ("naswot", "span")
EVERY, ASIDE = "all scored cells", "cells kept aside"


@dataclass(frozen=True)
class Ranked:
    """The cells that every proxy scored, row by row.

    accuracies  by column
    scores      by proxy
    aside       which were not looked at while our own score was chosen
    costs       of scoring one cell, by proxy
    """

    accuracies: Mapping[str, Sequence[float]]
    scores: Mapping[str, Sequence[float]]
    aside: Sequence[bool]
    costs: Mapping[str, Cost]


def report(recipe: Recipe, name: str, ranked: Ranked, searched: Searched, training_flops: float) -> Report:
    """The report of the whole experiment.

    training_flops  what one training of an average cell is said to cost
    """
    assert recipe.cells is not None
    cells, metric = recipe.cells, f"accuracy, {recipe.cells.accuracies[0]}"
    taken = {EVERY: list(range(len(ranked.aside))), ASIDE: [row for row, kept in enumerate(ranked.aside) if kept]}
    rows: list[Row] = []
    points: list[Point] = []
    notes: list[str] = []
    for group, places in taken.items():
        rows += [_correlated(ranked, proxy, group, places) for proxy in ranked.scores]
        notes += _told(ranked, group, places)
    for draws, picks in searched.by_score.items():
        group = f"the best of {draws} by score, {cells.searches} searches"
        for label, found in picks.items():
            cost = ranked.costs[label] if label in ranked.costs else Cost()
            scores = {f"accuracy, {column}": Score.of(values) for column, values in found.items()}
            rows.append(Row(f"{label} of {draws}", label not in METHODS, scores, _times(cost, draws), group, label))
    group = f"{cells.budget:g} trainings, {cells.searches} searches"
    for label, found in searched.with_training.items():
        scores = {f"accuracy, {column}": Score.of(values) for column, values in found.items()}
        cost = Cost(flops=cells.budget * training_flops)
        rows.append(Row(label, not label.startswith("AREA"), scores, cost, group, label))
        points += list(_points(label, metric, searched, training_flops))
    pairs = [
        Pair(label, twin)
        for label in searched.with_training
        if label.startswith("AREA")
        for twin in (EVOLUTION, RANDOM)
    ]
    notes += _explained(cells, training_flops)
    return Report(
        "search",
        name,
        tuple(rows),
        tuple(points),
        tuple(pairs),
        metric,
        tuple(notes),
        lower_is_better=False,
        scatters=tuple(_scatters(ranked, taken[EVERY])),
    )


def _correlated(ranked: Ranked, proxy: str, group: str, places: Sequence[int]) -> Row:
    scores, found = [ranked.scores[proxy][row] for row in places], {}
    for column, values in ranked.accuracies.items():
        tau = kendall_interval(scores, [values[row] for row in places])
        # a normal distribution's interval of 95 % is 3.92 sd wide
        found[f"τ, {column}"] = Score(tau.value, (tau.high - tau.low) / 3.92, tau.n)
    first = [next(iter(ranked.accuracies.values()))[row] for row in places]
    sizes = [ranked.scores[COUNT][row] for row in places]
    narrower: dict[str, Callable[[], float]] = {"τ, best tenth": lambda: top(scores, first)}
    if proxy != COUNT:
        narrower["τ, equal parameters"] = lambda: within_groups(scores, first, sizes, resamples=100).value
    for name, measured in narrower.items():
        with suppress(ValueError):  # of few cells, none may be comparable
            found[name] = Score.of([measured()])
    label = proxy
    return Row(f"{label}, {group}", proxy not in METHODS, found, _times(ranked.costs[proxy], len(places)), group, label)


def _told(ranked: Ranked, group: str, places: Sequence[int]) -> Iterator[str]:
    """Each method against the parameter count, and ours against the paper's, with intervals."""
    sizes = [ranked.scores[COUNT][row] for row in places]
    methods = [proxy for proxy in METHODS if proxy in ranked.scores]
    for column, values in ranked.accuracies.items():
        truth = [values[row] for row in places]
        for proxy in methods:
            scores = [ranked.scores[proxy][row] for row in places]
            tau = kendall_interval(scores, truth)
            apart = difference_interval(scores, sizes, truth)
            said = f"{group} ({len(places)}), {column}: τ of {proxy} is {_interval(tau)}, {_signed(apart)} against the "
            said += "parameter count"
            with suppress(ValueError):
                said += f"; among cells of equal parameter count it is {_interval(within_groups(scores, truth, sizes))}"
            if proxy != methods[0]:
                other = difference_interval(scores, [ranked.scores[methods[0]][row] for row in places], truth)
                said += f"; {_signed(other)} against {methods[0]}"
            yield said + "."


def _interval(tau: Tau) -> str:
    return f"{tau.value:.3f} [{tau.low:.3f}, {tau.high:.3f}]"


def _signed(tau: Tau) -> str:
    return f"{tau.value:+.3f} [{tau.low:+.3f}, {tau.high:+.3f}]"


def _explained(cells: Cells, training_flops: float) -> list[str]:
    return [
        "± of τ is its 95 % bootstrap interval over cells as that of a normal distribution, of one draw of weights; "
        "brackets hold the interval itself.",
        f"Trainings are looked up, not done: a search sees {cells.validation}; the others tell what it chose.",
        f"A training is said to cost {training_flops:.3g} FLOPs: {cells.epochs} epochs of {cells.epoch_images} images, "
        "of a cell of average FLOPs, a pass back counted as two forward; AREA's scores are charged in proportion.",
        "± of searches is the sd over searches of one table; all of them draw from the same scored cells.",
    ]


def _points(label: str, metric: str, searched: Searched, training_flops: float) -> Iterator[Point]:
    for seed, path in enumerate(searched.paths[label]):
        for spent, test in zip(path.spent, path.test, strict=True):
            yield Point(label, seed, round(spent), 0.0, spent * training_flops, 0.0, {metric: test})


def _scatters(ranked: Ranked, places: Sequence[int]) -> Iterator[Scatter]:
    for column, values in list(ranked.accuracies.items())[:1]:
        for proxy, scores in ranked.scores.items():
            shown = tuple(("", scores[row], values[row]) for row in places if math.isfinite(scores[row]))
            told = _interval(kendall_interval([scores[row] for row in places], [values[row] for row in places]))
            says = f"{column} against {proxy}: τ {told} over {len(places)} cells."
            if len(shown) < len(places):
                says += f" {len(places) - len(shown)} score -inf and have no place."
            yield Scatter(f"{proxy}: τ {told}", proxy, column, shown, says)


def _times(cost: Cost, count: int) -> Cost:
    return Cost(flops=cost.flops * count, seconds=cost.seconds * count)
