"""One run of the experiment: pretrained one way, scored as it goes, taught the tasks, resumed where it was stopped."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from shoestring import runtime
from shoestring.cost import Cost, Ledger, spent
from shoestring.data.tokens import Tokens
from shoestring.evaluate.outcome import once
from shoestring.methods.permutation.recipe_ground import Ground
from shoestring.methods.permutation.recipe_held import held, scores
from shoestring.methods.permutation.recipe_schema import TaskSet
from shoestring.methods.permutation.recipe_tasks import taught
from shoestring.models import pretrained
from shoestring.runtime import unwrap
from shoestring.train import checkpoint, optim
from shoestring.train.hooks import Booked, Every, Log, Progress, Save, Spaced
from shoestring.train.loop import DivergedError, train
from shoestring.train.side_by_side import Show
from shoestring.types import Hook, Run

TRAIN, EVALUATE, SAVE, FINE_TUNE = "train", "evaluate", "save", "fine-tune"
_RESULT, _SAVED, _HELD_SEED = "result.json", 20, 1


@dataclass(frozen=True)
class Job:
    """Which run it is.

    folder  below `out`/runs; arm, by name
    final   whether rows are of it: it is taught the tasks, then; kept, whether its model stays on disk
    """

    folder: str
    arm: str
    learning_rate: float
    seed: int
    steps: int
    final: bool = False
    kept: bool = False


@dataclass
class Outcome:
    """What a run showed.

    points    by measurement: {"step", "cost": so far, "dev" and "test": scores by name}
    tasks     by name: {"dev", "test": accuracy, "rate"}
    ledger    all that was spent, by phase
    diverged  why it ended early
    """

    points: list[dict[str, Any]] = field(default_factory=list)
    tasks: dict[str, dict[str, float]] = field(default_factory=dict)
    ledger: dict[str, Any] = field(default_factory=dict)
    diverged: str | None = None

    @property
    def cost(self) -> Cost:
        """Of pretraining: the tasks take every arm the same."""
        return spent(self.ledger, TRAIN)


def finished(job: Job, out: Path) -> bool:
    return (out / "runs" / job.folder / _RESULT).exists()


def follow(ground: Ground, job: Job, out: Path, show: Show) -> Outcome:
    """Pretrain one model. One that has its result on disk is read, not redone."""
    runtime.start(ground.settled.precision, ground.recipe.compute.processes)
    torch.set_num_threads(ground.settled.threads)
    folder = out / "runs" / job.folder
    found = once(folder / _RESULT, Outcome, lambda: _go(ground, job, folder, show))
    if runtime.current().rank == 0:
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return found


def _go(ground: Ground, job: Job, folder: Path, show: Show) -> Outcome:
    recipe, ledger, tokenizer = ground.recipe, Ledger(), ground.opened_tokenizer()
    with ledger.phase(TRAIN):
        run, learnt = ground.run(recipe.arm(job.arm), job.learning_rate, job.seed)
    watch = _Watch(ground, job, ledger)
    # the objective's memory goes to disk with the run, and turns after each step
    hooks: list[Hook] = [learnt.memory, Every(-(-job.steps // recipe.points), watch, last=job.steps)]
    stopped = checkpoint.latest(folder / "checkpoint")
    if stopped is not None:
        checkpoint.load(stopped, run, hooks=hooks, ledger=ledger)
    log = Log(folder, ledger, since=run.step)
    watch.log = log
    save = Save(folder / "checkpoint", hooks, ledger, tokenizer, keep=1)
    spaced = Every(_SAVED, Spaced(recipe.compute.save_seconds, Booked(SAVE, save, ledger)), last=job.steps)
    after: list[Hook] = [*hooks, Every(10, log), Progress(job.steps, ledger, show), spaced]
    warmup, decay = (round(part * job.steps) for part in (recipe.optimizer.warmup, recipe.optimizer.decay))
    schedule = optim.warmup_stable_decay(job.steps + 1, decay, warmup)
    try:
        with ledger.phase(TRAIN):
            settings: dict[str, Any] = {"accumulate": recipe.compute.accumulate, "schedule": schedule}
            train(run, learnt, until=job.steps, hooks=after, ledger=ledger, **settings)
        if job.kept:
            pretrained.save(run.model, tokenizer, folder / "model")
        tasks = _taught(ground, job, run, folder, ledger, show) if job.final else {}
    except DivergedError as error:
        return Outcome(watch.points, ledger=ledger.state_dict(), diverged=str(error))
    finally:
        log.close()
    return Outcome(watch.points, tasks, ledger.state_dict())


@dataclass
class Taught:
    """What a task showed: accuracies and the rate, and what it took, by phase."""

    scores: dict[str, float]
    ledger: dict[str, Any]


def _taught(
    ground: Ground, job: Job, run: Run, folder: Path, ledger: Ledger, show: Show
) -> dict[str, dict[str, float]]:
    """Teach all tasks, each kept as it ends, so that a stopped run does not teach it again."""
    model, tokenizer, how = (
        cast(PreTrainedModel, unwrap(run.model)),
        ground.opened_tokenizer(),
        ground.recipe.fine_tuning,
    )

    def teach(one: TaskSet) -> Taught:
        own = Ledger()
        with own.phase(one.name):
            scores = taught(model, tokenizer, one, how, job.seed, own, show)
        return Taught(scores, own.state_dict())

    found = {one.name: once(folder / f"task-{one.name}.json", Taught, partial(teach, one)) for one in how.sets}
    for some in found.values():
        ledger.absorb(some.ledger, FINE_TUNE)
    return {name: some.scores for name, some in found.items()}


class _Watch:
    """Scores the model on the held-out spans, and remembers it."""

    def __init__(self, ground: Ground, job: Job, ledger: Ledger) -> None:
        self._ground, self._job, self._ledger = ground, job, ledger
        recipe = ground.recipe
        counts = {"dev": recipe.held.dev, "test": recipe.held.test}
        # tuning looks at dev alone
        end = ground.opened_tokenizer().eos_token_id
        self._held = {
            split: held(recipe, Tokens.load(ground.tokens[split]), count, _HELD_SEED, end)
            for split, count in counts.items()
            if split == "dev" or job.final
        }
        self.points: list[dict[str, Any]] = []
        self.log: Log | None = None

    def __call__(self, run: Run) -> None:
        recipe, arm = self._ground.recipe, self._ground.recipe.arm(self._job.arm)
        with self._ledger.phase(EVALUATE), runtime.current().autocast():
            model = unwrap(run.model)
            found = {split: scores(model, arm, recipe, on) for split, on in self._held.items()}
        if not all(math.isfinite(value) for some in found.values() for value in some.values()):
            raise DivergedError(f"step {run.step}: no finite likelihoods: its weights or activations overflowed")
        cost = spent(self._ledger.state_dict(), TRAIN).as_dict()
        self.points.append({"step": run.step, "cost": cost, **found})
        if self.log is not None:
            told = {f"{split} {name}": value for split, some in found.items() for name, value in some.items()}
            self.log.write(run.step, told)

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points = list(state["points"])
