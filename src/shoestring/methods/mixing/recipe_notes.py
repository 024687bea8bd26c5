"""What the experiment's report says in words: what was chosen, what was learned, who is ahead of whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from shoestring.cost import Cost
from shoestring.evaluate.quantities import number, plus_minus
from shoestring.evaluate.scores import Score
from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.recipe_arm import Outcome
from shoestring.methods.mixing.recipe_schema import TWINS
from shoestring.methods.mixing.usefulness import usefulness

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


def told(
    whole: Mapping[str, Sequence[Outcome]], settings: Settings, graph: Graph | None, middle: int | None, answers: bool
) -> Iterator[str]:
    """The notes of samplers none of whose runs diverged.

    middle   the step at which accuracies are compared besides the end
    answers  whether there are accuracies
    """
    yield from _chosen(settings)
    yield from _graph(graph, settings, whole)
    yield from _against(whole, middle, answers)
    yield from _mixing(whole)
    yield from _repeats(whole)
    yield "Samplers and choices see dev; scores, curves and savings are of test, which none of them saw."


def tuned(sampler: str) -> str:
    """What is chosen for a sampler on dev, by name: eta, or the share of the target."""
    return title(sampler) if sampler == "fixed share" else f"eta of {sampler}"


def title(sampler: str) -> str:
    """A sampler's row."""
    return NAMES.get(sampler, sampler)


def mean(losses: Mapping[str, float]) -> float:
    """Over skills, each alike."""
    return fmean(losses.values())


def at(outcome: Outcome, step: int) -> dict[str, Any]:
    """What a run showed at a step it was measured at."""
    return next(point for point in outcome.points if point["step"] == step)


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
        yield f"{title('skill-it given')} carries no price of its graph, which was given."
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
        what: {sampler: fmean(mean(one.points[-1][what]) for one in outcomes) for sampler, outcomes in whole.items()}
        for what in (("loss", "accuracy") if answers else ("loss",))
    }
    best = min(whole, key=ends["loss"].__getitem__)
    right = max(whole, key=ends["accuracy"].__getitem__) if answers else best
    yield f"Lowest mean test loss at the end: {title(best)}."
    if answers:
        yield f"Highest mean test accuracy at the end: {title(right)}."
    for sampler in dict.fromkeys((best, right)):
        if sampler in TWINS and sampler != TWIN:
            yield _paired(sampler, TWIN, whole[sampler], whole[TWIN], middle, answers)


def _paired(
    sampler: str, twin: str, ours: Sequence[Outcome], theirs: Sequence[Outcome], middle: int | None, answers: bool
) -> str:
    def differences(what: str, step: int | None, scale: float) -> Score:
        pairs = zip(ours, theirs, strict=True)
        ends = [
            (one.points[-1], two.points[-1]) if step is None else (at(one, step), at(two, step)) for one, two in pairs
        ]
        return Score.of(scale * (mean(one[what]) - mean(two[what])) for one, two in ends)

    said = f"{title(sampler)} less {title(twin)}, paired by seed: test loss {plus_minus(differences('loss', None, 1))}"
    if answers:
        said += f", accuracy {plus_minus(differences('accuracy', None, 100))} points"
    if middle is not None:
        said += f", at step {middle} {plus_minus(differences('accuracy', middle, 100))} points"
    return said + "."


def _mixing(whole: Mapping[str, Sequence[Outcome]]) -> Iterator[str]:
    shares = {sampler: max(outcome.mixing for outcome in outcomes) for sampler, outcomes in whole.items()}
    told = ", ".join(f"{title(sampler)} {share:.1%}" for sampler, share in shares.items() if share)
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
        f"{title(sampler)} {found[0]:.1f} ({found[1]})" for sampler, found in most.items() if found and found[0] > 1
    )
    if told:
        yield f"Most epochs of a skill: {told}."
