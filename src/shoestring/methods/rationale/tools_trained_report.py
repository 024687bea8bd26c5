"""What came of a training: a table by setting, a picture of its course, and what to know of the data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring import files
from shoestring.methods.rationale import rows
from shoestring.methods.rationale.lessons import REASONED
from shoestring.methods.rationale.recipe_arm import Outcome
from shoestring.methods.rationale.recipe_data import Task
from shoestring.methods.rationale.recipe_lengths import cut
from shoestring.methods.rationale.recipe_notes import learnt, left_out
from shoestring.methods.rationale.recipe_setting import wording
from shoestring.methods.rationale.tools_trained import Trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from shoestring.evaluate.canvas import Look

PICTURE = "course.svg"
_FEW = 20  # labels that may be meant as options


def show(trained: Trained, out: Path) -> None:
    """Draw the picture and print the rest."""
    from rich.console import Console
    from rich.text import Text

    from shoestring.evaluate import report

    picture = trained.work / PICTURE
    files.replace(picture, drawn(trained))
    console = Console(width=report.terminal_width(), highlight=False)
    console.print(table(trained))
    for sentence in sentences(trained):
        console.print(Text(f"• {sentence}"), soft_wrap=True)
    console.print(Text(f"\n{out}: the student; its course: {picture}"), soft_wrap=True)


def table(trained: Trained) -> Any:
    """A row a setting: how it did and what it cost; the chosen one is marked."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from shoestring.evaluate import tables

    costs = {setting: one.cost for setting, one in trained.outcomes.items()}
    what, named = wording([*trained.outcomes])
    units = tables.spent(costs.values())
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    drawn.add_column(what)
    names = ("best step", "dev", "test", "test, written", *(unit.name for unit in units.values()))
    for name in names:
        drawn.add_column(name, justify="right")
    for setting, one in trained.outcomes.items():
        marked = Text(f"{named(setting)} ←" if setting == trained.best else named(setting))
        drawn.add_row(marked, *_scores(one), *tables.costs(costs[setting], units))
    return drawn


def sentences(trained: Trained) -> Iterator[str]:
    """What else is to know: how much was learned from, what was cut, and what choosing cost."""
    from shoestring.evaluate.quantities import number

    task, one = trained.task, trained.outcome
    reasons = sum(example.rationale is not None for example in task.train)
    with_reason = f", {reasons:,} of them with a reason" if _reasoned(trained) else ""
    counts = f"{len(task.train):,} to train on{with_reason}"
    yield f"examples: {counts}, {len(task.dev):,} of dev, {len(task.test):,} of test; {number(one.epochs)} epochs"
    yield from left_out(task)
    yield from _free(task)
    what, named = wording([*trained.outcomes])
    for setting, other in trained.outcomes.items():
        if other.diverged:
            yield f"{what} {named(setting)}: {other.diverged}"
        if other.early:
            last, patience = other.points[-1]["step"], trained.training.patience
            yield f"{what} {named(setting)}: ended at step {last}, after {patience} measurements no better (--patience)"
    if not learnt([one], task):
        guess = f"on test no better than a guess ({task.guessed:.1%})"
        yield f"warning: {guess}: give more --steps, more --patience, or another --learning-rate"
    (model,) = trained.ground.starts
    for sentence in cut(trained.ground.coder(model), task.train, [trained.training.way]):
        yield f"{sentence}: see --tokens"
    for text, reason, label in one.reasons[:1]:
        yield f"of {rows.on_a_line(text)} it says {label!r}, and as its reason {rows.on_a_line(reason)}"
    others = trained.spent.seconds - one.cost.seconds
    yield f"looking at dev and test, and at other settings, took {number(max(0.0, others))} s more"


def drawn(trained: Trained) -> str:
    """The loss, and the accuracy on dev, by step, a line a setting, as SVG."""
    from shoestring.evaluate.canvas import WIDE, svg

    course = {
        setting: (_losses(trained.folder(setting)), [(point["step"], 100 * point["dev"]) for point in one.points])
        for setting, one in trained.outcomes.items()
    }
    what, named = wording([*trained.outcomes])

    def draw(axes: Axes, group: str) -> None:
        for place, (setting, (losses, points)) in enumerate(course.items()):
            _line(axes, losses if group == _LOSS else points, place, f"{what} {named(setting)}", WIDE)
        axes.set_xlabel("step")

    return svg([_LOSS, "accuracy on dev, %"], WIDE, draw, "")


_LOSS = "training loss, nats"


def _line(axes: Axes, points: list[tuple[float, float]], place: int, label: str, style: Look) -> None:
    colour = style.methods[place % len(style.methods)]
    dashes = ("solid", "dashed", "dotted")[place // len(style.methods) % 3]
    axes.plot(
        *zip(*points, strict=True), color=colour, linestyle=dashes, linewidth=1.4, label=label
    ) if points else None


def _losses(folder: Path) -> list[tuple[float, float]]:
    found = []
    log = folder / "log.jsonl"
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # a kill has torn it
            continue
        if "loss" in entry:
            found.append((float(entry["step"]), float(entry["loss"])))
    return found


def _scores(one: Outcome) -> list[str]:
    if one.diverged:
        return ["diverged", "–", "–", "–"]
    best = max(one.points, key=lambda point: float(point["dev"]))
    written = one.scores.get("accuracy, written")
    shown = "–" if written is None else f"{written:.1%}"
    return [f"{best['step']:,}", f"{one.dev:.1%}", f"{one.scores['accuracy']:.1%}", shown]


def _reasoned(trained: Trained) -> bool:
    return trained.training.way in REASONED


def _free(task: Task) -> Iterator[str]:
    """That labels are written, where they look like a few to choose from."""
    first = task.train[0]
    found = {example.label or example.teacher_label for example in task.train} - {None}
    if not first.options and not first.expression and len(found) <= _FEW:
        yield (
            f"no options were named: the student writes its label, of which there are {len(found)}, freely; "
            "with --option for each it takes the likeliest of them"
        )
