"""The experiment's rows and pictures: how likely each arm finds a span, what it cost, and how it does on the tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from shoestring.cost import Cost
from shoestring.evaluate.quantities import number, plus_minus
from shoestring.evaluate.scores import Pair, Point, Report, Row, Score
from shoestring.methods.permutation.recipe_ground import Ground
from shoestring.methods.permutation.recipe_held import APART, CLOZE, JOINT, REMEMBERED
from shoestring.methods.permutation.recipe_plan import Plan
from shoestring.methods.permutation.recipe_pretrain import Job, Outcome
from shoestring.methods.permutation.recipe_schema import ARMS, MASKED, PERMUTATION, PLAIN

DEV = f"dev {JOINT}"


def report(name: str, outcomes: Mapping[Job, Outcome], chosen: Plan, ground: Ground) -> Report:
    """Rows of all arms. One of which any run diverged is left out and named in a note."""
    found: dict[str, list[tuple[Job, Outcome]]] = {}
    for job, outcome in outcomes.items():
        found.setdefault(job.arm, []).append((job, outcome))
    notes = []
    for arm in [arm for arm, some in found.items() if any(one.diverged for _, one in some)]:
        reason = next(one.diverged for _, one in found.pop(arm) if one.diverged)
        notes.append(f"{arm} is left out, a run diverged ({reason}).")
    if PERMUTATION not in found or MASKED not in found:
        raise ValueError(f"too many runs diverged: {' '.join(notes)} Lower tuning.learning_rates")
    rows = tuple(_row(arm, [one for _, one in some], ground) for arm, some in found.items())
    points = tuple(point for arm, some in found.items() for job, one in some for point in _points(arm, job, one))
    pairs = tuple(Pair(PERMUTATION, arm) for arm in found if arm != PERMUTATION)
    facts = {
        "data": "; ".join(f"{source} {mark}" for source, mark in ground.data.items()),
        "precision": ground.settled.why,
        "side by side": f"{ground.workers} at once",
    }
    told = (*_told(found, chosen, ground), *notes)
    return Report("permutation", name, rows, points, pairs, JOINT, told, facts)


def _row(arm: str, outcomes: Sequence[Outcome], ground: Ground) -> Row:
    ends = [one.points[-1] for one in outcomes]
    scores = {
        metric: Score.of(end["test"][metric] for end in ends)
        for metric in (JOINT, REMEMBERED, APART, CLOZE)
        if metric in ends[0]["test"]
    }
    for task in outcomes[0].tasks:
        scores[f"{task} accuracy"] = Score.of(one.tasks[task]["test"] for one in outcomes)
    scores[DEV] = Score.of(end["dev"][JOINT] for end in ends)
    costs = [one.cost.as_dict() for one in outcomes]
    spent = Cost(**{key: (max if key == "peak_bytes" else fmean)([cost[key] for cost in costs]) for key in costs[0]})
    return Row(arm, not ground.recipe.arm(arm).method, scores, spent)


def _points(arm: str, job: Job, outcome: Outcome) -> Iterator[Point]:
    for point in outcome.points:
        cost = Cost(**point["cost"])
        scores = {JOINT: float(point["test"][JOINT])}
        yield Point(arm, job.seed, int(point["step"]), cost.tokens, cost.flops, cost.seconds, scores)


def _told(found: Mapping[str, list[tuple[Job, Outcome]]], chosen: Plan, ground: Ground) -> Iterator[str]:
    longest = ground.recipe.held.longest
    yield (
        f"A span has 2 to {longest} tokens, as many of each length, and what stands on both sides is given; the "
        "autoregressive arm sees what stands before alone. A masked model is told a span token by token, in as many "
        "passes; apart, each token is told without the others. All see one window; with "
        "memory, an arm that has one is told what stands before the window, too."
    )
    yield (
        "Scored is what is read forward and, but for the column with memory, by itself: an arm that was taught to read "
        "backward, too, or with a memory is scored in a part of what it learnt. It is plain text, as the "
        "autoregressive arm was taught; the others were taught on two segments with separators, as all are fine-tuned."
    )
    if PLAIN in found:
        yield f"{PLAIN} and {MASKED} alone are taught and scored in one setting, but for how many tokens are predicted."
    tried = ground.recipe.tuning.learning_rates
    if len(tried) > 1:
        rates = "; ".join(f"{arm} {chosen.rates[arm]:g} for {chosen.steps[arm]:,} steps" for arm in found)
        chose = "Learning rates, chosen on dev for each arm, which is in no row's cost, and steps, at equal FLOPs"
        yield f"{chose}: {rates}."
    else:
        steps = "; ".join(f"{arm} {chosen.steps[arm]:,}" for arm in found)
        yield f"All arms have the learning rate {tried[0]:g}: none was chosen here. Steps, at equal FLOPs: {steps}."
    ends = [arm for arm in found if chosen.rates[arm] in (min(tried), max(tried)) and len(tried) > 1]
    if ends:
        yield f"At the end of the rates tried, so that a better one may lie beyond: {', '.join(ends)}."
    yield from _apart(found)
    for arm, some in found.items():
        gains = [
            one.points[-1]["test"][APART] - one.points[-1]["test"][JOINT]
            for _, one in some
            if APART in one.points[-1]["test"]
        ]
        if gains:
            yield f"{arm}: telling a span as one event saves {plus_minus(Score.of(gains))} nats over its tokens apart."
    tasks = next(iter(found.values()))[0][1].tasks
    if tasks:
        used = {task: sorted({one.tasks[task]["rate"] for some in found.values() for _, one in some}) for task in tasks}
        said = "; ".join(f"{task} {', '.join(f'{rate:g}' for rate in rates)}" for task, rates in used.items())
        yield f"Fine-tuning took the rate that was best on dev, run by run: {said}. Its cost is in no row."
    yield f"FLOPs of a step: {'; '.join(f'{arm} {number(chosen.flops[arm] / 1e9)} G' for arm in found)}."


def _apart(found: Mapping[str, list[tuple[Job, Outcome]]]) -> Iterator[str]:
    """How far the method is from its twins, and what was taken from it from the whole."""
    ends = {arm: {job.seed: float(one.points[-1]["test"][JOINT]) for job, one in some} for arm, some in found.items()}
    twins = [arm for arm in found if not ARMS[arm].method]
    for arm in found:
        if ARMS[arm].method:
            others = twins if arm in (PERMUTATION, PLAIN) else [PERMUTATION]
            less = [
                (other, Score.of(ends[arm][seed] - value for seed, value in ends[other].items())) for other in others
            ]
            told = "; ".join(f"{plus_minus(by)} to {other}" for other, by in less)
            yield f"{arm}, {JOINT} more, paired by seed: {told}."
