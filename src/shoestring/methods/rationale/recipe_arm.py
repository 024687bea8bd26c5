"""One run of the experiment: taught one way, measured on dev as it goes, and resumed where it was stopped."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from shoestring import runtime
from shoestring.cost import Cost, Ledger
from shoestring.cost.flops import StepFlops
from shoestring.evaluate.outcome import once
from shoestring.methods.rationale import filters
from shoestring.methods.rationale.encode import Coder, language_model
from shoestring.methods.rationale.lessons import RATIONALE, Taught, lessons
from shoestring.methods.rationale.loss import scaled
from shoestring.methods.rationale.recipe_data import Task
from shoestring.methods.rationale.recipe_ground import WORDING, Ground
from shoestring.methods.rationale.recipe_lessons import cost_of_labels, lessons_of, way_of
from shoestring.methods.rationale.recipe_schema import INFORMED
from shoestring.methods.rationale.recipe_watch import EVALUATE, SAVE, TRAIN, Watch, accuracy, own
from shoestring.methods.rationale.remembered import remember
from shoestring.methods.rationale.stream import Lessons
from shoestring.methods.rationale.student import Student
from shoestring.methods.rationale.write import NotFiniteError
from shoestring.models import lora
from shoestring.train import checkpoint, optim
from shoestring.train.hooks import Booked, Every, Log, Progress, Save, Spaced
from shoestring.train.loop import DivergedError, train
from shoestring.train.side_by_side import Show
from shoestring.types import Hook, Run

_RESULT = "result.json"
_SAVED = 20  # steps between two chances to save


@dataclass(frozen=True)
class Arm:
    """Which run it is.

    folder          below `out`/runs
    weight          lambda, where it has a reason's loss
    steps, every    optimizer steps, and those between two measurements on dev
    kept            whether its student stays on disk
    """

    folder: str
    model: str
    task: str
    fraction: float
    name: str
    learning_rate: float
    weight: float
    seed: int
    steps: int
    every: int
    kept: bool = False


@dataclass
class Outcome:
    """What a run showed.

    points    by measurement: {"step", "cost": so far, "dev", "test"}: of the student that was best on dev until then
    scores    of that student on test, by name
    reasons   what it wrote for a few test examples: [text, reason, label]
    labels    gold labels that it trained on
    epochs    that it went through; early, whether it ended before its last step
    ledger    all that was spent, by phase
    diverged  why it ended early
    """

    points: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    reasons: list[list[str]] = field(default_factory=list)
    labels: int = 0
    epochs: float = 0.0
    early: bool = False
    ledger: dict[str, Any] = field(default_factory=dict)
    diverged: str | None = None

    @property
    def cost(self) -> Cost:
        """Of training, without what was measured for the report and for the choice."""
        return own(self.ledger)

    @property
    def dev(self) -> float:
        return max(float(point["dev"]) for point in self.points)


def finished(arm: Arm, out: Path) -> bool:
    """Whether a run has its result on disk."""
    return (out / "runs" / arm.folder / _RESULT).exists()


def follow(ground: Ground, arm: Arm, out: Path, show: Show) -> Outcome:
    """Train one student. One that has its result on disk is read, not redone."""
    compute, settled = ground.recipe.compute, ground.starts[arm.model].settled
    runtime.start(settled.precision, compute.processes)
    torch.set_num_threads(settled.threads)
    folder = out / "runs" / arm.folder
    found = once(folder / _RESULT, Outcome, lambda: _go(ground, arm, folder, show))
    if runtime.current().rank == 0:
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return found


def stream(ground: Ground, arm: Arm, task: Task, coder: Coder) -> tuple[Lessons, int]:
    """The lessons of an arm, and how many gold labels they hold."""
    recipe, here = ground.recipe, runtime.current()
    examples = lessons_of(arm.name, task, task.drawn(arm.fraction, arm.seed), arm.seed)
    made = lessons(examples, way_of(arm.name), WORDING)
    weights = {task: arm.weight if task == RATIONALE else 1.0 for task in made}
    found = Lessons(
        {task: coder.pairs(some) for task, some in made.items()},
        weights,
        recipe.batch,
        family=coder.family,
        pad=coder.end,
        seed=arm.seed,
        mode=recipe.lessons.mode if RATIONALE in made else "mixed",
        parts=recipe.lessons.parts,
        rank=here.rank,
        world=here.processes,
    )
    return found, cost_of_labels(arm.name, examples)


def student(ground: Ground, arm: Arm, task: Task, coder: Coder) -> Student:
    """The student before its first step."""
    model = ground.model(arm.model, arm.seed).to(runtime.current().device)
    taught = Taught(way_of(arm.name), WORDING, task.options, coder.source_tokens, coder.target_tokens)
    return Student(model, coder, taught)


def _go(ground: Ground, arm: Arm, folder: Path, show: Show) -> Outcome:
    recipe, ledger, task = ground.recipe, Ledger(), ground.tasks[arm.task]
    coder = ground.coder(arm.model)
    with ledger.phase(TRAIN):
        batches, labels = stream(ground, arm, task, coder)
        taught = student(ground, arm, task, coder)
        chosen = recipe.optimizer
        optimizer = optim.adamw(taught.model, arm.learning_rate, chosen.weight_decay, chosen.betas)
        run = Run(taught.model, optimizer, batches)
    if arm.name == INFORMED:
        dev, test = ([filters.unanswered(one) for one in part] for part in (task.dev, task.test))
        task = replace(task, dev=dev, test=test)
    watch = Watch(taught, task, ledger, recipe.patience)
    hooks: list[Hook] = [Every(arm.every, watch, last=arm.steps)]
    stopped = checkpoint.latest(folder / "checkpoint")
    if stopped is not None:
        checkpoint.load(stopped, run, hooks=hooks, ledger=ledger)
    else:
        with ledger.phase(TRAIN):
            ledger.charge(labels=labels)
    log = Log(folder, ledger, since=run.step)
    watch.log = log
    save = Booked(SAVE, Save(folder / "checkpoint", hooks, ledger, coder.tokenizer, keep=1), ledger)
    spaced = Every(min(_SAVED, arm.every), Spaced(recipe.compute.save_seconds, save))
    after: list[Hook] = [*hooks, Every(10, log), Progress(arm.steps, ledger, show), spaced]
    schedule = optim.warmup_stable_decay(arm.steps + 1, arm.steps - arm.steps // 10, arm.steps // 10)
    step_flops = StepFlops(run.model)
    try:
        while run.step < arm.steps and not watch.tired:
            until = min(arm.steps, run.step - run.step % arm.every + arm.every)
            with ledger.phase(TRAIN):
                train(
                    run,
                    scaled,
                    until=until,
                    hooks=after,
                    ledger=ledger,
                    accumulate=batches.micro_batches,
                    schedule=schedule,
                    step_flops=step_flops,
                )
    except (DivergedError, NotFiniteError) as error:
        return Outcome(points=watch.points, labels=labels, ledger=ledger.state_dict(), diverged=str(error))
    finally:
        log.close()
    if run.step < arm.steps:
        show(run.step, run.step, run.loss, 0.0)  # that is all there will be
    watch.take_best()
    outcome = Outcome(watch.points, labels=labels, epochs=batches.epochs, early=run.step < arm.steps)
    with ledger.phase(EVALUATE):
        outcome.scores, outcome.reasons = _scores(taught, task, watch)
    if arm.kept:
        adapted = recipe.model.lora is not None and ground.starts[arm.model].folder is not None
        kept = replace(taught, model=lora.merged(language_model(taught.model))) if adapted else taught
        kept.save(folder / "student")
        if runtime.current().rank == 0:
            remember(task.form, folder / "student")
    outcome.ledger = ledger.state_dict()
    return outcome


def _scores(taught: Student, task: Task, watch: Watch) -> tuple[dict[str, float], list[list[str]]]:
    scores = {"accuracy": watch.points[-1]["test"]}
    if task.test[0].options and taught.taught.way != "single-task":
        scores["accuracy, written"] = accuracy(taught, task.test, free=True)
    shown: list[list[str]] = []
    if taught.taught.way in ("two-task", "single-task"):
        some = task.test[:_SHOWN]
        answers = taught.answers(some, reasons=True)
        shown = [[one.text, answer.reason or "", answer.label] for one, answer in zip(some, answers, strict=True)]
    return scores, shown


_SHOWN = 4


def export(arm: Arm, out: Path) -> None:
    """Copy a kept student to `out`/checkpoint: the first process does."""
    if runtime.current().rank:
        return
    source, target = out / "runs" / arm.folder / "student", out / "checkpoint"
    if not source.exists():
        raise ValueError(f"{source}: the student is gone: delete {source.parent}, and the run is done again")
    beside = out / "checkpoint.partial"
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source, beside)
    shutil.rmtree(target, ignore_errors=True)
    beside.rename(target)
