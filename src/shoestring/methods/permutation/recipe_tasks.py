"""The tasks that a pretrained model is taught: their files, and the fine-tuning of one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from shoestring import files, runtime
from shoestring.cost import Ledger
from shoestring.data import corpora, formats, tokenizers
from shoestring.methods.permutation.feature_stream import FeatureBatches, headed
from shoestring.methods.permutation.features import Feature, classification, collate
from shoestring.methods.permutation.heads import with_head
from shoestring.methods.permutation.layer_decay import parameter_groups
from shoestring.methods.permutation.recipe_schema import FineTuning, Recipe, TaskSet
from shoestring.methods.permutation.rows import Labelled, classes, held_out, labelled
from shoestring.methods.permutation.vocabulary import Vocabulary
from shoestring.models.modes import evaluating
from shoestring.train import optim
from shoestring.train.hooks import Progress
from shoestring.train.loop import DivergedError
from shoestring.train.loop import train as trained
from shoestring.train.side_by_side import Show
from shoestring.types import Run


@dataclass(frozen=True)
class Task:
    """A set in its parts, and the labels of train in order."""

    train: tuple[Labelled, ...]
    dev: tuple[Labelled, ...]
    test: tuple[Labelled, ...]
    labels: tuple[str, ...]


@cache
def read(one: TaskSet) -> Task:
    """The examples of a set; dev is a tenth of train, by a hash of the first text. Raises ValueError where one is not
    what its columns say, or test has a label that train has not."""
    every, test = _examples(one, one.train), _examples(one, one.test)
    dev = [row for row in every if held_out(row.texts[0])]
    train = [row for row in every if not held_out(row.texts[0])]
    if one.limit is not None:
        train, dev, test = (_some(rows, one.limit) for rows in (train, dev, test))
    labels = classes(train)
    if len(labels) < 2 or not dev or not test:
        raise ValueError(f"{one.train}: {len(train)} and {len(dev)} examples of the labels {labels}: expected more")
    for name, examples in ((one.train, dev), (one.test, test)):
        strange = {example.label for example in examples} - {*labels}
        if strange:
            raise ValueError(
                f"{name}: the label {sorted(strange)[0]!r} is none of those that are learnt: {', '.join(labels)}"
            )
    return Task(tuple(train), tuple(dev), tuple(test), labels)


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Of the files of all tasks, by name. Each is read, so that what is wrong with one is told before all else."""
    sets, batch = recipe.fine_tuning.sets, recipe.fine_tuning.batch
    for one in sets:
        if len(read(one).train) < batch:
            raise ValueError(f"{one.train}: {len(read(one).train)} examples: expected a batch of {batch} or more")
    return {name: corpora.fingerprint(str(files.find(name))) for one in sets for name in (one.train, one.test)}


def taught(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    one: TaskSet,
    how: FineTuning,
    seed: int,
    ledger: Ledger,
    show: Show,
) -> dict[str, float]:
    """Fine-tune at each rate and take the one that is best on dev: its accuracy on both, and its rate.

    What is drawn hangs on the seed alone, not on what was taught before. Raises DivergedError where it diverged at
    every rate.
    """
    task, vocabulary, encode = read(one), Vocabulary.of(tokenizer), tokenizers.encoder(tokenizer)
    here = runtime.current()

    def made(examples: tuple[Labelled, ...]) -> list[Feature]:
        return [
            classification(
                vocabulary,
                encode,
                some.texts[0],
                some.texts[1] if len(some.texts) > 1 else None,
                how.length,
                some.label,
                task.labels,
            )
            for some in examples
        ]

    ledger.charge(labels=len(task.train) + len(task.dev))
    train, dev, test = made(task.train), made(task.dev), made(task.test)
    best: dict[str, float] = {}
    steps = how.epochs * len(train) // how.batch
    for rate in how.learning_rates:
        runtime.seed_everything(seed)
        learner = with_head(model, "classification", task.labels, seed=seed).to(here.device).train()
        groups = parameter_groups(learner, rate, how.layer_decay, how.weight_decay)
        optimizer = torch.optim.AdamW(groups, betas=how.betas, fused=True)
        feed = FeatureBatches(train, vocabulary.pad, how.batch, seed, here.rank, here.processes)
        schedule = optim.warmup_stable_decay(steps + 1, steps - steps // 10, steps // 10)
        hooks = [Progress(steps, ledger, show)]
        run = Run(learner, optimizer, feed)
        try:
            trained(run, headed, until=steps, hooks=hooks, ledger=ledger, schedule=schedule)
        except DivergedError:
            continue
        found = accuracy(run.model, dev, vocabulary.pad)
        if not best or found > best["dev"]:
            best = {"dev": found, "test": accuracy(run.model, test, vocabulary.pad), "rate": rate}
    if not best:
        raise DivergedError(f"{one.name}: it diverged at every one of fine_tuning.learning_rates")
    return best


def accuracy(model: nn.Module, features: list[Feature], pad: int) -> float:
    right = 0
    by_length = sorted(features, key=lambda feature: len(feature.ids))
    with evaluating(model), runtime.current().autocast():
        for at in range(0, len(by_length), 128):
            batch = _placed(by_length[at : at + 128], pad)
            right += int((model(**batch).logits.argmax(-1) == batch["labels"]).sum())
    return right / len(features)


def _placed(rows: list[Feature], pad: int) -> dict[str, torch.Tensor]:
    return {name: tensor.to(runtime.current().device) for name, tensor in collate(rows, pad).items()}


def _examples(one: TaskSet, name: str) -> list[Labelled]:
    found = formats.json_rows(files.find(name), name)
    return [labelled(row, one.columns, one.label, place) for place, row in found]


def _some(rows: list[Labelled], limit: int) -> list[Labelled]:
    """Drawn by a hash of their texts: files may be sorted by their labels."""
    return sorted(rows, key=lambda row: hashlib.sha256("\0".join(row.texts).encode()).digest())[:limit]
