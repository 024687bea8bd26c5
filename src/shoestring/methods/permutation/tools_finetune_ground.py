"""What a fine-tuning stands on: its rows, the model that learns from them, and how to compute."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from shoestring import runtime
from shoestring.methods.permutation import tools_opened
from shoestring.methods.permutation.feature_stream import FeatureBatches
from shoestring.methods.permutation.heads import with_head
from shoestring.methods.permutation.layer_decay import parameter_groups
from shoestring.methods.permutation.long_documents import READ, reach
from shoestring.methods.permutation.tools_finetune_setting import Setting
from shoestring.methods.permutation.tools_rows import Asked, Rows
from shoestring.methods.permutation.tools_tasks import Task, learnt
from shoestring.train.settle import Settled, settle
from shoestring.types import Run

_WIDE, _RATE, _WIDE_RATE = 512, 3e-4, 3e-5
_WEIGHT_DECAY, _BETAS = 0.01, (0.9, 0.98)


@dataclass(frozen=True)
class Ground:
    """The rows, and the model that learns from them."""

    setting: Setting
    out: Path
    start: Path
    rows: Rows

    @cached_property
    def pretrained(self) -> PreTrainedModel:
        return tools_opened.model_of(self.start, torch.float32)

    @cached_property
    def task(self) -> Task:
        setting, tokenizer = self.setting, tools_opened.tokenizer_of(self.start, self.pretrained)
        none = any(isinstance(row, Asked) and not row.answers for row in self.rows.train)
        known = tokenizer, tools_opened.vocabulary_of(self.start, tokenizer)
        seen = reach(self.pretrained.config.n_layer, setting.length, setting.memory)
        return Task(setting.task, *known, self.rows.labels, setting.length, setting.memory, seen, none)

    @cached_property
    def learnt(self) -> list[Any]:
        return learnt(self.task, self.rows.train)

    @property
    def epoch(self) -> int:
        """Steps of one."""
        return max(1, len(self.learnt) // self.setting.batch)

    def run(self) -> Run:
        """A run at its first step."""
        setting, task = self.setting, self.task
        runtime.seed_everything(setting.seed)
        labels = task.labels if setting.task == "classification" else None
        model = with_head(self.pretrained, setting.task, labels, seed=setting.seed).train()
        read = {"window": setting.length, "memory": setting.memory}
        setattr(model.config, READ, read if setting.memory else None)
        rate = setting.learning_rate or (_RATE if model.config.d_model < _WIDE else _WIDE_RATE)
        groups = parameter_groups(model, rate, setting.layer_decay, _WEIGHT_DECAY)
        optimizer = torch.optim.AdamW(groups, betas=_BETAS, fused=True)
        return Run(model, optimizer, FeatureBatches(self.learnt, task.vocabulary.pad, setting.batch, setting.seed))


def settled(ground: Ground) -> Settled:
    """How to compute, measured on the first batch. Raises ValueError where a row cannot be read, or one process of
    several is this."""
    setting, here = ground.setting, runtime.start(processes=1)
    for row in (*ground.rows.dev, *ground.rows.test):
        ground.task.features(row)
    if len(ground.learnt) < setting.batch:
        there = f"{setting.train}: {len(ground.learnt)} examples to learn from"
        raise ValueError(f"{there}: expected --batch {setting.batch} or more: give more rows, or a smaller --batch")
    run, kept = ground.run(), ground.out / "settled.json"
    batch, steps = next(iter(run.batches)), setting.epochs * ground.epoch
    assert isinstance(run.model, PreTrainedModel)
    how = settle(run.model, ground.task.loss, batch, steps, kept, runtime.threads(here.processes), one_shape=False)
    runtime.start(how.precision, processes=1)
    return how
