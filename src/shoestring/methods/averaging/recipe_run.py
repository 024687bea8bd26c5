"""One trajectory of the experiment: trained, watched, branched, and resumed where it was stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from shoestring import runtime
from shoestring.cost import Ledger
from shoestring.data import corpora, tokenizers
from shoestring.data.batches import TokenBatches, windows
from shoestring.data.tokens import Tokens, packed
from shoestring.methods.averaging.latest import Latest
from shoestring.methods.averaging.recipe_schema import Recipe
from shoestring.methods.averaging.recipe_watch import KEEP, HeldOut, Watch, Watched, ring
from shoestring.models import presets, pretrained
from shoestring.train import checkpoint, optim
from shoestring.train import state as states
from shoestring.train.hooks import Every, Log, Progress, Save, Spaced
from shoestring.train.loop import DivergedError, train
from shoestring.train.objectives import next_token
from shoestring.train.settle import Settled, settle
from shoestring.train.side_by_side import Show, affordable
from shoestring.types import Hook, Run


@dataclass(frozen=True)
class Ground:
    """What all trajectories stand on: packed text, the tokenizer, and how to compute."""

    tokens: dict[str, Path]
    tokenizer: Path
    vocabulary: int
    source_fingerprint: str
    settled: Settled
    workers: int


@dataclass
class Outcome:
    """One (schedule, learning rate, seed): its trunk and what branched off."""

    schedule: str
    rate: float
    seed: int
    runs: dict[str, Watched]
    ledger: dict[str, Any]
    folder: Path


def prepare(recipe: Recipe, runs: int, out: Path) -> Ground:
    """Pack the text and choose how to compute; both are kept, and found again by a resumed run.

    runs  how many trajectories there will be, which may go side by side
    """
    compute = recipe.compute
    here = runtime.start(processes=compute.processes, sharding=compute.sharding)
    with here.accelerator.main_process_first():
        return _prepare(recipe, runs, out)


def _prepare(recipe: Recipe, runs: int, out: Path) -> Ground:
    text = recipe.text
    tokenizer = tokenizers.resolve(text.tokenizer, (d.text for d in corpora.documents(text.source, "train")))
    folder = out / "tokenizer"
    tokenizer.save_pretrained(folder)
    tokens = {split: packed(text.source, split, tokenizer) for split in ("train", "dev", "test")}
    model = presets.build(presets.configuration(recipe.model, len(tokenizer), text.length), recipe.seeds[0])
    rows = text.batch // recipe.accumulate
    batch = next(iter(TokenBatches(tokens["train"], rows, text.length, seed=0)))
    workers = recipe.compute.workers or affordable(runs, _trajectory_bytes(recipe, model))
    threads = max(1, (os.cpu_count() or 1) // workers)
    passes = recipe.steps * recipe.accumulate
    settled = settle(model, next_token, batch, passes, out / "settled.json", threads, recipe.compute.precision)
    places = {split: packed.folder for split, packed in tokens.items()}
    return Ground(places, folder, len(tokenizer), corpora.fingerprint(text.source), settled, workers)


def _trajectory_bytes(recipe: Recipe, model: PreTrainedModel) -> float:
    """An estimate of the memory of one trajectory: weights, gradients, two moments, snapshots, activations."""
    config = model.config
    copies = 4 + ring(recipe.averages) + len(recipe.averages.decays) + 3
    rows = recipe.text.batch // recipe.accumulate * recipe.text.length
    activations = rows * (config.vocab_size * 12 + config.num_hidden_layers * config.hidden_size * 4 * 34)
    return float(7e8 + 4 * model.num_parameters() * copies + activations)


def follow(recipe: Recipe, ground: Ground, schedule: str, rate: float, seed: int, out: Path, show: Show) -> Outcome:
    """Train a trunk and all that branches off it. A run that has its result on disk is read, not redone."""
    runtime.start(ground.settled.precision, recipe.compute.processes, recipe.compute.sharding)
    torch.set_num_threads(ground.settled.threads)
    folder = out / "runs" / f"{schedule}-{rate:g}-seed{seed}"
    ledger = Ledger()
    book = folder / "ledger.json"
    if book.exists():
        ledger.load_state_dict(json.loads(book.read_text(encoding="utf-8")))
    runs: dict[str, Watched] = {}
    for name, branch in _branches(recipe, schedule):
        arm = _Arm(recipe, ground, rate, seed, name, folder / name.replace(" ", "-"), branch)
        result = arm.folder / "result.json"
        if not result.exists():
            with ledger.phase(name):
                watched = arm.go(ledger, folder / "trunk" / "branch", show)
            _keep(book, ledger.state_dict())
            _keep(result, asdict(watched))
        runs[name] = Watched(**json.loads(result.read_text(encoding="utf-8")))
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
    starts = {part: _on_grid(recipe, 1 - part) for part in recipe.cooldowns}
    held = optim.constant(warmup)
    accident = [_on_grid(recipe, recipe.spike.at)] if recipe.spike is not None else []
    yield "trunk", _Branch(None, steps, held, True, every, tuple(sorted({*starts.values(), *accident})))
    for part, start in starts.items():
        decay = optim.warmup_stable_decay(steps, steps - start, warmup)
        yield f"cool-down {part:g}", _Branch(start, steps, decay, False, every)
    if recipe.spike is not None:
        finer = max(1, every // 5 // recipe.averages.every) * recipe.averages.every
        factor = _spiked(held, accident[0], recipe.spike.steps, recipe.spike.factor)
        yield "spike", _Branch(accident[0], _on_grid(recipe, recipe.spike.until), factor, True, finer)


def _on_grid(recipe: Recipe, part: float) -> int:
    return round(part * recipe.steps / recipe.evaluate_every) * recipe.evaluate_every


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
        recipe, here = self.recipe, runtime.current()
        config = presets.configuration(recipe.model, self.ground.vocabulary, recipe.text.length)
        runtime.seed_everything(self.seed)
        model = presets.build(config, self.seed)
        if self.ground.settled.compiled:
            model.compile(dynamic=False)
        tokens = Tokens.load(self.ground.tokens["train"])
        rows = recipe.text.batch // recipe.accumulate
        batches = TokenBatches(tokens, rows, recipe.text.length, self.seed, here.rank, here.processes)
        run = Run(model, optim.adamw(model, self.rate), batches)
        first = recipe.warmup_steps + 1 if self.branch.averaged else None
        held_out = {
            "dev": _held_out(self, "dev", recipe.text.held_out),
            "test": _held_out(self, "test", 4 * recipe.text.held_out),
        }
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
        tokenizer = tokenizers.load(str(self.ground.tokenizer))
        save = Save(folder, hooks, ledger, tokenizer, keep=1)
        log = Log(self.folder, ledger, since=run.step)
        every = recipe.evaluate_every
        progress = Progress(self.branch.until, ledger, show)
        after: list[Hook] = [*hooks, Every(10, log), progress]
        # before the save, so that a run resumed from it finds them
        after += [_At(step, Save(leaves, hooks)) for step in self.branch.leaves]
        after.append(Every(every, Spaced(recipe.compute.save_seconds, save)))
        try:
            self._train(run, after, ledger)
        except DivergedError as error:
            watch.seen.diverged = str(error)
            return watch.seen
        finally:
            log.close()
        watch.finish(run)
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


def _held_out(arm: _Arm, split: str, limit: int) -> HeldOut:
    tokens = Tokens.load(arm.ground.tokens[split])
    batches = list(windows(tokens, arm.recipe.text.length, 32, limit))
    scored = sum(int((batch["labels"] >= 0).sum()) for batch in batches)
    return batches, round(scored * tokens.bytes_per_token)


def _keep(path: Path, value: Any) -> None:
    """Write JSON from the first process, whole or not at all; the others wait until it is there."""
    here = runtime.current()
    if here.rank == 0:
        _write(path, value)
    here.accelerator.wait_for_everyone()


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    beside.write_text(json.dumps(value), encoding="utf-8")
    beside.replace(path)


def export(outcome: Outcome, steps: Sequence[int], folder: Path) -> None:
    """Write a trunk's average over `steps`, from the snapshots in its last checkpoint, as a model folder."""
    last = checkpoint.latest(outcome.folder / "trunk" / "checkpoint")
    assert last is not None
    latest = Latest.of(states.read(last / "process-0")["hooks"][KEEP])
    model, tokenizer = pretrained.load(str(last))
    with latest.swapped(model, steps=steps):
        pretrained.save(model, tokenizer, folder)
