"""One trajectory of the experiment: trained, watched, branched, and resumed where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from shoestring import files, runtime
from shoestring.cost import Ledger
from shoestring.methods.averaging.latest import Latest
from shoestring.methods.averaging.recipe_ground import Ground
from shoestring.methods.averaging.recipe_schema import Recipe
from shoestring.methods.averaging.recipe_watch import KEEP, Watch, Watched
from shoestring.models import pretrained
from shoestring.train import checkpoint, optim
from shoestring.train import state as states
from shoestring.train.hooks import Booked, Every, Log, Progress, Save, Spaced
from shoestring.train.loop import DivergedError, train
from shoestring.train.objectives import next_token
from shoestring.train.side_by_side import Show
from shoestring.types import Hook, Run


@dataclass
class Outcome:
    """One (schedule, learning rate, seed): its trunk and what branched off."""

    schedule: str
    rate: float
    seed: int
    runs: dict[str, Watched]
    ledger: dict[str, Any]
    folder: Path


def follow(recipe: Recipe, ground: Ground, schedule: str, rate: float, seed: int, out: Path, show: Show) -> Outcome:
    """Train a trunk and all that branches off it. A run that has its result on disk is read, not redone."""
    runtime.start(ground.settled.precision, recipe.compute.processes, recipe.compute.sharding)
    torch.set_num_threads(ground.settled.threads)
    folder = out / "runs" / f"{schedule}-{rate:g}-seed{seed}"
    ledger = Ledger()
    book = folder / "ledger.json"
    if book.exists():
        ledger.load_state_dict(_read(book))
    runs: dict[str, Watched] = {}
    for name, branch in _branches(recipe, schedule):
        arm = _Arm(recipe, ground, rate, seed, name, folder / name.replace(" ", "-"), branch)
        result = arm.folder / "result.json"
        if not result.exists():
            with ledger.phase(name):
                watched = arm.go(ledger, folder / "trunk" / "branch", show)
            _keep(book, ledger.state_dict())
            _keep(result, asdict(watched))
        runs[name] = Watched(**_read(result))
        if runs[name].diverged and name == "trunk":
            break
    return Outcome(schedule, rate, seed, runs, ledger.state_dict(), folder)


@dataclass(frozen=True)
class _Branch:
    """A stretch of training. start: the trunk's step it leaves from, None for the trunk itself."""

    start: int | None
    until: int
    factor: optim.Schedule
    averaged: bool
    evaluate_every: int
    leaves: tuple[int, ...] = ()


