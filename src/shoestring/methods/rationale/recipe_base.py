"""The experiment's common start: a preset that has read plain text."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from shoestring import files, runtime
from shoestring.cost import Ledger
from shoestring.data import corpora, tokenizers
from shoestring.data.batches import TokenBatches
from shoestring.data.tokens import packed
from shoestring.methods.rationale.corruption import Corrupted, marks
from shoestring.methods.rationale.encode import Family
from shoestring.methods.rationale.recipe_schema import Recipe
from shoestring.models import pretrained
from shoestring.train import optim
from shoestring.train.objectives import next_token, sequence_to_sequence
from shoestring.train.resumed import resumed
from shoestring.train.settle import Settled
from shoestring.train.side_by_side import Show
from shoestring.types import Batches, Run

SPENT = "ledger.json"


@dataclass(frozen=True)
class Pretraining:
    """Train a base, from where it was stopped if it was, and leave its folder, with what it cost.

    work  where its checkpoints lie
    """

    recipe: Recipe
    model: PreTrainedModel
    family: Family
    tokenizer: Path
    settled: Settled
    folder: Path
    work: Path

    def __call__(self, show: Show) -> None:
        base, ledger = self.recipe.base, Ledger()
        assert base is not None
        here = runtime.start(self.settled.precision, self.recipe.compute.processes)
        torch.set_num_threads(runtime.threads(self.recipe.compute.processes))  # no run goes on beside it
        tokenizer = tokenizers.load(str(self.tokenizer))
        tokens = packed(corpora.located(base.text), "train", tokenizer)
        windows = TokenBatches(tokens, base.batch, base.length, base.seed, here.rank, here.processes)
        batches: Batches = windows
        if self.family == "encoder-decoder":
            ids = [int(tokenizer.convert_tokens_to_ids(mark)) for mark in marks()]
            batches = Corrupted(windows, ids, int(tokenizer.eos_token_id), base.seed + here.rank)
        run = Run(self.model, optim.adamw(self.model, base.learning_rate, weight_decay=0.01), batches)
        resumed(
            run,
            sequence_to_sequence if self.family == "encoder-decoder" else next_token,
            until=base.steps,
            folder=self.work,
            ledger=ledger,
            tokenizer=tokenizer,
            show=show,
            save_seconds=self.recipe.compute.save_seconds,
            schedule=optim.warmup_stable_decay(base.steps, base.steps // 2, min(200, base.steps // 10)),
        )
        beside = self.folder.with_name(f"{self.folder.name}.partial")
        if here.rank == 0:
            shutil.rmtree(beside, ignore_errors=True)  # of a run that was killed just before it was renamed
        pretrained.save(run.model, tokenizer, beside)
        if here.rank == 0:
            files.replace(beside / SPENT, json.dumps(ledger.state_dict()))
            beside.rename(self.folder)
