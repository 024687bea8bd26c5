"""The experiment's rows and pictures: what each arm scored, what it cost, and how both go with labels and size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from statistics import fmean

from shoestring.cost import Cost
from shoestring.evaluate.scores import Pair, Point, Report, Row, Scatter, Score
from shoestring.methods.rationale.recipe_arm import Arm, Outcome
from shoestring.methods.rationale.recipe_ground import Ground
from shoestring.methods.rationale.recipe_lessons import asks
from shoestring.methods.rationale.recipe_notes import Found, learnt, told
from shoestring.methods.rationale.recipe_plan import Cell, Plan
from shoestring.methods.rationale.recipe_schema import DISTILLED, MATCHED, METHODS, STANDARD, TWO_TASK

ACCURACY, WRITTEN, DEV = "test accuracy", "test accuracy, written", "dev accuracy"


def report(name: str, outcomes: Mapping[Arm, Outcome], chosen: Plan, ground: Ground, asked: Cost) -> Report:
    """Rows of all arms, cell by cell. An arm of which any run diverged is left out of its cell and named in a note.

    asked  what the teacher took, which every arm that needs it carries whole
    """
    found: Found = {}
    lost = []
    for arm, outcome in outcomes.items():
        cell = Cell(arm.model, arm.task, arm.fraction)
        found.setdefault(cell, {}).setdefault(arm.name, []).append(outcome)
    for cell, arms in found.items():
        for arm_name in [name for name, some in arms.items() if any(one.diverged for one in some)]:
            reason = next(one.diverged for one in arms.pop(arm_name) if one.diverged)
            lost.append(f"{title(cell, ground)}: {arm_name} is left out, a run diverged ({reason}).".lstrip(": "))
    for cell in [cell for cell, arms in found.items() if STANDARD not in arms or TWO_TASK not in arms]:
        lost.append(f"{title(cell, ground)}: left out whole, as {STANDARD} or {TWO_TASK} is.".lstrip(": "))
        del found[cell]
    if not found:
        raise ValueError(f"too many runs diverged: {' '.join(lost)} Lower tuning.learning_rates")
    several = len(found) > 1
    twins = (STANDARD,) if several else (STANDARD, DISTILLED, MATCHED)
    rows = [_row(cell, arm, some, ground, asked) for cell, arms in found.items() for arm, some in arms.items()]
    points = [
        point
        for cell, arms in found.items()
        for arm, some in arms.items()
        for point in _points(cell, arm, some, ground)
    ]
    pairs = [
        Pair(_name(cell, TWO_TASK, ground), _name(cell, twin, ground))
        for cell, arms in found.items()
        for twin in twins
        # of several comparisons, those with a twin that only guesses have nothing to say of what was saved
        if twin in arms and (not several or learnt(arms[twin], ground.tasks[cell.task]))
    ]
    facts = {
        "data": "; ".join(f"{source} {mark}" for source, mark in ground.data.items()) or "generated",
        "precision": "; ".join(f"{start.name}: {start.settled.why}" for start in ground.starts.values()),
        "side by side": f"{ground.workers} at once",
    }
    return Report(
        "rationale",
        name,
        tuple(rows),
        tuple(points),
        tuple(pairs),
        ACCURACY,
        (*told(found, chosen, ground, lambda cell: title(cell, ground)), *lost),
        facts,
        lower_is_better=False,
        scatters=tuple(_pictures(found, ground)),
    )


def title(cell: Cell, ground: Ground) -> str:
    """What tells a cell from the others; nothing where there is one."""
    recipe = ground.recipe
    parts = []
    if len(ground.tasks) > 1:
        parts.append(cell.task)
    if len(recipe.fractions) > 1:
        counted = ground.tasks[cell.task].counted
        parts.append(f"{_count(cell, ground):,} {counted} ({100 * cell.fraction:.3g} %)")
    if len(recipe.model.names) > 1:
        parts.append(cell.model)
    return ", ".join(parts)


def _count(cell: Cell, ground: Ground) -> int:
    return len(ground.tasks[cell.task].drawn(cell.fraction, 0))


def _name(cell: Cell, arm: str, ground: Ground) -> str:
    group = title(cell, ground)
    return f"{group}: {arm}" if group else arm


def _row(cell: Cell, arm: str, outcomes: Sequence[Outcome], ground: Ground, asked: Cost) -> Row:
    scores = {ACCURACY: Score.of(one.scores["accuracy"] for one in outcomes)}
    if all("accuracy, written" in one.scores for one in outcomes):
        scores[WRITTEN] = Score.of(one.scores["accuracy, written"] for one in outcomes)
    scores[DEV] = Score.of(one.dev for one in outcomes)
    costs = [one.cost.as_dict() for one in outcomes]
    spent = Cost(**{key: (max if key == "peak_bytes" else fmean)([cost[key] for cost in costs]) for key in costs[0]})
    share = _count(cell, ground) / len(ground.tasks[cell.task].train)  # of what the teacher was asked about
    whole = spent + Cost(teacher_tokens=share * asked.teacher_tokens) if asks(arm) else spent
    return Row(_name(cell, arm, ground), arm not in METHODS, scores, whole, title(cell, ground), arm)


def _points(cell: Cell, arm: str, outcomes: Sequence[Outcome], ground: Ground) -> Iterator[Point]:
    for seed, outcome in zip(ground.recipe.seeds, outcomes, strict=True):
        for point in outcome.points:
            cost = Cost(**point["cost"])
            scores = {ACCURACY: float(point["test"])}
            yield Point(
                _name(cell, arm, ground), seed, int(point["step"]), cost.tokens, cost.flops, cost.seconds, scores
            )


def _pictures(found: Found, ground: Ground) -> Iterator[Scatter]:
    """Accuracy against labels, and against the size of the student, as in the paper's figures; means over seeds."""
    recipe = ground.recipe
    if len(recipe.fractions) > 1:
        for model in recipe.model.names:
            for task in ground.tasks:
                cells = {cell: arms for cell, arms in found.items() if (cell.model, cell.task) == (model, task)}
                if not cells:  # they were left out
                    continue
                points = _dots(cells, ground, lambda cell: float(_count(cell, ground)))
                name = f"{task}, {model}" if len(recipe.model.names) > 1 else task
                counted = ground.tasks[task].counted
                says = f"Test accuracy on {name} against the number of {counted}, by arm."
                yield Scatter(name, counted, f"test accuracy against {counted}, %", points, says, joined=True)
    if len(recipe.model.names) > 1:
        most = max(recipe.fractions)
        families = {name: start.family for name, start in ground.starts.items()}  # sizes of two are not one line
        for task, family in product(ground.tasks, dict.fromkeys(families.values())):
            cells = {
                cell: arms
                for cell, arms in found.items()
                if (cell.task, cell.fraction, families[cell.model]) == (task, most, family)
            }
            if not cells:
                continue
            points = _dots(cells, ground, lambda cell: ground.sizes[cell.model] / 1e6)
            name = f"{task}, {family}" if len({*families.values()}) > 1 else task
            says = f"Test accuracy on {name} against the student's parameters, by arm."
            yield Scatter(name, "million parameters", "test accuracy against size, %", points, says, joined=True)


def _dots(cells: Found, ground: Ground, x: Callable[[Cell], float]) -> tuple[tuple[str, float, float], ...]:
    """Each arm's, and those of a guess, which tell a gain from noise."""
    arms = (
        (arm, x(cell), 100 * fmean(one.scores["accuracy"] for one in some))
        for cell, every in cells.items()
        for arm, some in every.items()
    )
    return (*arms, *(("a guess", x(cell), 100 * ground.tasks[cell.task].guessed) for cell in cells))
