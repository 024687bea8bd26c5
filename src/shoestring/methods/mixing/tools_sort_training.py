"""The small trainings that `sort` looks at: how the loss of every sample moves in each, kept until all have ended."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn
    from transformers import PreTrainedTokenizerFast

    from shoestring.methods.mixing.tools_trainings import Start
    from shoestring.methods.mixing.trajectories import Trajectories
    from shoestring.types import Batch, Hook, Run

Progress = Callable[[int, int], None]
BATCH, BUCKETS = 16, 4096
_SAVED, _SAVE_SECONDS = 10, 30.0  # steps and seconds between two chances to save


class By(StrEnum):
    losses = "losses"
    falls = "falls"
    embeddings = "embeddings"
    counts = "counts"


class Features(NamedTuple):
    """(samples, d) by each way; the folder of the trainings that they come from, where there were any."""

    by: dict[By, NDArray[Any]]
    kept: Path | None


@dataclass(frozen=True)
class Training:
    """The small trainings whose losses are looked at.

    folder   keeps their checkpoints: those of the same model, samples and options go on from them
    """

    model: str
    tokenizer: str | None
    length: int
    runs: int
    steps: int
    checkpoints: int
    learning_rate: float | None
    seed: int
    folder: Path

    @property
    def trained(self) -> bool:
        return "/" in self.model or Path(self.model).exists()

    def check(self) -> None:
        if self.checkpoints > self.steps:
            raise ValueError(f"--checkpoints {self.checkpoints} of --steps {self.steps}: expected at most as many")
        if self.trained and self.tokenizer is not None:
            raise ValueError(f"--tokenizer {self.tokenizer}: {self.model} has its own: leave the option out")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("sort runs in one process: start it without torchrun")

    def features(self, texts: Sequence[str], wanted: Sequence[By], progress: Progress) -> Features:
        """What the samples are told apart by, in each way that is wanted."""
        import numpy as np

        from shoestring.data import tokenizers
        from shoestring.methods.mixing import clusters, embeddings
        from shoestring.methods.mixing.trajectories import RaggedBatches

        tokenizer, build = self._built(texts)
        end = np.int64(tokenizer.eos_token_id)
        ids = [np.append(row, end)[: self.length] for row in tokenizers.encoder(tokenizer)(texts)]
        batches = RaggedBatches(ids, BATCH, self.seed).in_order()
        found = {By.counts: embeddings.token_counts(batches, min(len(tokenizer), BUCKETS)).numpy()}
        kept = None
        if list(wanted) != [By.counts]:
            kept = self.folder / self._mark(ids, tokenizers.fingerprint(tokenizer))
            taken = []
            for number in range(self.runs):
                stream = RaggedBatches(ids, BATCH, self.seed + number)
                model, losses = self._run(number, build, stream, batches, kept, progress)
                taken.append(losses)
            found[By.losses] = np.concatenate(taken, axis=1)
            found[By.falls] = clusters.falls(found[By.losses])
            found[By.embeddings] = clusters.standardised(embeddings.pooled(model, batches).numpy())
        return Features({way: found[way] for way in wanted}, kept)

    @property
    def _start(self) -> Start:
        from shoestring.methods.mixing.tools_trainings import Start

        return Start.of(self.model, 0, BATCH, self.learning_rate)

    def _mark(self, ids: Sequence[NDArray[Any]], tokenizer: str) -> str:
        """What tells these trainings from others: model, samples and options."""
        start = self._start
        told = [start.told(self.length), tokenizer, start.learning_rate, self.steps, self.checkpoints, self.seed]
        digest = hashlib.sha256(json.dumps([*told, [len(row) for row in ids]]).encode())
        for row in ids:
            digest.update(row.tobytes())
        return digest.hexdigest()[:16]

    def _run(
        self,
        number: int,
        build: Callable[[int], nn.Module],
        stream: Any,
        batches: Sequence[Batch],
        kept: Path,
        show: Progress,
    ) -> tuple[nn.Module, NDArray[Any]]:
        """Train from one seed; (samples, checkpoints) of losses. It goes on from where it was stopped."""
        from shoestring import runtime
        from shoestring.methods.mixing.trajectories import Trajectories
        from shoestring.train import checkpoint, optim
        from shoestring.train.hooks import Every, Save, Spaced
        from shoestring.train.loop import train
        from shoestring.train.objectives import next_token
        from shoestring.types import Run

        runtime.seed_everything(self.seed + number)  # a trained model may have dropout
        model = build(self.seed + number)
        run = Run(model, optim.adamw(model, self._start.learning_rate), stream)
        taken = Trajectories(batches)
        folder = kept / f"run-{number}"
        stopped = checkpoint.latest(folder)
        if stopped is not None:
            checkpoint.load(stopped, run, hooks=[taken])
        show(number * self.steps + run.step, self.runs * self.steps)
        if run.step < self.steps:
            save = Save(folder, (taken,), keep=1)
            hooks: list[Hook] = [self._look(number, taken, show), Every(_SAVED, Spaced(_SAVE_SECONDS, save))]
            schedule = optim.constant(min(20, self.steps // 10))
            train(run, next_token, until=self.steps, hooks=hooks, schedule=schedule)
            save(run)
        return runtime.unwrap(run.model), taken.losses

    def _look(self, number: int, taken: Trajectories, show: Progress) -> Hook:
        at = {round(self.steps * (place + 1) / self.checkpoints) for place in range(self.checkpoints)}

        def look(run: Run) -> None:
            if run.step in at:
                taken(run)
            show(number * self.steps + run.step, self.runs * self.steps)

        return look

    def _built(self, texts: Sequence[str]) -> tuple[PreTrainedTokenizerFast, Callable[[int], nn.Module]]:
        """The tokenizer, and the model that a seed begins with."""
        import copy

        import torch

        from shoestring.data import tokenizers
        from shoestring.models import presets, pretrained

        if self.trained:
            kept, _ = pretrained.load(self.model, torch.float32)
            context = kept.config.max_position_embeddings
            if context < self.length:
                raise ValueError(f"--length {self.length}: {self.model} has a context of {context} tokens")
            return tokenizers.load(self.model), lambda seed: copy.deepcopy(kept)
        presets.configuration(self.model, 1, self.length)  # a wrong name is refused before a tokenizer is trained
        tokenizer = tokenizers.resolve(self.tokenizer or "bytes", texts)
        config = presets.configuration(self.model, len(tokenizer), self.length)
        return tokenizer, lambda seed: presets.build(config, seed)
