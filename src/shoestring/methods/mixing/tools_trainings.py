"""The trainings that a graph of a user's text is learned from: their common start, each of them, and what they cost."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from shoestring import files, runtime
from shoestring.cost import Cost, Ledger
from shoestring.data import tokenizers
from shoestring.methods.mixing.mixture import Mixture
from shoestring.methods.mixing.recipe_watch import losses
from shoestring.methods.mixing.tools_skills import Texts, opened
from shoestring.methods.mixing.tools_watch import Tell
from shoestring.methods.mixing.trainings import file_name
from shoestring.models import folders, manifest, presets, pretrained
from shoestring.train import checkpoint, optim
from shoestring.train.hooks import Every, Save, Spaced
from shoestring.train.loop import train
from shoestring.train.objectives import next_token
from shoestring.types import Batch, Hook, Run

NEW_RATE, TRAINED_RATE = 1e-3, 5e-5  # the second is the paper's
_SAVED = 20  # steps of the base between two chances to save
_SAVE_SECONDS = 60.0
_BASE, _KEPT, _COSTS = "base", "base-checkpoint", "costs"


@dataclass(frozen=True)
class Training:
    """Train the base on a mixture of skills, and measure the held-out loss of each evaluated one.

    base      the folder of the model that all start from
    held_out  windows of each evaluated skill, at most
    threads   of this process; as they are where 0
    folder    gets what each training cost, the moment it ends
    """

    texts: Texts
    evaluated: tuple[str, ...]
    base: Path
    steps: int
    batch: int
    learning_rate: float
    held_out: int
    folder: Path
    precision: runtime.Precision = "fp32"
    compiled: bool = False
    threads: int = 0

    def __call__(self, shares: Mapping[str, float], seed: int) -> dict[str, float]:
        if self.threads:
            torch.set_num_threads(self.threads)
        here, ledger = runtime.start(self.precision), Ledger()
        runtime.seed_everything(seed)  # a trained model may have dropout
        model = pretrained.load(self.base, torch.float32)[0].train().to(here.device)
        if self.compiled:
            model.compile(dynamic=False)
        try:
            if shares:
                run = Run(model, optim.adamw(model, self.learning_rate), self.mixture(shares, seed))
                with ledger.phase("train"):
                    schedule = optim.constant(min(20, self.steps // 10))
                    train(run, next_token, until=self.steps, ledger=ledger, schedule=schedule)
            with ledger.phase("evaluate"):
                found = losses(model, _held_out(self.texts, self.evaluated, self.held_out), ledger)
        except ValueError as error:
            raise ValueError(f"the training on {' and '.join(shares) or 'nothing'}, seed {seed}: {error}") from error
        book(ledger, cost_file(self.folder, shares, seed))
        return found

    def mixture(self, shares: Mapping[str, float], seed: int) -> Mixture:
        pools = {name: _pool(self.texts, name) for name in shares}
        return Mixture(pools, shares, batch_size=self.batch, seed=seed)


@cache
def _pool(texts: Texts, name: str) -> Any:
    return texts.windows(name, "train")


@cache
def _held_out(texts: Texts, names: tuple[str, ...], count: int) -> dict[str, list[Batch]]:
    return {name: texts.held_out(name, count) for name in names}


@dataclass(frozen=True)
class Start:
    """The model that all trainings start from: one that exists, or a preset trained first on all skills alike.

    batch, learning_rate  of its training and of those that start from it
    """

    model: str
    steps: int
    batch: int
    learning_rate: float

    @classmethod
    def of(cls, model: str, steps: int, batch: int, learning_rate: float | None) -> Start:
        rate = learning_rate or (NEW_RATE if model in presets.names() else TRAINED_RATE)
        return cls(model, steps, batch, rate)

    @property
    def preset(self) -> bool:
        return self.model in presets.names()

    def told(self, length: int) -> str:
        """What tells the model from others. Raises ValueError where there is none, or its context is too short."""
        if self.preset or ("/" not in self.model and not Path(self.model).exists()):
            presets.configuration(self.model, 1, length)  # a wrong name is refused, and the nearest named
            return f"{self.model} after {self.steps} steps on all"
        return f"{self.model} {_fingerprint(folders.find(self.model), length)}"

    def tokenizer(self, spec: str | None, texts: Any, folder: Path) -> Path:
        """The tokenizer's folder below `folder`, made once."""
        target = folder / "tokenizer"
        if not target.exists():
            tokenizer = (
                tokenizers.resolve(spec or "bytes", texts)
                if self.preset
                else tokenizers.load(str(folders.find(self.model)))
            )
            beside = folder / "tokenizer.partial"
            shutil.rmtree(beside, ignore_errors=True)
            tokenizer.save_pretrained(beside)
            beside.rename(target)
        return target

    def folder(self, texts: Texts, trained: tuple[str, ...], out: Path, tell: Tell) -> Path:
        """The model's folder; a preset's is trained below `out`, once, and goes on where it was stopped."""
        if not self.preset:
            return folders.find(self.model)
        target = out / _BASE
        if not target.exists():
            tokenizer = opened(texts.tokenizer)
            runtime.start()
            config = presets.configuration(self.model, len(tokenizer), texts.length)
            model = presets.build(config, 0)
            if self.steps:
                model = self._trained(model, texts, trained, out, tell)
            pretrained.save(model, tokenizer, target)
            shutil.rmtree(out / _KEPT, ignore_errors=True)
        return target

    def _trained(self, model: Any, texts: Texts, trained: tuple[str, ...], out: Path, tell: Tell) -> Any:
        pools = {name: _pool(texts, name) for name in trained}
        run = Run(model, optim.adamw(model, self.learning_rate), Mixture(pools, batch_size=self.batch, seed=0))
        ledger = Ledger()
        stopped = checkpoint.latest(out / _KEPT)
        if stopped is not None:
            checkpoint.load(stopped, run, ledger=ledger)
        save = Save(out / _KEPT, (), ledger, opened(texts.tokenizer), keep=1)
        hooks: list[Hook] = [
            lambda run: tell("steps of the base", run.step, self.steps),
            Every(_SAVED, Spaced(_SAVE_SECONDS, save)),
        ]
        schedule = optim.warmup_stable_decay(self.steps, self.steps // 5, min(100, self.steps // 10))
        with ledger.phase("train"):
            train(run, next_token, until=self.steps, hooks=hooks, ledger=ledger, schedule=schedule)
        files.replace(out / _COSTS / "base.json", json.dumps(ledger.state_dict()))  # which tells of all so far
        return runtime.unwrap(run.model)


@cache
def _fingerprint(folder: Path, length: int) -> str:
    folders.check_weights(folder)
    config = folders.read_json(folder / "config.json", "the configuration of a Hugging Face model")
    context = config.get("max_position_embeddings", config.get("n_positions", length))
    if context < length:
        raise ValueError(f"--length {length}: {folder} has a context of {context} tokens")
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for file in folders.weight_files(folder):
        digest.update(manifest.sha256(file).encode())
    return digest.hexdigest()[:16]


def cost_file(folder: Path, shares: Mapping[str, float], seed: int) -> Path:
    return folder / _COSTS / file_name(shares, seed)


def book(ledger: Ledger, path: Path) -> None:
    """Add to what is booked in a file: a training that is done again, such as for other skills, is paid for again."""
    before, now = cost(path), {phase: Cost(**amounts) for phase, amounts in ledger.state_dict().items()}
    whole = {phase: before.get(phase, Cost()) + now.get(phase, Cost()) for phase in {**before, **now}}
    files.replace(path, json.dumps({phase: spent.as_dict() for phase, spent in whole.items()}))


def cost(path: Path) -> dict[str, Cost]:
    """What is booked in a file, by phase; nothing where it is not there."""
    if not path.exists():
        return {}
    booked = files.read_json(path, "delete it: its cost is then not counted")
    return {phase: Cost(**amounts) for phase, amounts in booked.items()}


def base_cost(folder: Path) -> dict[str, Cost]:
    return cost(folder / _COSTS / "base.json")


def claim(folder: Path, options: Mapping[str, Any]) -> None:
    """Make a folder this graph's, or see that it is. Raises ValueError where what was paid for is another's."""
    kept = folder / "begun.json"
    try:
        if folder.exists() and not kept.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder}: holds files that are no trainings: give another --folder")
        if kept.exists():
            before = files.read_json(kept, f"delete {folder}, or give another --folder")
            if not isinstance(before, dict):
                raise ValueError(f"{kept}: holds {before!r}, expected options: give another --folder")
            changed = [name for name in options if before.get(name) != options[name]]
            paid = any((folder / _COSTS).glob("*.json")) or (folder / _KEPT).exists()
            if changed and paid:
                name = changed[0]
                was, now = (told.get(name) or "none" for told in (before, options))
                raise ValueError(f"{folder}: begun with {name} {was}, now {now}: give another --folder")
            if changed:  # and nothing is paid for: what was prepared is prepared anew
                for name in ("tokenizer", _BASE):
                    shutil.rmtree(folder / name, ignore_errors=True)
                for name in ("of.json", "settled.json"):
                    (folder / name).unlink(missing_ok=True)
        files.replace(kept, json.dumps(dict(options), indent=1) + "\n")
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written ({error.strerror}): give another --folder") from error
