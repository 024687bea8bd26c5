"""What a pretraining stands on: packed text, the tokenizer, the model it starts from, and how to compute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from shoestring import files, runtime
from shoestring.data import corpora, tokenizers, tokens
from shoestring.data.splits import Document, Split
from shoestring.data.tokens import Tokens
from shoestring.methods.permutation import configurations, packing, tools_opened, vocabulary
from shoestring.methods.permutation.convert import from_transformers
from shoestring.methods.permutation.memory import Memory
from shoestring.methods.permutation.micro_batches import MicroBatches
from shoestring.methods.permutation.objectives import Pretraining
from shoestring.methods.permutation.stream import PermutationBatches
from shoestring.methods.permutation.tools_pretrain_setting import Setting
from shoestring.methods.permutation.vocabulary import Vocabulary
from shoestring.models import folders
from shoestring.models.modes import evaluating
from shoestring.runtime import unwrap
from shoestring.train import optim
from shoestring.train.settle import Settled, settle
from shoestring.types import Batch, Batches, Run

_SPLITS: tuple[Split, ...] = ("train", "dev")
_SEQUENCES, _HELD_SEED = 128, 1  # that are looked at on dev, at most; what is drawn there
_PART = 1 << 22  # tokens that are counted at once
_WEIGHT_DECAY, _BETAS = 0.01, (0.9, 0.98)


@dataclass(frozen=True)
class Ground:
    """What lies in a command's folder before its first step.

    start  the folder that the model is from; None of a new one
    data   fingerprints of all that is read, by name
    """

    setting: Setting
    out: Path
    start: Path | None
    data: dict[str, str]

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return tokenizers.load(str(self.out / "tokenizer"))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.of(self.tokenizer)

    def text(self, split: Split) -> Tokens:
        return Tokens.load(self.out / "tokens" / split, expect=tokenizers.fingerprint(self.tokenizer))

    def how_cut(self) -> str:
        """What of the text is dev, in words."""
        sources = [corpora.located(name) for name in self.setting.text]
        sides = corpora.sides(sources)
        cut = sides.get(None, 0) + (0 if "dev" in sides else sides.get("train", 0))
        told = [f"{sides['dev']} of the files, by name"] if "dev" in sides else []
        told += [f"a twentieth of {cut} of the files, by a hash of each document"] if cut else []
        if "test" in sides:
            told.append(f"{sides['test']} named test is left alone")
        if corpora.BUILT_IN in sources:
            told.append(f"of {corpora.BUILT_IN}, some modules")
        if any(source.startswith(corpora.HUB_PREFIX) for source in sources):
            told.append("of the Hub's, what is named so, or a twentieth")
        return "; ".join(told)

    def unknown(self) -> float:
        """The share of the tokens to learn from that the tokenizer does not know."""
        ids, unknown = self.text("train").ids, vocabulary.unknown_id(self.tokenizer)
        if unknown is None:
            return 0.0
        parts = range(0, len(ids), _PART)
        return sum(int((ids[at : at + _PART] == unknown).sum()) for at in parts) / len(ids)

    def model(self) -> PreTrainedModel:
        """A two-stream model at its start, in training."""
        setting, causal = self.setting, self.setting.objective == "autoregressive"
        changes = {
            "mem_len": setting.memory or None,
            "reuse_len": None if causal else setting.reuse,
            "attn_type": "uni" if causal else "bi",
        }
        if self.start is None:
            ids = {name: getattr(self.tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
            shape = configurations.configuration(setting.model, len(self.tokenizer), **changes | ids)
            model: PreTrainedModel = configurations.build(shape, setting.seed)
        else:
            found = tools_opened.model_of(self.start, torch.float32, language=True)
            found.config.update(changes)
            model = from_transformers(found).train()
        return configurations.readied(model, setting.objective, setting.segments == "two", setting.checkpointing)

    def objective(self, model: nn.Module, parts: int) -> Pretraining:
        """With a memory of its own, which is a hook; parts, micro-batches a step."""
        setting, both = self.setting, not self.setting.one_direction
        inner = unwrap(model)
        assert isinstance(inner, PreTrainedModel)
        return Pretraining(setting.objective, Memory(inner.config, parts), setting.reuse, both)

    def run(self) -> tuple[Run, Pretraining]:
        """A run at its first step, and its objective."""
        setting, here = self.setting, runtime.current()
        runtime.seed_everything(setting.seed + here.rank)  # the weights are of the seed alone
        model = self.model()
        optimizer = optim.adamw(model, setting.learning_rate, _WEIGHT_DECAY, _BETAS)
        stream = self._stream(self.text("train"), setting.batch, setting.seed, here.rank, here.processes)
        parts = setting.accumulate
        batches: Batches = stream if parts == 1 else MicroBatches(stream, parts, not setting.one_direction)
        return Run(model, optimizer, batches), self.objective(model, parts)

    def held(self) -> list[Batch]:
        """Batches of held-out text, as many rows as it fills. Raises ValueError where it fills none."""
        setting, text = self.setting, self.text("dev")
        needed = packing.needed(setting.length, setting.segments)
        fill = needed + setting.reuse - 1
        rows = min(setting.batch, len(text) // fill) // setting.directions * setting.directions
        if not rows:
            raise ValueError(
                f"the held-out part of the text has {len(text)} tokens, and a batch takes {setting.directions * fill}: "
                "give more text, or a smaller --length"
            )
        epoch = (len(text) // rows - needed + 1) // setting.reuse
        return [*islice(self._stream(text, rows, _HELD_SEED), min(epoch, max(1, _SEQUENCES // rows)))]

    def dev_loss(self, model: nn.Module, held: list[Batch]) -> float:
        """Nats per predicted token; what is drawn for it is the same each time, and changes no other draw."""
        learnt, here, before = self.objective(model, 1), runtime.current(), runtime.random_state()
        total, count = 0.0, 0
        runtime.seed_everything(_HELD_SEED)
        with evaluating(model), here.autocast():
            for batch in held:
                loss = learnt(model, {name: tensor.to(here.device) for name, tensor in batch.items()})
                total, count = total + float(loss.total), count + loss.count
        runtime.set_random_state(before)
        return total / count

    def _stream(self, text: Tokens, rows: int, seed: int, rank: int = 0, world: int = 1) -> PermutationBatches:
        setting = self.setting
        return PermutationBatches(
            text,
            self.vocabulary,
            rows,
            setting.length,
            setting.reuse,
            setting.predicted,
            seed,
            memory=setting.memory,
            segments=setting.segments,
            spans=setting.spans,
            bidirectional=not setting.one_direction,
            rank=rank,
            world=world,
        )


def prepare(setting: Setting, out: Path) -> tuple[Ground, Settled]:
    """Make the tokenizer, pack the text, choose how to compute; all is kept, and found again by a resumed run.

    Raises ValueError where `out` was begun on data that has changed since, or the text is too short.
    """
    here = runtime.start()
    if setting.batch % (here.processes * setting.accumulate * setting.directions):
        raise ValueError(f"--batch {setting.batch}: expected one that {here.processes} processes divide, too")
    with here.accelerator.main_process_first():
        return _prepared(setting, out)


def _prepared(setting: Setting, out: Path) -> tuple[Ground, Settled]:
    here = runtime.current()
    start = None if setting.new else tools_opened.folder_of(setting.model)
    data = {name: corpora.fingerprint(corpora.located(name)) for name in setting.text}
    if start is not None:
        data[setting.model] = folders.fingerprint(start)
    ground = Ground(setting, out, start, data)
    if here.rank == 0:
        of = {"data": data, "setting": setting.model_dump(mode="json")}
        files.made_of(out, of, ("settled.json", "tokenizer", "tokens"))
        files.begun_on(out, data)
        if not (out / "tokenizer").exists():
            vocabulary.save(_tokenizer(ground), out / "tokenizer")
    for split in _SPLITS:
        if not (out / "tokens" / split).exists():
            tokens.pack(_documents(setting, split), ground.tokenizer, out / "tokens" / split)
    ground.held()
    run, learnt = ground.run()
    assert isinstance(run.model, PreTrainedModel)
    batch = next(iter(run.batches))
    threads, kept = runtime.threads(here.processes), out / "settled.json"
    how = settle(run.model, learnt, batch, setting.steps, kept, threads, setting.precision, one_shape=False)
    return ground, how


def _tokenizer(ground: Ground) -> PreTrainedTokenizerFast:
    setting = ground.setting
    if ground.start is None:
        assert setting.tokenizer is not None
        made = vocabulary.opened(setting.tokenizer, (one.text for one in _documents(setting, "train")))
        return vocabulary.prepared(made)[0]
    tokenizer = tools_opened.tokenizer_of(ground.start, tools_opened.model_of(ground.start, language=True))
    tools_opened.vocabulary_of(ground.start, tokenizer)  # or says what it lacks
    return tokenizer


def _documents(setting: Setting, split: Split) -> Iterator[Document]:
    sources = [corpora.located(name) for name in setting.text]
    return corpora.gathered(sources, split, setting.text_field, whole_dev=True)
