"""What all runs of the experiment stand on: the tokenizer, the common start, and how to compute."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shoestring import files, runtime
from shoestring.cost import Ledger
from shoestring.data import tokenizers
from shoestring.methods.mixing.mixture import Mixture
from shoestring.methods.mixing.recipe_schema import Recipe
from shoestring.methods.mixing.recipe_tasks import (
    Task,
    base_text,
    fingerprints,
    look_ups,
    task,
    tokenizer_texts,
)
from shoestring.methods.mixing.recipe_tasks_schema import Start
from shoestring.methods.mixing.samples import Samples
from shoestring.methods.mixing.windows import Windows
from shoestring.models import presets, pretrained
from shoestring.train import optim
from shoestring.train.objectives import next_token
from shoestring.train.resumed import resumed
from shoestring.train.settle import Settled, settle
from shoestring.train.side_by_side import Job, Show, affordable, side_by_side
from shoestring.types import Batch, Run

_SPENT = "ledger.json"


@dataclass(frozen=True)
class Ground:
    """Where the tokenizer and the common start lie, and what was settled.

    start   a model folder that every run goes on from; None where each seed draws its own weights
    data    fingerprints of what is read
    """

    recipe: Recipe
    tokenizer: Path
    start: Path | None
    settled: Settled
    workers: int
    data: dict[str, str]

    def task(self) -> Task:
        return task(self.recipe, self.tokenizer)

    def opened_tokenizer(self) -> PreTrainedTokenizerBase:
        return tokenizers.load(str(self.tokenizer))

    def model(self, seed: int) -> PreTrainedModel:
        """The model before its first step, in training mode."""
        runtime.seed_everything(seed)
        if self.start is None:
            model = _preset(self.recipe, self.tokenizer, self.task().length, seed)
        else:
            model = pretrained.load(self.start)[0].float().train()
        if self.settled.compiled:
            model.compile(dynamic=False)
        return model


def prepare(recipe: Recipe, runs: int, ledger: Ledger, out: Path) -> Ground:
    """Choose how to compute and train the base; both are kept, and found again by a resumed run.

    runs  how many there will be, which may go side by side
    Raises ValueError where `out` was begun on data that has changed since.
    """
    compute = recipe.compute
    here = runtime.start(processes=compute.processes, sharding=compute.sharding)
    found = _named_model(recipe)
    folder = out / "tokenizer"
    with here.accelerator.main_process_first():
        data = fingerprints(recipe)
        if here.rank == 0:
            if not (out / "runs").exists():  # nothing was computed yet in the way that is kept there
                (out / "settled.json").unlink(missing_ok=True)
            files.begun_on(out, data)
            opened = (
                pretrained.load(found)[1]
                if found
                else tokenizers.resolve(recipe.model.tokenizer, tokenizer_texts(recipe))
            )
            opened.save_pretrained(folder)
        tasked = task(recipe, folder)
        model = pretrained.load(found)[0].train() if found else _preset(recipe, folder, tasked.length, recipe.seeds[0])
        batch = _batch(recipe, tasked, here.processes)
        workers = compute.workers or affordable(runs, _bytes(model, batch))
        threads = runtime.threads(workers * here.processes)
        settled = settle(model, next_token, batch, recipe.steps, out / "settled.json", threads, compute.precision)
    start = found
    if recipe.base is not None:
        start = out / "base"
        if not start.exists():
            job = Job("base", _Training(recipe, recipe.base, Ground(recipe, folder, None, settled, workers, data), out))
            side_by_side([job], 1)
        here.accelerator.wait_for_everyone()
        ledger.absorb(files.read_json(start / _SPENT, "delete the folder, and the base is trained again"), "base")
    return Ground(recipe, folder, start, settled, workers, data)


@dataclass(frozen=True)
class _Training:
    """Train the base, from where it was stopped if it was, and leave its folder, with what it cost."""

    recipe: Recipe
    base: Start
    ground: Ground
    out: Path

    def __call__(self, show: Show) -> None:
        base, here, ledger = self.base, runtime.current(), Ledger()
        runtime.start(self.ground.settled.precision, self.recipe.compute.processes, self.recipe.compute.sharding)
        model = self.ground.model(base.seed)
        run = Run(model, optim.adamw(model, base.learning_rate), self._batches(here.rank, here.processes))
        tokenizer = self.ground.opened_tokenizer()
        warmup = min(100, base.steps // 10)
        resumed(
            run,
            next_token,
            until=base.steps,
            folder=self.out / "runs" / "base",
            ledger=ledger,
            tokenizer=tokenizer,
            show=show,
            save_seconds=self.recipe.compute.save_seconds,
            schedule=optim.warmup_stable_decay(base.steps, base.steps // 5, warmup),
        )
        beside = pretrained.save(run.model, tokenizer, self.out / "base.partial")
        if here.rank == 0:
            files.replace(beside / _SPENT, json.dumps(ledger.state_dict()))
            beside.rename(self.out / "base")

    def _batches(self, rank: int, world: int) -> Mixture:
        recipe, base = self.recipe, self.base
        samples: Samples | Windows
        if base.text is None:
            assert recipe.lego is not None
            samples = look_ups(recipe.lego.clauses, self.ground.tokenizer, base.seed)
        else:
            samples = base_text(base.text, self.ground.task().length, self.ground.tokenizer)
        return Mixture({"base": samples}, batch_size=base.batch, seed=base.seed, rank=rank, world=world)


def _named_model(recipe: Recipe) -> Path | None:
    """The folder of a model that is gone on from; None where the recipe names a preset."""
    if recipe.model.name in presets.names():
        return None
    if recipe.base is not None:
        raise ValueError(f"model.name is {recipe.model.name!r}, with a base: expected a preset, which it is trained of")
    from shoestring.models.folders import find

    return find(recipe.model.name)


def _preset(recipe: Recipe, tokenizer: Path, length: int, seed: int) -> PreTrainedModel:
    size = len(tokenizers.load(str(tokenizer)))
    longest = length if recipe.lego is None else max(length, _LOOKED_UP * recipe.lego.clauses)
    return presets.build(presets.configuration(recipe.model.name, size, longest, **recipe.model.changes), seed)


_LOOKED_UP = 5  # characters of a clause and of its question, in what a base for LEGO looks up


def _batch(recipe: Recipe, tasked: Task, processes: int) -> Batch:
    mixture = Mixture(tasked.pools, batch_size=max(1, recipe.batch // processes), seed=0)
    batch: Batch = next(iter(mixture))
    return batch


def _bytes(model: PreTrainedModel, batch: Batch) -> float:
    """An estimate of the memory of one run: weights, gradients, two moments, activations."""
    config, tokens = model.config, batch["input_ids"].numel()
    activations = tokens * (config.vocab_size * 12 + config.num_hidden_layers * config.hidden_size * 4 * 34)
    return float(7e8 + 16 * model.num_parameters() + activations)
