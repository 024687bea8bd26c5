"""Sort a heap of samples into skills that nobody named, by how a small model's loss on each moves while it learns."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn
    from transformers import PreTrainedTokenizerFast

    from shoestring.methods.mixing.clusters import Recovered
    from shoestring.methods.mixing.documents import Sample
    from shoestring.types import Run

Progress = Callable[[int, int], None]
KNOWN = ("domain", "skill", "task")
BATCH, BUCKETS = 16, 4096
SHOWN = 2  # samples of a skill in the table


class By(StrEnum):
    losses = "losses"
    falls = "falls"
    embeddings = "embeddings"
    counts = "counts"


def sort(
    data: Annotated[Path, typer.Argument(help="A .jsonl, .parquet or .txt (cut at blank lines), or a folder of such.")],
    skills: Annotated[int, typer.Option(min=2, help="How many to find.")],
    out: Annotated[Path, typer.Option(help="JSON lines: each record, and the number of its skill.")] = Path(
        "sorted.jsonl"
    ),
    by: Annotated[By, typer.Option(help="Losses, how they fall, hidden states, or counts of tokens.")] = By.losses,
    model: Annotated[str, typer.Option(help="A preset, or the folder or Hub name of a trained model.")] = "neox-tiny",
    tokenizer: Annotated[
        str | None,
        typer.Option(help="bytes (unless said), bpe:SIZE, a folder, a Hub name; a trained model has its own."),
    ] = None,
    text_field: Annotated[
        list[str] | None, typer.Option(help="Where the text is; repeated for a question and its answer.")
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="At most so many, drawn by seed; the rest is left out.")] = 2000,
    length: Annotated[int, typer.Option(min=2, help="Tokens of each sample, from its start.")] = 128,
    runs: Annotated[int, typer.Option(min=1, help="Trainings, each from another seed.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Of each training.")] = 300,
    checkpoints: Annotated[int, typer.Option(min=1, help="How often in a training the losses are taken.")] = 20,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-12, help="0.001 for a preset, 5e-05 for a trained model, unless said.")
    ] = None,
    known: Annotated[
        str | None, typer.Option(help="A field to compare with, never to sort by: domain, skill or task unless said.")
    ] = None,
    field: Annotated[str, typer.Option(help="What the number of the skill is called in --out.")] = "skill",
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of the draw, the weights and the groups.")] = 0,
) -> None:
    """Find skills in unsorted samples, and write each record with the number of its skill."""
    from rich.console import Console
    from rich.progress import Progress

    from shoestring import files
    from shoestring.methods.mixing.documents import read
    from shoestring.methods.mixing.tools_sorted import recovered_table, skills_table

    training = Training(model, tokenizer, length, runs, steps, checkpoints, learning_rate, seed)
    training.check()
    _check_out(out, data)
    drawn, total = read(data, text_field or ["text"], samples, seed)
    if any(field in sample.record for sample in drawn):
        raise ValueError(f"{data}: its records have a field {field!r} already: give another --field")
    truth = told(drawn, known)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=None)
        found = find(drawn, skills, by, training, truth, lambda done, of: bar.update(task, completed=done, total=of))
    records = ({**sample.record, field: skill} for sample, skill in zip(drawn, found.skills, strict=True))
    files.replace(out, "".join(json.dumps(record, default=str) + "\n" for record in records))
    console = Console()
    console.print(skills_table(drawn, found, truth))
    if truth is not None:
        console.print(recovered_table(found, truth, by))
    rest = f"; --samples {total} sorts all {total:,}" if total > len(drawn) else ""
    typer.echo(f"{out}: {len(drawn):,} samples in {skills} skills by {by}{rest}")


class Truth(NamedTuple):
    """What somebody else calls the skill of each sample."""

    field: str
    values: list[str]


class Found(NamedTuple):
    """The skill of each sample, samples near the middle of each skill, and what each way recovers of a truth."""

    skills: list[int]
    typical: list[list[int]]
    recovered: dict[str, Recovered | str]


@dataclass(frozen=True)
class Training:
    """The small trainings whose losses are looked at."""

    model: str
    tokenizer: str | None
    length: int
    runs: int
    steps: int
    checkpoints: int
    learning_rate: float | None
    seed: int

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

    def features(self, texts: Sequence[str], wanted: Sequence[By], progress: Progress) -> dict[By, NDArray[Any]]:
        """(samples, d) of each way that is wanted."""
        import numpy as np

        from shoestring.data import tokenizers
        from shoestring.methods.mixing import clusters, embeddings
        from shoestring.methods.mixing.trajectories import RaggedBatches, Trajectories

        tokenizer, build = self._built(texts)
        end = np.int64(tokenizer.eos_token_id)
        ids = [np.append(row, end)[: self.length] for row in tokenizers.encoder(tokenizer)(texts)]
        batches = RaggedBatches(ids, BATCH, self.seed).in_order()
        found = {By.counts: embeddings.token_counts(batches, min(len(tokenizer), BUCKETS)).numpy()}
        if list(wanted) != [By.counts]:
            taken = Trajectories(batches)
            for number in range(self.runs):
                model = self._run(number, build, RaggedBatches(ids, BATCH, self.seed + number), taken, progress)
            found[By.losses], found[By.falls] = taken.losses, clusters.falls(taken.losses)
            found[By.embeddings] = clusters.standardised(embeddings.pooled(model, batches).numpy())
        return {way: found[way] for way in wanted}

    def _run(
        self, number: int, build: Callable[[int], nn.Module], stream: Any, taken: Callable[[Run], None], show: Progress
    ) -> nn.Module:
        from shoestring import runtime
        from shoestring.methods.mixing.tools_trainings import NEW_RATE, TRAINED_RATE
        from shoestring.train import optim
        from shoestring.train.loop import train
        from shoestring.train.objectives import next_token
        from shoestring.types import Run

        at = {round(self.steps * (place + 1) / self.checkpoints) for place in range(self.checkpoints)}

        def look(run: Run) -> None:
            if run.step in at:
                taken(run)
            show(number * self.steps + run.step, self.runs * self.steps)

        runtime.seed_everything(self.seed + number)  # a trained model may have dropout
        model = build(self.seed + number)
        rate = self.learning_rate or (TRAINED_RATE if self.trained else NEW_RATE)
        run = Run(model, optim.adamw(model, rate), stream)
        schedule = optim.constant(min(20, self.steps // 10))
        return train(run, next_token, until=self.steps, hooks=[look], schedule=schedule).model

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


def find(
    samples: Sequence[Sample], skills: int, by: By, training: Training, truth: Truth | None, progress: Progress
) -> Found:
    """Group samples by one way; where a truth is known, by every way, to compare."""
    from shoestring.methods.mixing import clusters

    if len(samples) < skills:
        raise ValueError(
            f"--skills {skills} of {len(samples)} samples: ask for fewer, or give more (in a .txt: paragraphs)"
        )
    clusters.needed()
    features = training.features([sample.text for sample in samples], [by] if truth is None else list(By), progress)
    labels = clusters.cluster(features[by], skills, training.seed)
    typical = clusters.typical(features[by], labels, SHOWN)
    found: dict[str, Recovered | str] = {}
    if truth is not None:
        for way, of_way in features.items():
            try:
                groups = labels if way is by else clusters.cluster(of_way, skills, training.seed)
            except ValueError as error:  # such as counts that are all alike: the others are still to be compared
                found[way] = str(error)
            else:
                found[way] = clusters.recovered(groups, truth.values, training.seed)
    return Found(labels.tolist(), typical, found)


def told(samples: Sequence[Sample], known: str | None) -> Truth | None:
    """What the samples' own records, else their files' names, say of their skills; None where they tell none apart."""
    for field in [known] if known is not None else KNOWN:
        values = [str(sample.record[field]) for sample in samples if sample.record.get(field) is not None]
        if len(values) == len(samples) and len(set(values)) > 1:
            return Truth(field, values)
    if known is not None:
        raise ValueError(
            f"--known {known}: expected it in every record, with two values or more; {len(values)} have it"
        )
    domains = [sample.domain for sample in samples]
    return Truth("file", domains) if len(set(domains)) > 1 else None


def _check_out(out: Path, data: Path) -> None:
    """Before anything is trained. Raises ValueError where the result could not be written, or would be read as data."""
    if out.suffix != ".jsonl" or out.is_dir():
        raise ValueError(f"--out {out}: expected the name of a file ending in .jsonl")
    if out.resolve().is_relative_to(data.resolve()):
        raise ValueError(
            f"--out {out}: it is the data, or in its folder, where it would be read as data: write elsewhere"
        )
    if out.parent.exists() and not os.access(out.parent, os.W_OK):
        raise ValueError(f"--out {out}: its folder cannot be written: give another")