def _branches(recipe: Recipe, schedule: str) -> Iterator[tuple[str, _Branch]]:
    steps, warmup, every = recipe.steps, recipe.warmup_steps, recipe.evaluate_every
    if schedule == "cosine":
        yield "trunk", _Branch(None, steps, optim.cosine(steps, warmup), True, every)
        return
    starts = {part: recipe.on_grid(1 - part) for part in recipe.cooldowns}
    held = optim.constant(warmup)
    accident = [recipe.on_grid(recipe.spike.at)] if recipe.spike is not None else []
    yield "trunk", _Branch(None, steps, held, True, every, tuple(sorted({*starts.values(), *accident})))
    for part, start in starts.items():
        decay = optim.warmup_stable_decay(steps, steps - start, warmup)
        yield f"cool-down {part:g}", _Branch(start, steps, decay, False, every)
    if recipe.spike is not None:
        finer = max(1, every // 5 // recipe.averages.every) * recipe.averages.every
        factor = _spiked(held, accident[0], recipe.spike.steps, recipe.spike.factor)
        yield "spike", _Branch(accident[0], recipe.on_grid(recipe.spike.until), factor, True, finer)


def _spiked(held: optim.Schedule, start: int, steps: int, factor: float) -> optim.Schedule:
    return lambda step: held(step) * (factor if start <= step < start + steps else 1.0)


@dataclass(frozen=True)
class _Arm:
    recipe: Recipe
    ground: Ground
    rate: float
    seed: int
    name: str
    folder: Path
    branch: _Branch

    def go(self, ledger: Ledger, leaves: Path, show: Show) -> Watched:
        """Train this stretch, from where it was stopped if it was."""
        recipe = self.recipe
        run = self.ground.run(recipe, self.rate, self.seed)
        first = recipe.warmup_steps + 1 if self.branch.averaged else None
        held_out = {split: self.ground.held_out(recipe, split) for split in ("dev", "test")}
        watch = Watch(
            recipe.averages, self.name, self.branch.start, first, self.branch.evaluate_every, held_out, ledger
        )
        hooks = watch.hooks()
        folder = self.folder / "checkpoint"
        stopped = checkpoint.latest(folder)
        if stopped is not None:
            checkpoint.load(stopped, run, hooks=hooks, ledger=ledger)
        elif self.branch.start is not None:
            leaf = leaves / f"step-{self.branch.start:08d}"
            checkpoint.load(leaf, run, hooks=hooks if self.branch.averaged else None)
            watch.forget()
        tokenizer = self.ground.opened_tokenizer()
        save = Booked("save", Save(folder, hooks, ledger, tokenizer, keep=1), ledger)
        log = Log(self.folder, ledger, since=run.step)
        watch.log = log
        every = recipe.evaluate_every
        after: list[Hook] = [*hooks, Every(10, log), Progress(self.branch.until, ledger, show)]
        # before the save, so that a run resumed from it finds them
        after += [_At(step, Booked("save", Save(leaves, hooks), ledger)) for step in self.branch.leaves]
        if recipe.compute.keep_weights and self.branch.start is None:
            trajectory = _Trajectory(self.folder / "trajectory", tokenizer)
            after.append(Every(every, Booked("save", trajectory, ledger)))
        after.append(Every(every, Spaced(recipe.compute.save_seconds, save)))
        try:
            self._train(run, after, ledger)
        except DivergedError as error:
            watch.seen.diverged = str(error)
            return watch.seen
        finally:
            log.close()
        watch.finish()
        save(run)
        return watch.seen

    def _train(self, run: Run, hooks: Sequence[Hook], ledger: Ledger) -> None:
        recipe, branch = self.recipe, self.branch
        settings: dict[str, Any] = {
            "hooks": hooks,
            "ledger": ledger,
            "accumulate": recipe.accumulate,
            "schedule": branch.factor,
        }
        # no snapshot is held yet in the warm-up, so its peak is the raw run's
        with ledger.phase("warm-up"):
            train(run, next_token, until=min(recipe.warmup_steps, branch.until), **settings)
        with ledger.phase("train"):
            train(run, next_token, until=branch.until, **settings)


class _At:
    """Call a hook after one step only."""

    def __init__(self, step: int, hook: Hook) -> None:
        self.step, self.hook = step, hook

    def __call__(self, run: Run) -> None:
        if run.step == self.step:
            self.hook(run)


class _Trajectory:
    """Keep the weights of each measurement, for the tools `curve`, `sweep` and `merge`."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        self.folder, self.tokenizer = folder, tokenizer

    def __call__(self, run: Run) -> None:
        pretrained.save(run.model, self.tokenizer, self.folder / f"step-{run.step:08d}")


def _keep(path: Path, value: Any) -> None:
    """Write JSON from the first process, whole or not at all; the others wait until it is there."""
    here = runtime.current()
    if here.rank == 0:
        files.replace(path, json.dumps(value))
    here.accelerator.wait_for_everyone()


def _read(path: Path) -> Any:
    return files.read_json(path, "delete it, and this part is done again")


def export(recipe: Recipe, ground: Ground, outcome: Outcome, steps: Sequence[int], folder: Path) -> None:
    """Write a trunk's average over `steps`, from the snapshots in its last checkpoint, as a model folder.

    Across processes each brings the snapshots it kept, which are its shards under FSDP2.
    """
    last = checkpoint.latest(outcome.folder / "trunk" / "checkpoint")
    assert last is not None
    run = ground.run(recipe, outcome.rate, outcome.seed)
    checkpoint.load(last, run)
    mine = states.read(last / f"process-{runtime.current().rank}")["hooks"]
    latest = Latest.of(next(state for name, state in mine.items() if name.endswith(KEEP)))
    with latest.swapped(run.model, steps=steps):
        pretrained.save(run.model, ground.opened_tokenizer(), folder)
