"""One run of the experiment: trained, re-weighed, measured on the way, and resumed where it was stopped."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from shoestring import runtime
from shoestring.cost import Cost, Ledger
from shoestring.evaluate.outcome import once
from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.recipe_ground import Ground
from shoestring.methods.mixing.recipe_samplers import Sampler, sampler
from shoestring.methods.mixing.recipe_watch import MIX, Watch, losses, own
from shoestring.models import pretrained
from shoestring.train import checkpoint, optim
from shoestring.train.hooks import Booked, Every, Log, Progress, Save, Spaced
from shoestring.train.loop import DivergedError, train
from shoestring.train.objectives import next_token
from shoestring.train.side_by_side import Show
from shoestring.types import Hook, Run

_SAVED = 20  # steps between two chances to save


@dataclass(frozen=True)
class Arm:
    """Which run it is.

    folder         below `out`/runs
    rate           eta of the samplers that have one
    shares         fixed weights, of a training that a graph is learned from: it is not measured on the way, and its
                   learning rate is held
    graph          file of the graph that is followed
    kept           whether its last weights stay on disk
    """

    folder: str
    sampler: str
    learning_rate: float
    seed: int
    steps: int
    rate: float | None = None
    shares: dict[str, float] | None = None
    graph: str | None = None
    kept: bool = False


@dataclass
class Outcome:
    """What a run showed.

    points    by measurement on test: {"step", "cost": so far, "loss": by skill, "accuracy": by skill}
    dev       losses by skill at the end
    weights   [step, weights] as they were set
    counts    samples by skill; `epochs` of each pool
    ledger    all that was spent, by phase
    diverged  why it ended early
    """

    points: list[dict[str, Any]] = field(default_factory=list)
    dev: dict[str, float] = field(default_factory=dict)
    weights: list[Any] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    epochs: dict[str, float] = field(default_factory=dict)
    ledger: dict[str, Any] = field(default_factory=dict)
    diverged: str | None = None

    @property
    def cost(self) -> Cost:
        """Of the run and of what its sampler measured, without what the report measured."""
        return own(self.ledger)

    @property
    def mixing(self) -> float:
        """FLOPs of what its sampler measured, over those of all its own."""
        spent = sum(Cost(**amounts).flops for name, amounts in self.ledger.items() if MIX in name.split("/"))
        return spent / self.cost.flops

    @property
    def mean_dev(self) -> float:
        return sum(self.dev.values()) / len(self.dev)


def follow(ground: Ground, arm: Arm, out: Path, show: Show) -> Outcome:
    """Train one run. One that has its result on disk is read, not redone."""
    compute = ground.recipe.compute
    runtime.start(ground.settled.precision, compute.processes, compute.sharding)
    torch.set_num_threads(ground.settled.threads)
    folder = out / "runs" / arm.folder
    found = once(folder / "result.json", Outcome, lambda: _go(ground, arm, folder, show))
    if runtime.current().rank == 0 and not arm.kept:
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return found


def export(ground: Ground, arm: Arm, out: Path) -> None:
    """Write a run's last weights as the model folder `out`/checkpoint."""
    folder = out / "runs" / arm.folder
    last = checkpoint.latest(folder / "checkpoint")
    if last is None:
        raise ValueError(f"{folder}: its checkpoint is gone: delete the folder, and this run is done again")
    run, _ = _start(ground, arm, Ledger())
    checkpoint.load(last, run)
    pretrained.save(run.model, ground.opened_tokenizer(), out / "checkpoint")


def _start(ground: Ground, arm: Arm, ledger: Ledger) -> tuple[Run, Sampler]:
    graph = None if arm.graph is None else Graph.load(arm.graph)
    model = ground.model(arm.seed).to(runtime.current().device)
    recipe, task = ground.recipe, ground.task()
    chosen = sampler(recipe, task, arm.sampler, arm.seed, ledger, model, graph, arm.rate, arm.shares)
    return Run(model, _adamw(ground, model, arm.learning_rate), chosen.batches), chosen


def _adamw(ground: Ground, model: nn.Module, learning_rate: float) -> Optimizer:
    chosen = ground.recipe.optimizer
    return optim.adamw(model, learning_rate, chosen.weight_decay, chosen.betas)


def _go(ground: Ground, arm: Arm, folder: Path, show: Show) -> Outcome:
    recipe, ledger, task = ground.recipe, Ledger(), ground.task()
    with ledger.phase("train"):
        run, chosen = _start(ground, arm, ledger)
    watch = Watch(task, ledger)
    every = recipe.evaluate_every if arm.shares is None else arm.steps + 1
    hooks: list[Hook] = [chosen.hook, Every(every, watch)]
    stopped = checkpoint.latest(folder / "checkpoint")
    if stopped is not None:
        checkpoint.load(stopped, run, hooks=hooks, ledger=ledger)
    log = Log(folder, ledger, since=run.step)
    watch.log = log
    save = Booked("save", Save(folder / "checkpoint", hooks, ledger, ground.opened_tokenizer(), keep=1), ledger)
    spaced = Every(min(_SAVED, recipe.evaluate_every), Spaced(recipe.compute.save_seconds, save))
    after: list[Hook] = [*hooks, Every(10, log), Progress(arm.steps, ledger, show), spaced]
    held = optim.constant(recipe.warmup_steps)
    falls = optim.warmup_stable_decay(recipe.steps, recipe.steps - recipe.warmup_steps - 1, recipe.warmup_steps)
    try:
        if stopped is None and arm.shares is None:
            watch(run)
        with ledger.phase("train"):
            chosen.hook.begin(run)
            schedule = held if arm.shares is not None else falls
            train(run, next_token, until=arm.steps, hooks=after, ledger=ledger, schedule=schedule)
        with ledger.phase("evaluate"):
            dev = losses(run.model, task.held_out["dev"], ledger)
        if arm.kept:
            save(run)
    except DivergedError as error:
        return Outcome(points=watch.points, ledger=ledger.state_dict(), diverged=str(error))
    finally:
        log.close()
    outcome = Outcome(watch.points, dev, [list(entry) for entry in chosen.hook.history], ledger=ledger.state_dict())
    if chosen.mixture is not None:
        outcome.counts, outcome.epochs = chosen.mixture.counts(), chosen.mixture.epochs
    return outcome
