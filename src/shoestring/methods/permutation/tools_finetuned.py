"""The fine-tuning that a command wants: gone on with where it was stopped, its best epoch put in place, its report."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from shoestring import files
from shoestring.cost import Cost, Ledger, spent
from shoestring.data import corpora
from shoestring.evaluate import experiment
from shoestring.evaluate.outcome import once
from shoestring.evaluate.scores import Point, Report, Row, Score
from shoestring.methods.permutation import tools_opened
from shoestring.methods.permutation.tools_finetune_ground import Ground, settled
from shoestring.methods.permutation.tools_finetune_setting import Setting
from shoestring.methods.permutation.tools_out import (
    check_whole,
    leaving_nothing_begun,
    missing,
    save,
    tell,
    tell_going_on,
)
from shoestring.methods.permutation.tools_rows import read
from shoestring.methods.permutation.tools_tasks import METRICS, Task, by_chance, cut, unknown
from shoestring.methods.permutation.vocabulary import asking
from shoestring.models import folders
from shoestring.train import checkpoint, optim
from shoestring.train.hooks import Booked, Every, Log, Progress, Save, Spaced
from shoestring.train.loop import train
from shoestring.train.side_by_side import Job, Show, side_by_side
from shoestring.types import Hook, Run

TRAIN, EVALUATE, SAVE = "train", "evaluate", "save"
_SAVE_SECONDS = 60.0


@dataclass
class Outcome:
    """What a fine-tuning showed.

    points  by epoch: {"step", "cost": so far, "dev": scores by name}
    test    scores of the epoch that is best on dev, by name; its place among the points is `best`
    ledger  all that was spent, by phase
    """

    points: list[dict[str, Any]] = field(default_factory=list)
    best: int = 0
    test: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 0.0
    ledger: dict[str, Any] = field(default_factory=dict)


def carry_out(setting: Setting, out: Path) -> None:
    """Fine-tune what is not yet fine-tuned, put the best epoch into `out`, and show what came of it.

    Raises ValueError where `out` holds something else or another fine-tuning, is in use, or the run diverged.
    """
    new = missing(out)

    def work(ledger: Ledger) -> Report:
        with leaving_nothing_begun(out, new):
            return _report(setting, out, ledger)

    experiment.carry_out(setting, out, work)
    tell(out)


def _report(setting: Setting, out: Path, ledger: Ledger) -> Report:
    start = tools_opened.folder_of(setting.model)
    named = {setting.train, *(name for name in (setting.dev, setting.test) if name is not None)}
    data = {name: corpora.fingerprint(str(files.find(name))) for name in sorted(named)}
    data[setting.model] = folders.fingerprint(start)
    folder = out / "runs" / "finetune"
    if not (out / "runs").exists():  # nothing was computed yet in the way that is kept there
        (out / "settled.json").unlink(missing_ok=True)
    files.begun_on(out, data)
    ground = Ground(setting, out, start, read(setting))
    how = settled(ground)
    tell_going_on(folder, setting.epochs * ground.epoch)

    def work() -> Outcome:
        done: list[Outcome] = side_by_side([Job("finetune", partial(_go, ground, folder))], 1)
        return done[0]

    found = once(folder / "result.json", Outcome, work)
    check_whole(out / "model", out / "runs")
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    ledger.load_state_dict(found.ledger)
    facts = {"data": "; ".join(f"{name} {mark}" for name, mark in data.items()), "precision": how.why}
    return _laid_out(ground, found, facts)


def _go(ground: Ground, folder: Path, show: Show) -> Outcome:
    setting, task, ledger = ground.setting, ground.task, Ledger()
    ledger.charge(labels=len(ground.rows.train) + len(ground.rows.dev))
    run, steps = ground.run(), setting.epochs * ground.epoch
    rate = max(group["lr"] for group in run.optimizer.param_groups)
    watch = Watch(ground, ledger)
    hooks: list[Hook] = [Every(ground.epoch, watch)]
    stopped = checkpoint.latest(folder / "checkpoint")
    if stopped is not None:
        checkpoint.load(stopped, run, hooks=hooks, ledger=ledger)
    log = watch.log = Log(folder, ledger, since=run.step)
    save_it = Booked(SAVE, Save(folder / "checkpoint", hooks, ledger, task.tokenizer, keep=1), ledger)
    after: list[Hook] = [*hooks, Every(10, log), Progress(steps, ledger, show), Spaced(_SAVE_SECONDS, save_it)]
    schedule = optim.warmup_stable_decay(steps + 1, steps - steps // 10, steps // 10)
    try:
        with ledger.phase(TRAIN):
            train(run, task.loss, until=steps, hooks=after, ledger=ledger, schedule=schedule)
    finally:
        log.close()
    run.model.load_state_dict(watch.weights)
    with ledger.phase(EVALUATE):
        test = task.scores(run.model, ground.rows.test, setting.batch) if ground.rows.test else {}
    assert isinstance(run.model, PreTrainedModel)
    reads = asking(task.tokenizer)
    reads.model_max_length = task.reach  # more of a text was never seen
    with ledger.phase(SAVE):
        save(run.model, reads, ground.out / "model")
    return Outcome(watch.points, watch.best, test, rate, ledger.state_dict())


class Watch:
    """Scores the model on dev at the end of each epoch, and keeps the weights that did best."""

    def __init__(self, ground: Ground, ledger: Ledger) -> None:
        self._ground, self._ledger = ground, ledger
        self.points: list[dict[str, Any]] = []
        self.best = -1
        self.weights: dict[str, Tensor] = {}
        self.log: Log | None = None

    def __call__(self, run: Run) -> None:
        ground = self._ground
        with self._ledger.phase(EVALUATE):
            found = ground.task.scores(run.model, ground.rows.dev, ground.setting.batch)
        took = spent(self._ledger.state_dict(), "", TRAIN).as_dict()  # the labels are in no phase
        self.points.append({"step": run.step, "cost": took, "dev": found})
        first = METRICS[ground.setting.task][0]
        if self.best < 0 or found[first] > self.points[self.best]["dev"][first]:
            self.best = len(self.points) - 1
            self.weights = {name: weight.detach().cpu().clone() for name, weight in run.model.state_dict().items()}
        if self.log is not None:
            self.log.write(run.step, {f"dev {name}": value for name, value in found.items()})

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points, "best": self.best, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points, self.best, self.weights = list(state["points"]), int(state["best"]), dict(state["weights"])


def _laid_out(ground: Ground, found: Outcome, facts: dict[str, str]) -> Report:
    setting, name = ground.setting, ground.setting.task
    scores = {f"test {metric}": Score.of([value]) for metric, value in found.test.items()}
    scores |= {f"dev {metric}": Score.of([value]) for metric, value in found.points[found.best]["dev"].items()}
    points = []
    for point in found.points:
        cost = Cost(**point["cost"])
        told = {f"dev {metric}": float(value) for metric, value in point["dev"].items()}
        points.append(Point(name, setting.seed, point["step"], cost.tokens, cost.flops, cost.seconds, told))
    row = Row(name, False, scores, spent(found.ledger, "", TRAIN))
    metric, notes = f"dev {METRICS[name][0]}", tuple(_notes(ground, found))
    return Report("permutation", "finetune", (row,), tuple(points), (), metric, notes, facts, lower_is_better=False)


def _notes(ground: Ground, found: Outcome) -> Iterator[str]:
    setting, rows = ground.setting, ground.rows
    yield f"{len(rows.train):,} rows to learn from, {len(rows.dev):,} of dev, {len(rows.test):,} of test."
    if rows.together is not None:
        how = "rows of one first text on one side" if rows.together else "row by row, as first texts are few or uneven"
        yield f"Dev is cut from {setting.train} by a hash: {how}."
    every = (*rows.train, *rows.dev, *rows.test)
    if count := cut(ground.task, every):
        yield f"{count:,} of {len(every):,} rows {_left_out(ground.task)}"
    rate = f"learning rate {found.learning_rate:g}"
    yield f"Epoch {found.best + 1} of {setting.epochs} is taken, the best on dev, which it was chosen by; {rate}."
    if share := unknown(ground.task, rows.train):
        yield f"{share:.1%} of the tokens to learn from are unknown to the tokenizer."
    said, right = by_chance(rows.dev)
    yield f"{said}, said always, would be right on {right:.1%} of dev."


def _left_out(task: Task) -> str:
    """What rows that are not read whole have, and what would help."""
    if task.kind == "spans":
        return f"have a question of more tokens than is read, half of --length {task.length}: it is cut."
    if task.memory:
        return (
            f"are longer than the {task.reach:,} tokens that are seen through a memory of {task.memory} in windows of "
            f"{task.length}: what stands before them changes nothing. A larger --memory or --length sees more."
        )
    return f"are longer than --length {task.length}, and cut. A larger one reads more, or windows of it, by --memory."
