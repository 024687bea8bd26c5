"""The experiment's rows, notes and pictures: every sampler's scores, costs, and what it drew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from shoestring.cost import Cost
from shoestring.evaluate.quantities import number, plus_minus
from shoestring.evaluate.scores import Pair, Point, Report, Row, Scatter, Score
from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.recipe_arm import Outcome
from shoestring.methods.mixing.recipe_ground import Ground
from shoestring.methods.mixing.recipe_schema import FOLLOWERS, TWINS
from shoestring.methods.mixing.usefulness import usefulness

LOSS, DEV, ACCURACY, MIXING = "test loss", "dev loss", "accuracy", "mixing, of FLOPs"
TWIN = "stratified"
OTHERS = ("random", "target only", "fixed share")  # twins that each method is held against too
NAMES = {
    "random": "random, by size",
    "static": "Skill-It, static (T = 1)",
    "skill-it": "Skill-It",
    "skill-it given": "Skill-It, the paper's graph",
    "skill-it identity": "Skill-It, no graph (identity)",
    "aioli": "Aioli",
    "fixed share": "a fixed share of the target",
}


@dataclass
class Settings:
    """What was chosen before the rows were run.

    rates    eta, or the share, by sampler
    tried    what was chosen among: mean dev loss by value
    graph_cost  of all trainings that the graph was learned from
    """

    learning_rate: float = 0.0
    rates: dict[str, float] = field(default_factory=dict)
    tried: dict[str, dict[float, float]] = field(default_factory=dict)
    graph_cost: Cost = field(default_factory=Cost)


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
    methods = [_title(sampler) for sampler in left]
    pairs = [Pair(method, _title(TWIN)) for method in methods]
    headline = _title("skill-it") if "skill-it" in whole else methods[0]
    pairs += [Pair(headline, _title(twin)) for twin in OTHERS if twin in whole]
    notes = [*_chosen(settings), *_graph(graph, settings, whole), *_against(whole, middle, task.answers), *notes]
    notes += [*_mixing(whole), *_repeats(whole)]
    notes.append("Samplers and choices see dev; scores, curves and savings are of test, which none of them saw.")
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


def tuned(sampler: str) -> str:
    """What is chosen for a sampler on dev, by name: eta, or the share of the target."""
    return _title(sampler) if sampler == "fixed share" else f"eta of {sampler}"


def _title(sampler: str) -> str:
    return NAMES.get(sampler, sampler)


def _mean(losses: Mapping[str, float]) -> float:
    return fmean(losses.values())


def _diverged(sampler: str, outcomes: Sequence[Outcome], notes: list[str]) -> bool:
    lost = [outcome.diverged for outcome in outcomes if outcome.diverged]
    if lost:
        notes.append(f"{_title(sampler)} is left out: {len(lost)} of {len(outcomes)} runs diverged ({lost[0]}).")
    return bool(lost)


def _middle(random: Sequence[Outcome]) -> int:
    """The measured step at which a random draw's mean accuracy is nearest to halfway from its first to its last.

    The first is that of the first measurement after the start: at the start a model may not know what an answer is.
    """
    steps = [point["step"] for point in random[0].points[1:]]
    places = range(1, len(random[0].points))
    curve = [fmean(_mean(outcome.points[place]["accuracy"]) for outcome in random) for place in places]
    halfway = (curve[0] + curve[-1]) / 2
    return int(min(zip(steps, curve, strict=True), key=lambda point: abs(point[1] - halfway))[0])


def _at(outcome: Outcome, step: int) -> dict[str, Any]:
    return next(point for point in outcome.points if point["step"] == step)


def _row(sampler: str, outcomes: Sequence[Outcome], extra: Cost, middle: int | None, answers: bool) -> Row:
    scores = {}
    if answers:
        scores[ACCURACY] = Score.of(_mean(outcome.points[-1]["accuracy"]) for outcome in outcomes)
    if middle is not None:
        scores[f"accuracy at step {middle}"] = Score.of(_mean(_at(outcome, middle)["accuracy"]) for outcome in outcomes)
    scores[LOSS] = Score.of(_mean(outcome.points[-1]["loss"]) for outcome in outcomes)
    scores[DEV] = Score.of(outcome.mean_dev for outcome in outcomes)
    scores[MIXING] = Score.of(outcome.mixing for outcome in outcomes)
    costs = [outcome.cost + extra for outcome in outcomes]
    mean = Cost(
        **{
            key: (max if key == "peak_bytes" else fmean)([cost.as_dict()[key] for cost in costs])
            for key in costs[0].as_dict()
        }
    )
    return Row(_title(sampler), sampler in TWINS, scores, mean)


def _points(
    sampler: str, outcomes: Sequence[Outcome], seeds: Sequence[int], extra: Cost, answers: bool
) -> Iterator[Point]:
    for seed, outcome in zip(seeds, outcomes, strict=True):
        for point in outcome.points:
            spent = Cost(**point["cost"]) + extra
            scores = {LOSS: _mean(point["loss"])}
            if answers:
                scores[ACCURACY] = _mean(point["accuracy"])
            yield Point(_title(sampler), seed, point["step"], spent.tokens, spent.flops, spent.seconds, scores)


def _chosen(settings: Settings) -> Iterator[str]:
    yield f"Learning rate {settings.learning_rate:g} for all."
    for what, tried in settings.tried.items():
        listed = ", ".join(f"{value:g}: {number(loss, 4)}" for value, loss in tried.items())
        yield f"Chosen by mean dev loss at other seeds, {what}: {min(tried, key=tried.__getitem__):g} ({listed})."
    if any(tuned(sampler) in settings.tried for sampler in settings.rates):
        yield "The runs that eta and the learning rate were chosen by are in no row's cost."
    alone = {sampler: rate for sampler, rate in settings.rates.items() if tuned(sampler) not in settings.tried}
    if alone:
        yield f"Not tuned: {', '.join(f'{tuned(sampler)} ({rate:g})' for sampler, rate in alone.items())}."


def _graph(graph: Graph | None, settings: Settings, whole: Mapping[str, Sequence[Outcome]]) -> Iterator[str]:
    if "skill-it given" in whole:
        yield f"{_title('skill-it given')} carries no price of its graph, which was given."
    if graph is None:
        return
    found = usefulness(graph)
    yield f"Learned: {found.sentence}."
    if not found.useful:
        yield "Measured all the same: by default the hook would have stayed stratified."
    cost = settings.graph_cost
    yield (
        f"The graph took {graph.learned['trainings']} short trainings, {number(cost.flops / 1e9)} GFLOP, "
        "which the rows that follow it carry whole."
    )


def _against(whole: Mapping[str, Sequence[Outcome]], middle: int | None, answers: bool) -> Iterator[str]:
    """Each method against its twins, by paired seeds."""
    for twin in (TWIN, *OTHERS):
        if twin not in whole:
            continue
        for sampler, outcomes in whole.items():
            if sampler not in TWINS:
                yield _paired(sampler, twin, outcomes, whole[twin], middle, answers)
    ends = {
        what: {sampler: fmean(_mean(one.points[-1][what]) for one in outcomes) for sampler, outcomes in whole.items()}
        for what in (("loss", "accuracy") if answers else ("loss",))
    }
    best = min(whole, key=ends["loss"].__getitem__)
    right = max(whole, key=ends["accuracy"].__getitem__) if answers else best
    yield f"Lowest mean test loss at the end: {_title(best)}."
    if answers:
        yield f"Highest mean test accuracy at the end: {_title(right)}."
    for sampler in dict.fromkeys((best, right)):
        if sampler in TWINS and sampler != TWIN:
            yield _paired(sampler, TWIN, whole[sampler], whole[TWIN], middle, answers)


def _paired(
    sampler: str, twin: str, ours: Sequence[Outcome], theirs: Sequence[Outcome], middle: int | None, answers: bool
) -> str:
    def differences(what: str, step: int | None, scale: float) -> Score:
        pairs = zip(ours, theirs, strict=True)
        ends = [
            (one.points[-1], two.points[-1]) if step is None else (_at(one, step), _at(two, step)) for one, two in pairs
        ]
        return Score.of(scale * (_mean(one[what]) - _mean(two[what])) for one, two in ends)

    said = (
        f"{_title(sampler)} less {_title(twin)}, paired by seed: test loss {plus_minus(differences('loss', None, 1))}"
    )
    if answers:
        said += f", accuracy {plus_minus(differences('accuracy', None, 100))} points"
    if middle is not None:
        said += f", at step {middle} {plus_minus(differences('accuracy', middle, 100))} points"
    return said + "."


def _mixing(whole: Mapping[str, Sequence[Outcome]]) -> Iterator[str]:
    shares = {sampler: max(outcome.mixing for outcome in outcomes) for sampler, outcomes in whole.items()}
    told = ", ".join(f"{_title(sampler)} {share:.1%}" for sampler, share in shares.items() if share)
    if told:
        yield f"What samplers measured, at most, of their runs' FLOPs: {told}."


def _repeats(whole: Mapping[str, Sequence[Outcome]]) -> Iterator[str]:
    most = {
        sampler: max(
            ((epochs, skill) for outcome in outcomes for skill, epochs in outcome.epochs.items()), default=None
        )
        for sampler, outcomes in whole.items()
    }
    told = ", ".join(
        f"{_title(sampler)} {found[0]:.1f} ({found[1]})" for sampler, found in most.items() if found and found[0] > 1
    )
    if told:
        yield f"Most epochs of a skill: {told}."


def _pictures(whole: Mapping[str, Sequence[Outcome]], answers: bool) -> Iterator[Scatter]:
    """Weights over rounds and loss by skill over steps, means over seeds.

    The last weights stand until the end. Where there are answers, losses are drawn from the first measurement after the
    start on: before it a model may not know what an answer is, and its loss would flatten all others.
    """
    for sampler, outcomes in whole.items():
        title = _title(sampler)
        if sampler not in TWINS:
            weights = [
                (skill, float(entries[0][0]), fmean(entry[1][skill] for entry in entries))
                for entries in zip(*map(_until_the_end, outcomes), strict=False)
                for skill in entries[0][1]
            ]
            says = f"The share of each skill after each round of {title}, mean over seeds."
            if weights:
                yield Scatter(title, "step", "weight", tuple(weights), says, joined=True)
        losses = [
            (skill, float(points[0]["step"]), fmean(point["loss"][skill] for point in points))
            for points in zip(*(outcome.points[1 if answers else 0 :] for outcome in outcomes), strict=True)
            for skill in points[0]["loss"]
        ]
        yield Scatter(
            title, "step", "test loss by skill", tuple(losses), f"Test loss of each skill under {title}.", joined=True
        )


def _until_the_end(outcome: Outcome) -> list[Any]:
    """[step, weights] as they were set, the last again at the last step."""
    return [*outcome.weights, *([outcome.points[-1]["step"], one[1]] for one in outcome.weights[-1:])]
