"""The experiment's rows and pictures: every sampler's scores, costs, and what it drew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from shoestring.cost import Cost
from shoestring.evaluate.scores import Pair, Point, Report, Row, Scatter, Score
from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.recipe_arm import Outcome
from shoestring.methods.mixing.recipe_ground import Ground
from shoestring.methods.mixing.recipe_notes import OTHERS, TWIN, Settings, at, mean, title, told
from shoestring.methods.mixing.recipe_schema import FOLLOWERS, TWINS

LOSS, DEV, ACCURACY, MIXING = "test loss", "dev loss", "accuracy", "mixing, of FLOPs"


def report(
    name: str, found: Mapping[str, Sequence[Outcome]], settings: Settings, graph: Graph | None, ground: Ground
) -> Report:
    """Rows of all samplers. One of whose runs any diverged is left out and named in a note."""
    task, seeds = ground.task(), ground.recipe.seeds
    notes: list[str] = []
    whole = {sampler: outcomes for sampler, outcomes in found.items() if not _diverged(sampler, outcomes, notes)}
    left = [sampler for sampler in whole if sampler not in TWINS]
    if TWIN not in whole or not left:
        raise ValueError(f"too many runs diverged: {' '.join(notes)} Lower tuning.learning_rates")
    middle = _middle(whole["random"]) if task.answers and "random" in whole else None
    rows, points = [], []
    for sampler, outcomes in whole.items():
        extra = settings.graph_cost if sampler in FOLLOWERS else Cost()
        rows.append(_row(sampler, outcomes, extra, middle, task.answers))
        points += list(_points(sampler, outcomes, seeds, extra, task.answers))
    methods = [title(sampler) for sampler in left]
    pairs = [Pair(method, title(TWIN)) for method in methods]
    headline = title("skill-it") if "skill-it" in whole else methods[0]
    pairs += [Pair(headline, title(twin)) for twin in OTHERS if twin in whole]
    notes = [*told(whole, settings, graph, middle, task.answers), *notes]
    metric = ACCURACY if task.answers else LOSS
    facts = {
        "data": "; ".join(f"{source} {mark}" for source, mark in ground.data.items()) or "generated",
        "precision": ground.settled.why,
        "side by side": f"{ground.workers} at once",
    }
    return Report(
        "mixing",
        name,
        tuple(rows),
        tuple(points),
        tuple(pairs),
        metric,
        tuple(notes),
        facts,
        lower_is_better=not task.answers,
        scatters=tuple(_pictures(whole, task.answers)),
    )


def _diverged(sampler: str, outcomes: Sequence[Outcome], notes: list[str]) -> bool:
    lost = [outcome.diverged for outcome in outcomes if outcome.diverged]
    if lost:
        notes.append(f"{title(sampler)} is left out: {len(lost)} of {len(outcomes)} runs diverged ({lost[0]}).")
    return bool(lost)


def _middle(random: Sequence[Outcome]) -> int:
    """The measured step at which a random draw's mean accuracy is nearest to halfway from its first to its last.

    The first is that of the first measurement after the start: at the start a model may not know what an answer is.
    """
    steps = [point["step"] for point in random[0].points[1:]]
    places = range(1, len(random[0].points))
    curve = [fmean(mean(outcome.points[place]["accuracy"]) for outcome in random) for place in places]
    halfway = (curve[0] + curve[-1]) / 2
    return int(min(zip(steps, curve, strict=True), key=lambda point: abs(point[1] - halfway))[0])


def _row(sampler: str, outcomes: Sequence[Outcome], extra: Cost, middle: int | None, answers: bool) -> Row:
    scores = {}
    if answers:
        scores[ACCURACY] = Score.of(mean(outcome.points[-1]["accuracy"]) for outcome in outcomes)
    if middle is not None:
        scores[f"accuracy at step {middle}"] = Score.of(mean(at(outcome, middle)["accuracy"]) for outcome in outcomes)
    scores[LOSS] = Score.of(mean(outcome.points[-1]["loss"]) for outcome in outcomes)
    scores[DEV] = Score.of(outcome.mean_dev for outcome in outcomes)
    scores[MIXING] = Score.of(outcome.mixing for outcome in outcomes)
    costs = [outcome.cost + extra for outcome in outcomes]
    spent = Cost(
        **{
            key: (max if key == "peak_bytes" else fmean)([cost.as_dict()[key] for cost in costs])
            for key in costs[0].as_dict()
        }
    )
    return Row(title(sampler), sampler in TWINS, scores, spent)


def _points(
    sampler: str, outcomes: Sequence[Outcome], seeds: Sequence[int], extra: Cost, answers: bool
) -> Iterator[Point]:
    for seed, outcome in zip(seeds, outcomes, strict=True):
        for point in outcome.points:
            spent = Cost(**point["cost"]) + extra
            scores = {LOSS: mean(point["loss"])}
            if answers:
                scores[ACCURACY] = mean(point["accuracy"])
            yield Point(title(sampler), seed, point["step"], spent.tokens, spent.flops, spent.seconds, scores)


def _pictures(whole: Mapping[str, Sequence[Outcome]], answers: bool) -> Iterator[Scatter]:
    """Weights over rounds and loss by skill over steps, means over seeds.

    The last weights stand until the end. Where there are answers, losses are drawn from the first measurement after the
    start on: before it a model may not know what an answer is, and its loss would flatten all others.
    """
    for sampler, outcomes in whole.items():
        name = title(sampler)
        if sampler not in TWINS:
            weights = [
                (skill, float(entries[0][0]), fmean(entry[1][skill] for entry in entries))
                for entries in zip(*map(_until_the_end, outcomes), strict=False)
                for skill in entries[0][1]
            ]
            says = f"The share of each skill after each round of {name}, mean over seeds."
            if weights:
                yield Scatter(name, "step", "weight", tuple(weights), says, joined=True)
        losses = [
            (skill, float(points[0]["step"]), fmean(point["loss"][skill] for point in points))
            for points in zip(*(outcome.points[1 if answers else 0 :] for outcome in outcomes), strict=True)
            for skill in points[0]["loss"]
        ]
        yield Scatter(
            name, "step", "test loss by skill", tuple(losses), f"Test loss of each skill under {name}.", joined=True
        )


def _until_the_end(outcome: Outcome) -> list[Any]:
    """[step, weights] as they were set, the last again at the last step."""
    return [*outcome.weights, *([outcome.points[-1]["step"], one[1]] for one in outcome.weights[-1:])]
