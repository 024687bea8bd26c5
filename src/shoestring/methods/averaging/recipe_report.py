"""The experiment's rows: what was chosen on dev, and how it and its twins scored and what they cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

from shoestring.cost import Cost
from shoestring.evaluate.quantities import plus_minus
from shoestring.evaluate.scores import Pair, Point, Report, Row, Score
from shoestring.methods.averaging.recipe_run import Outcome
from shoestring.methods.averaging.recipe_schema import Recipe
from shoestring.methods.averaging.recipe_watch import RAW, Watched

TEST, DEV = "test loss", "dev loss"
LAWA, EMA, COOL = "LAWA", "EMA, tuned", "cool-down"


def report(recipe: Recipe, name: str, outcomes: Sequence[Outcome], facts: Mapping[str, str]) -> Report:
    """Rows, points and pairs of all groups. A group whose runs diverged is left out and named in a note."""
    rows: list[Row] = []
    points: list[Point] = []
    pairs: list[Pair] = []
    notes: list[str] = []
    for (schedule, rate), found in groupby(outcomes, key=lambda outcome: (outcome.schedule, outcome.rate)):
        group = f"{schedule} learning rate {rate:g}"
        seeds = _whole(list(found), group, notes)
        if not seeds:
            continue
        chosen = Chosen.on_dev(recipe, seeds)
        notes.append(f"{group}: chosen on dev over all seeds: {chosen.sentence(recipe)}.")
        for row in _group(group, seeds, chosen):
            rows.append(row.row)
            points.extend(row.points)
        pairs.extend(_pairs(group, [row for row in rows if row.group == group]))
        notes.extend(_raw_alone(group, seeds))
        notes.extend(_warned(group, seeds))
        if recipe.spike is not None and schedule == "constant":
            accident = f"{group}, spike"
            for row in _spiked(accident, seeds, chosen, notes):
                rows.append(row.row)
                points.extend(row.points)
    if not rows:
        raise ValueError(f"every run diverged: {'; '.join(notes)}: lower the learning rates")
    notes.append(
        "Windows, decays and cool-downs are chosen on dev; scores, curves and savings are of test, which no choice saw."
    )
    notes.append(
        "Peak memory is the whole process's: of the raw run before the first snapshot, of averaged ones while all "
        "windows and decays that were tried were held."
    )
    return Report("averaging", name, tuple(rows), tuple(points), tuple(pairs), TEST, tuple(notes), facts)


def best(recipe: Recipe, outcomes: Sequence[Outcome]) -> tuple[Outcome, list[int]]:
    """The trajectory whose LAWA average ended lowest on dev, and the steps that are averaged."""
    ends: list[tuple[float, Outcome, list[int]]] = []
    for _, found in groupby(outcomes, key=lambda outcome: (outcome.schedule, outcome.rate)):
        seeds = _whole(list(found), "", [])
        if seeds:
            chosen = Chosen.on_dev(recipe, seeds)
            for one in seeds:
                ends.append((one.runs["trunk"].points[-1]["dev"][chosen.window], one, chosen.steps(recipe)))
    _, outcome, steps = min(ends, key=lambda end: end[0])
    return outcome, steps


class Chosen:
    """The window, the decay and the cool-down of a group, by mean dev loss over all seeds."""

    def __init__(self, window: str, ema: str, cooldown: str | None) -> None:
        self.window, self.ema, self.cooldown = window, ema, cooldown

    @classmethod
    def on_dev(cls, recipe: Recipe, seeds: Sequence[Outcome]) -> Chosen:
        """Averages by their mean over the second half of the run, cool-downs by their end."""
        late: dict[str, list[float]] = {}
        for outcome in seeds:
            for point in outcome.runs["trunk"].points:
                if point["step"] > recipe.steps // 2:
                    for name, value in point["dev"].items():
                        late.setdefault(name, []).append(value)
        most = max(len(values) for values in late.values())
        means = {name: statistics.fmean(values) for name, values in late.items() if len(values) == most}
        ends = {
            name: statistics.fmean(outcome.runs[name].points[-1]["dev"][RAW] for outcome in seeds)
            for name in seeds[0].runs
            if name.startswith("cool-down")
        }
        window = min((name for name in means if name.startswith("window")), key=means.__getitem__)
        ema = min((name for name in means if name.startswith("ema")), key=means.__getitem__)
        return cls(window, ema, min(ends, key=ends.__getitem__) if ends else None)

    def steps(self, recipe: Recipe) -> list[int]:
        """The steps of the last window, oldest first."""
        count, stride = self._window()
        return [recipe.steps - index * stride for index in reversed(range(count))]

    def _window(self) -> tuple[int, int]:
        count, stride = self.window.removeprefix("window ").split("x")
        return int(count), int(stride)

    def sentence(self, recipe: Recipe) -> str:
        count, stride = self._window()
        said = f"{LAWA} of the latest {count} weights, {stride} steps apart; "
        said += f"EMA of decay {self.ema.removeprefix('ema ')} moved every {recipe.averages.every} steps"
        if self.cooldown is not None:
            said += f"; a linear cool-down over the last {float(self.cooldown.split()[1]):.0%} of the run"
        return said


class _Built:
    def __init__(self, row: Row, points: Sequence[Point]) -> None:
        self.row, self.points = row, points


def _group(group: str, seeds: Sequence[Outcome], chosen: Chosen) -> list[_Built]:
    candidates = [(RAW, RAW, True), (LAWA, chosen.window, False), (EMA, chosen.ema, True)]
    built = [
        _row(group, label, twin, seeds, partial(_candidate_points, candidate=name), name)
        for label, name, twin in candidates
    ]
    if chosen.cooldown is not None:
        cooldown = chosen.cooldown
        along = partial(_branch_points, run=cooldown, candidate=RAW)
        built.append(_row(group, COOL, True, seeds, along, RAW, cooldown))
    return built


Along = Callable[[Outcome], list[tuple[int, Cost, float]]]


def _row(
    group: str, label: str, twin: bool, seeds: Sequence[Outcome], along: Along, candidate: str, run: str = "trunk"
) -> _Built:
    """A row and its points. along: (step, cost so far, test loss) of one seed."""
    name = f"{label}, {group}"
    paths = {outcome.seed: along(outcome) for outcome in seeds}
    ends = [outcome.runs[run].points[-1] for outcome in seeds]
    scores = {
        TEST: Score.of(end["test"][candidate][0] for end in ends),
        "bits per byte": Score.of(end["test"][candidate][1] for end in ends),
        DEV: Score.of(end["dev"][candidate] for end in ends),
    }
    points = [
        Point(name, seed, step, cost.tokens, cost.flops, cost.seconds, {TEST: value})
        for seed, path in paths.items()
        for step, cost, value in path
    ]
    return _Built(Row(name, twin, scores, _mean(path[-1][1] for path in paths.values()), group, label), points)


def _candidate_points(outcome: Outcome, candidate: str) -> list[tuple[int, Cost, float]]:
    return _trunk_points(outcome.runs["trunk"], candidate)


def _trunk_points(watched: Watched, candidate: str) -> list[tuple[int, Cost, float]]:
    found = []
    for point in watched.points:
        if candidate in point["test"]:
            cost = Cost(**point["cost"]) + Cost(**point["own"][candidate])
            if candidate == RAW:
                cost = replace(cost, peak_bytes=watched.raw_peak_bytes)
            found.append((int(point["step"]), cost, float(point["test"][candidate][0])))
    return found


def _branch_points(outcome: Outcome, run: str, candidate: str) -> list[tuple[int, Cost, float]]:
    """Points of a branch, which has also paid for the trunk up to where it left it."""
    branch = outcome.runs[run]
    start = branch.start
    before = next((Cost(**p["cost"]) for p in outcome.runs["trunk"].points if p["step"] == start), Cost())
    before = replace(before, peak_bytes=outcome.runs["trunk"].raw_peak_bytes)
    return [(step, before + cost, value) for step, cost, value in _trunk_points(branch, candidate)]


def _spiked(group: str, seeds: Sequence[Outcome], chosen: Chosen, notes: list[str]) -> list[_Built]:
    """How each rode the injected spike: its worst test loss, and the steps until it was back where raw had been."""
    whole = [outcome for outcome in seeds if not outcome.runs["spike"].diverged]
    for outcome in seeds:
        if outcome not in whole:
            notes.append(f"{group}, seed {outcome.seed}: {outcome.runs['spike'].diverged}; it is not in the table.")
    if not whole:
        return []
    built = []
    for label, candidate, twin in [(RAW, RAW, True), (LAWA, chosen.window, False), (EMA, chosen.ema, True)]:
        along = partial(_branch_points, run="spike", candidate=candidate)
        row = _row(group, label, twin, whole, along, candidate, "spike")
        scores = {TEST: row.row.scores[TEST]}
        scores["worst loss"] = Score.of(max(_values(outcome, candidate)) for outcome in whole)
        steps = [_recovery(outcome, candidate) for outcome in whole]
        recovered = [float(step) for step in steps if step is not None]
        if recovered:
            scores["recovery steps"] = Score.of(recovered)
        if len(recovered) < len(whole):
            notes.append(
                f"{group}: {label} was not back at the loss before the spike by the end of the stretch in "
                f"{len(whole) - len(recovered)} of {len(whole)} seeds."
            )
        built.append(_Built(replace(row.row, scores=scores), row.points))
    return built


def _values(outcome: Outcome, candidate: str) -> list[float]:
    return [p["test"][candidate][0] for p in outcome.runs["spike"].points if candidate in p["test"]]


def _recovery(outcome: Outcome, candidate: str) -> int | None:
    """Steps from the spike until the candidate is as good as it was at the spike itself, for good or not."""
    branch, trunk = outcome.runs["spike"], outcome.runs["trunk"]
    goal = next(p["test"][candidate][0] for p in trunk.points if p["step"] == branch.start)
    path = [(int(p["step"]), p["test"][candidate][0]) for p in branch.points if candidate in p["test"]]
    worst = max(range(len(path)), key=lambda index: path[index][1])
    return next((step - int(branch.start or 0) for step, value in path[worst:] if value <= goal), None)


def _pairs(group: str, rows: Sequence[Row]) -> list[Pair]:
    names = {row.label: row.name for row in rows}
    wanted = [(LAWA, RAW), (LAWA, EMA), (LAWA, COOL), (EMA, RAW)]
    return [Pair(names[method], names[twin]) for method, twin in wanted if method in names and twin in names]


def _whole(found: list[Outcome], group: str, notes: list[str]) -> list[Outcome]:
    kept = []
    for outcome in found:
        lost = [run.diverged for name, run in outcome.runs.items() if run.diverged and name != "spike"]
        if lost:
            notes.append(f"{group}, seed {outcome.seed}, diverged and is not in the table: {lost[0]}.")
        else:
            kept.append(outcome)
    return kept


def _raw_alone(group: str, seeds: Sequence[Outcome]) -> list[str]:
    """A noisy run passes its own last loss before its end; savings are to be read against that."""
    fractions = []
    for outcome in seeds:
        path = _trunk_points(outcome.runs["trunk"], RAW)
        first = next(step for step, _, value in path if value <= path[-1][2])
        fractions.append(100 * first / path[-1][0])
    score = Score.of(fractions)
    return [f"{group}: the raw run itself first touched its final test loss after {plus_minus(score)} % of its steps."]


def _warned(group: str, seeds: Sequence[Outcome]) -> list[str]:
    doubtful = [outcome.runs["trunk"].warnings for outcome in seeds if outcome.runs["trunk"].warnings]
    if not doubtful:
        return []
    said = f"in {len(doubtful)} of {len(seeds)} seeds something speaks against averaging all snapshots held at the end"
    return [f"{group}: {said}, such as: {doubtful[0][-1]}"]


def _mean(costs: Any) -> Cost:
    listed = [cost.as_dict() for cost in costs]
    return Cost(**{name: statistics.fmean(cost[name] for cost in listed) for name in listed[0]})
