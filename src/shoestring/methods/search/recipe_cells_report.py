"""What the scores of image cells, and searches by them, came to: rows, the notes that say it, and the pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from shoestring.cost import Cost
from shoestring.evaluate.quantities import number, plus_minus
from shoestring.evaluate.scores import Pair, Point, Report, Row, Scatter, Score
from shoestring.methods.search.ranks import Tau, difference_interval, kendall_interval, top, within_groups
from shoestring.methods.search.recipe_schema import METHODS, SIZES, Cells, Recipe
from shoestring.methods.search.recipe_searches import ASSISTED, DRAWN, EVOLUTION, OPTIMUM, RANDOM, Searched

COUNT = SIZES[0]
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
        for proxy in ranked.scores:
            try:
                rows.append(_correlated(ranked, proxy, group, places))
            except ValueError as error:
                notes.append(f"{group}: {proxy} has no row: {error}.")
        notes += _told(ranked, group, places)
    rows += _searches(ranked, searched, cells.searches, training_flops)
    group = f"{cells.budget:g} trainings, {cells.searches} searches"
    ours = {f"{ASSISTED}, {proxy}" for proxy in METHODS}
    for label, found in searched.with_training.items():
        scores = {f"accuracy, {column}": Score.of(values) for column, values in found.items()}
        cost = Cost(flops=cells.budget * training_flops)
        rows.append(Row(label, label not in ours, scores, cost, group, label))
        points += list(_points(label, metric, searched, training_flops))
    pairs = [Pair(label, twin) for label in searched.with_training if label in ours for twin in (EVOLUTION, RANDOM)]
    notes += _spared(rows, searched, metric)
    notes += _explained(cells, searched, training_flops)
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


def _searches(ranked: Ranked, searched: Searched, searches: int, training_flops: float) -> Iterator[Row]:
    """Searches by score alone, charged with their scores; the optimum with a training of all it draws."""
    for (only, draws), picks in searched.by_score.items():
        among = f", {ASIDE}" if only else ""
        for label, found in picks.items():
            cost = Cost(flops=draws * training_flops) if label == OPTIMUM else Cost()
            if label in ranked.costs:
                cost = _times(ranked.costs[label], draws)
            scores = {f"accuracy, {column}": Score.of(values) for column, values in found.items()}
            group = f"the best of {draws} by score{among}, {searches} searches"
            yield Row(f"{label} of {draws}{among}", label not in METHODS, scores, cost, group, label)


def _spared(rows: Sequence[Row], searched: Searched, metric: str) -> Iterator[str]:
    """What the best of many by a score is, beside what an evolution finds; of cells kept aside where it can."""
    only, draws = max(searched.by_score)
    among = f", {ASIDE}" if only else ""
    named = {row.name: row for row in rows}
    evolved = named[EVOLUTION]
    for proxy in searched.by_score[only, draws]:
        row = named[f"{proxy} of {draws}{among}"]
        if proxy not in (RANDOM, OPTIMUM):
            said = f"{metric}: the best of {draws} by {proxy}{among} has {plus_minus(row.scores[metric])}"
            said += f", what {EVOLUTION} finds {plus_minus(evolved.scores[metric])}"
            if row.cost.flops:
                said += f" for {number(evolved.cost.flops / row.cost.flops)} times the FLOPs"
            yield f"{said}; a training of what was found is charged to neither."


def _correlated(ranked: Ranked, proxy: str, group: str, places: Sequence[int]) -> Row:
    scores, found = [ranked.scores[proxy][row] for row in places], {}
    for column, values in ranked.accuracies.items():
        tau = kendall_interval(scores, [values[row] for row in places])
        # a normal distribution's interval of 95 % is 3.92 sd wide
        found[f"τ, {column}"] = Score(tau.value, (tau.high - tau.low) / 3.92, tau.n)
    first = [next(iter(ranked.accuracies.values()))[row] for row in places]
    narrower: dict[str, Callable[[], float]] = {"τ, best tenth": partial(top, scores, first)}
    for size, told in zip(SIZES, ("τ, equal parameters", "τ, equal reached"), strict=True):
        sizes = [ranked.scores[size][row] for row in places]
        narrower[told] = partial(_within, scores, first, sizes)
    for name, measured in narrower.items():
        with suppress(ValueError):  # of few cells, none may be comparable
            found[name] = Score.of([measured()])
    return Row(f"{proxy}, {group}", proxy not in METHODS, found, _times(ranked.costs[proxy], len(places)), group, proxy)


def _within(scores: Sequence[float], accuracies: Sequence[float], sizes: Sequence[float]) -> float:
    return within_groups(scores, accuracies, sizes, resamples=1).value


def _told(ranked: Ranked, group: str, places: Sequence[int]) -> Iterator[str]:
    """Each method against the counts of parameters, and ours against the paper's, with intervals."""
    for column in ranked.accuracies:
        for proxy in METHODS:
            with suppress(ValueError):  # too few cells, or all alike, of which no row is told either
                if proxy in ranked.scores:
                    yield _beside(ranked, group, places, column, proxy)


def _beside(ranked: Ranked, group: str, places: Sequence[int], column: str, proxy: str) -> str:
    truth = [ranked.accuracies[column][row] for row in places]
    scores = [ranked.scores[proxy][row] for row in places]
    said = f"{group} ({len(places)}), {column}: τ of {proxy} is {_interval(kendall_interval(scores, truth))}"
    for size in SIZES:
        sizes = [ranked.scores[size][row] for row in places]
        said += f"; {_signed(difference_interval(scores, sizes, truth))} against {size}"
        with suppress(ValueError):
            said += f", and {_interval(within_groups(scores, truth, sizes))} among cells that are equal in them"
    if proxy != METHODS[0] and METHODS[0] in ranked.scores:
        other = [ranked.scores[METHODS[0]][row] for row in places]
        said += f"; {_signed(difference_interval(scores, other, truth))} against {METHODS[0]}"
    return f"{said}."


def _interval(tau: Tau) -> str:
    return f"{tau.value:.3f} [{tau.low:.3f}, {tau.high:.3f}]"


def _signed(tau: Tau) -> str:
    return f"{tau.value:+.3f} [{tau.low:+.3f}, {tau.high:+.3f}]"


def _explained(cells: Cells, searched: Searched, training_flops: float) -> list[str]:
    best = ", ".join(f"{value:.2f} ({column})" for column, value in searched.best.items())
    return [
        "± of τ is one standard error: the width of its 95 % bootstrap interval over cells, divided by 3.92, of one "
        "draw of weights. Brackets hold the interval itself.",
        "parameters counts all weights, also those of edges that are on no way from a cell's input to its output; "
        "reached_parameters only those that a gradient reaches.",
        f"Trainings are looked up, not done: a search sees {cells.validation}; the others tell what it chose.",
        f"A training is said to cost {training_flops:.3g} FLOPs, each alike: {cells.epochs} epochs of "
        f"{cells.epoch_images} images, of a cell of average FLOPs, a pass back counted as two forward; scores are "
        "charged in proportion. Rows are charged with their search alone, scoring or trainings, and the optimum, which "
        "no search knows, with a training of all it draws; what is found is then trained in full, whoever found it.",
        f"The best of the whole table have {best}.",
        "± of searches is the sd over searches of one table; all of them draw, a search by score without replacement, "
        "from the same scored cells, so that of many draws it is smaller than it were over the whole space.",
        f"The curves, and what is said of pairs, are of the first {DRAWN} searches.",
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
