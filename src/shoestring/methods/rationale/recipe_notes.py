"""What the experiment's report says in words: who is ahead of whom, with how many labels, and what was chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import sqrt
from statistics import fmean
from typing import TypeAlias

from shoestring.evaluate.quantities import number, plus_minus
from shoestring.evaluate.scores import Score
from shoestring.methods.rationale import filters, rows
from shoestring.methods.rationale.recipe_arm import Outcome
from shoestring.methods.rationale.recipe_data import Task
from shoestring.methods.rationale.recipe_ground import Ground
from shoestring.methods.rationale.recipe_lengths import cut
from shoestring.methods.rationale.recipe_lessons import way_of
from shoestring.methods.rationale.recipe_plan import Cell, Plan
from shoestring.methods.rationale.recipe_schema import AGREEING, INFORMED, MATCHED, SHUFFLED, SINGLE, STANDARD, TWO_TASK
from shoestring.methods.rationale.recipe_setting import settings_of, wording

_MANY = 6  # cells: of more, not every score that a rate was chosen by is told

Found: TypeAlias = "dict[Cell, dict[str, list[Outcome]]]"


def told(found: Found, chosen: Plan, ground: Ground, title: Callable[[Cell], str]) -> Iterator[str]:
    """The notes. title: how a cell is called, nothing where there is one."""
    for cell, arms in found.items():
        yield _against(arms, title(cell))
    for task in ground.tasks.values():
        yield from _test(task)
    yield from _enough(found, ground)
    yield from _teacher(ground)
    yield from _taught(ground)
    yield from _arms(found, chosen, ground)
    yield from _rates(chosen, ground, title)
    yield from _seeds(ground)
    yield from _ended(found)
    yield from _dev(found, chosen, ground)
    yield from _said(found, title)


def learnt(outcomes: Sequence[Outcome], task: Task) -> bool:
    """Whether students are better than a guess, by two standard errors of what a guess scores on test or more."""
    guess = task.guessed
    return _mean(outcomes) - guess >= 2 * sqrt(guess * (1 - guess) / len(task.test))


def _against(arms: Mapping[str, Sequence[Outcome]], where: str) -> str:
    parts = []
    for twin, outcomes in arms.items():
        if twin != TWO_TASK:
            pairs = zip(arms[TWO_TASK], outcomes, strict=True)
            score = Score.of(100 * (one.scores["accuracy"] - two.scores["accuracy"]) for one, two in pairs)
            parts.append(f"{plus_minus(score)} to {twin}")
    listed = "; ".join(parts)
    said = f"{TWO_TASK}, test accuracy in points, paired by seed: {listed}."
    return f"{where}: {said}" if where else said


def _test(task: Task) -> Iterator[str]:
    """What is to know of the examples that scores are of."""
    yield from (f"{task.name}: {sentence}." for sentence in left_out(task))
    yield f"{task.name}: a guess is right for {task.guessed:.1%} of its {len(task.test):,} test examples."
    if task.known:
        yield (
            f"{task.name}: {task.known:,} of the test examples have a premise that stands in the train part too, with "
            "another question; none stands there whole."
        )


def left_out(task: Task) -> Iterator[str]:
    """Rows that stood in two files."""
    for name, count in zip(("dev", "test"), task.again, strict=True):
        if count:
            yield f"{count:,} rows of {name} are left out: their texts stand in another part too"


def _enough(found: Found, ground: Ground) -> Iterator[str]:
    """The fewest labels with which two-task is as good as the twin with all of them."""
    recipe = ground.recipe
    if len(recipe.fractions) < 2:
        return
    most = max(recipe.fractions)
    for model in recipe.model.names:
        for task in ground.tasks:
            cells = {fraction: found.get(Cell(model, task, fraction)) for fraction in sorted(recipe.fractions)}
            whole = cells[most]
            if whole is None:
                continue
            goal = _mean(whole[STANDARD])
            name = f"{task}, {model}" if len(recipe.model.names) > 1 else task
            if not learnt(whole[STANDARD], ground.tasks[task]):
                yield f"{name}: {STANDARD} with most labels ({goal:.1%}) is no better than a guess: fewer say nothing."
                continue
            good = [fraction for fraction, arms in cells.items() if arms and _mean(arms[TWO_TASK]) >= goal]
            listed = ", ".join(f"{100 * fraction:.3g} %" for fraction in good)
            end = f"with {listed} of the labels and no other fraction tried" if good else "with no fraction tried"
            yield f"{name}: {TWO_TASK} is at least as good as {STANDARD} with most labels ({goal:.1%}) {end}, by means."


def _teacher(ground: Ground) -> Iterator[str]:
    chains = ground.recipe.chains
    if chains is None:
        yield "The teacher's answers were given: what they once took is in no row's cost, nor is the base's training."
        return
    slips = f"slips in {chains.error_rate:.0%} of its answers" if chains.error_rate else "makes no mistake"
    votes = f", asked {chains.samples} times, by vote" if chains.samples > 1 else ""
    yield f"The teacher is the program that made the chains, behind an HTTP endpoint{votes}; it {slips}."


def _taught(ground: Ground) -> Iterator[str]:
    """How much of what there is reaches the students: examples without a reason, and what is cut."""
    coders = {start.tokenizer: ground.coder(name) for name, start in ground.starts.items()}
    ways = dict.fromkeys(map(way_of, ground.recipe.arms))
    for task in ground.tasks.values():
        gold = sum(example.label is not None for example in task.train)
        if gold < len(task.train):
            yield (
                f"{task.name}: {gold:,} of {len(task.train):,} training examples have a gold label; where there is "
                "none all arms learn the teacher's."
            )
        given = sum(example.rationale is not None for example in task.train)
        if given < len(task.train):
            yield f"{task.name}: {given:,} of {len(task.train):,} training examples have a reason of the teacher."
        for folder, coder in coders.items():
            whose = f" by {folder.name}" if len(coders) > 1 else ""
            yield from (f"{task.name}: {sentence}{whose}." for sentence in cut(coder, task.train, ways))


def _arms(found: Found, chosen: Plan, ground: Ground) -> Iterator[str]:
    names = list(dict.fromkeys(name for arms in found.values() for name in arms))
    if MATCHED in names:
        times = [chosen.longer[cell] for cell in found]
        shown = number(min(times)) if len(times) == 1 else f"{number(min(times))} to {number(max(times))}"
        spent = [_flops(arms[MATCHED]) / _flops(arms[TWO_TASK]) for arms in found.values() if MATCHED in arms]
        took = " to ".join(dict.fromkeys(f"{part:.1%}" for part in (min(spent), max(spent))))
        yield f"{MATCHED}: {shown} times the steps of {STANDARD} at most; it took {took} of the FLOPs of {TWO_TASK}."
    if SHUFFLED in names:
        yield f"{SHUFFLED}: each example has the reason of another; what gain is left is not of what reasons say."
    if SINGLE in names:
        yield (
            f"{SINGLE}: reason, then label, in one text, which has to be written whole at prediction too; its label is "
            "judged as written, those of the others by likelihood among the options, where there are any."
        )
    if INFORMED in names:
        yield f"{INFORMED}: reads the teacher's reason beside the text, at prediction too: the teacher is then needed."
        yield from (f"{INFORMED}: {task.name}, {_unanswered(task)}." for task in ground.tasks.values())
    if AGREEING in names:
        yield from (f"{AGREEING}: {task.name}, {_left_out(task)}." for task in ground.tasks.values())


def _rates(chosen: Plan, ground: Ground, title: Callable[[Cell], str]) -> Iterator[str]:
    rates = ground.recipe.tuning.learning_rates
    if len(rates) == 1:
        yield f"Not tuned: the learning rate, {rates[0]:g} for all."
    weights = ground.recipe.tuning.weights
    if len(weights) == 1:
        yield f"Not tuned: λ, {weights[0]:g} for all that have it."
    if not chosen.tried:
        return
    if len({cell for cell, _ in chosen.tried}) > _MANY:
        for arm in dict.fromkeys(arm for _, arm in chosen.tried):
            choices = Counter(chosen.settings[key] for key in chosen.tried if key[1] == arm)
            what, named = wording(settings_of(ground.recipe, arm))
            listed = ", ".join(f"{named(one)} in {choices[one]}" for one in sorted(choices))
            yield f"{what} of {arm}, of {choices.total()} comparisons: {listed}."
    else:
        for (cell, arm), tried in chosen.tried.items():
            what, named = wording(settings_of(ground.recipe, arm))
            listed = ", ".join(f"{named(one)}: {score:.1%}" for one, score in tried.items())
            where = f"{title(cell)}: " if title(cell) else ""
            yield f"{where}{what} of {arm}: {named(chosen.settings[cell, arm])} (dev accuracy of each tried: {listed})."
    if len(weights) > 1:
        yield f"{TWO_TASK} had λ to choose as well, and so {len(weights)} times as many settings to try as {STANDARD}."
    yield "Of settings as good the first was taken; the runs they were chosen by are in no row's cost."


def _seeds(ground: Ground) -> Iterator[str]:
    """What does not differ from seed to seed."""
    if any(start.folder is not None for start in ground.starts.values()):
        yield "All seeds of a model go on from the same weights, of which ± says nothing."


def _dev(found: Found, chosen: Plan, ground: Ground) -> Iterator[str]:
    """What is chosen by whom."""
    sizes = ", ".join(f"{len(task.dev):,} ({task.name})" for task in ground.tasks.values())
    looks = max(len(one.points) for arms in found.values() for some in arms.values() for one in some)
    if looks == 1 and not chosen.tried:
        yield f"Nothing is chosen on dev, {sizes} labelled examples: students are those at the end of their runs."
        return
    yield f"Dev, by which all arms are chosen, holds {sizes} labelled examples, which are in no row's cost."
    yield (
        "What is tuned and the step at which a student is taken are chosen on dev; scores, curves and savings are "
        "of test, of the student that was best on dev until then."
    )


def _ended(found: Found) -> Iterator[str]:
    every = [one for arms in found.values() for some in arms.values() for one in some]
    early = sum(one.early for one in every)
    yield (
        f"Runs went through their labels {number(fmean(one.epochs for one in every))} times in the mean; {early} of "
        f"{len(every)} ended early, when dev had nothing better to show."
    )


def _said(found: Found, title: Callable[[Cell], str]) -> Iterator[str]:
    """What a student wrote as its reason, so that it can be judged."""
    cell = max(found, key=lambda one: one.fraction)
    for text, reason, label in found[cell][TWO_TASK][0].reasons[:2]:
        where = f"{title(cell)}: " if title(cell) else ""
        asked, said = rows.on_a_line(text), rows.on_a_line(reason)
        yield f"{where}of {asked} the {TWO_TASK} student says {label!r}, and as its reason {said}."


def _left_out(task: Task) -> str:
    """What the filter of the agreeing arm takes out of a set."""
    (removed,) = filters.apply(task.train, ["agrees"]).removed
    share = f"{removed.count:,} of {removed.judged:,} reasons ({removed.share:.0%})"
    return f"{share} are for a label that is not the gold one, and left out"


def _unanswered(task: Task) -> str:
    """What was taken out of the reasons that the informed arm reads."""
    given = [one for one in task.train if one.rationale is not None]
    read = [filters.unanswered(one) for one in given]
    nothing = sum(one.rationale is None for one in read)
    changed = sum(before.rationale != after.rationale for before, after in zip(given, read, strict=True)) - nothing
    naming = sum(filters.names_label(one) for one in read)
    return (
        f"{changed:,} of {len(given):,} reasons lost the words that state the answer, {nothing:,} "
        f"were nothing else and are left out; {naming:,} name it still"
    )


def _flops(outcomes: Sequence[Outcome]) -> float:
    return fmean(one.cost.flops for one in outcomes)


def _mean(outcomes: Sequence[Outcome]) -> float:
    return fmean(one.scores["accuracy"] for one in outcomes)
