"""What is learnt from rows, and how well a model does on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import fmean
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from shoestring import runtime
from shoestring.data import tokenizers
from shoestring.methods.permutation import answers, features
from shoestring.methods.permutation.feature_stream import headed
from shoestring.methods.permutation.features import Choices, Feature
from shoestring.methods.permutation.heads import Kind
from shoestring.methods.permutation.long_documents import remembered
from shoestring.methods.permutation.rows import Labelled
from shoestring.methods.permutation.tools_rows import Asked, Optioned, Row
from shoestring.methods.permutation.vocabulary import Vocabulary, unknown_id
from shoestring.models.modes import evaluating
from shoestring.types import Batch, Loss

_UNCUT = 1 << 30
METRICS: dict[Kind, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "spans": ("F1", "exact match"),
    "choices": ("accuracy",),
}  # the first chooses
_INPUTS = ("input_ids", "token_type_ids", "attention_mask")


@dataclass(frozen=True)
class Task:
    """How rows become features, and what a model makes of them.

    vocabulary  of the tokenizer
    labels      of a classification
    length      tokens read at once; memory, states through which longer texts are read, none where 0
    reach       tokens of a text, from its end, that are seen through the memory
    none        whether a question may have no answer
    """

    kind: Kind
    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    length: int
    memory: int
    reach: int
    none: bool

    @cached_property
    def encode(self) -> tokenizers.Encoder:
        return tokenizers.encoder(self.tokenizer)

    @cached_property
    def _read(self) -> dict[Row, Sequence[Feature] | Sequence[Choices]]:
        return {}

    def features(self, row: Row) -> Sequence[Feature] | Sequence[Choices]:
        """Of one row: one, but of a question on a long context its windows. Raises ValueError, naming its place."""
        if row not in self._read:
            self._read[row] = self._features(row)
        return self._read[row]

    def _features(self, row: Row) -> Sequence[Feature] | Sequence[Choices]:
        read, length = (self.vocabulary, self.encode), _UNCUT if self.memory else self.length
        try:
            if isinstance(row, Labelled):
                second = row.texts[1] if len(row.texts) > 1 else None
                return [features.classification(*read, row.texts[0], second, length, row.label, self.labels)]
            if isinstance(row, Optioned):
                return [features.choices(*read, row.texts[0], row.question, row.options, length, row.right)]
            stride = max(1, self.length // 4)
            where = (row.question, row.texts[0], self.length, stride, row.answers)
            return answers.spans(self.vocabulary, self.tokenizer, *where)
        except ValueError as error:
            raise ValueError(f"{row.place}: {error}") from error

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """That of the head, which is a mean over rows, as a sum over them, in nats."""
        return headed(partial(self._output, model), batch)

    def scores(self, model: nn.Module, rows: Sequence[Row], batch: int) -> dict[str, float]:
        """How well the model does on rows, from 0 to 1, by name."""
        read = [self.features(row) for row in rows]
        told = self._told(model, [one for some in read for one in some], batch)
        if self.kind != "spans":
            right = [int(logits.argmax()) == some[0].label for some, (logits,) in zip(read, told, strict=True)]
            return {"accuracy": fmean(right)}
        place, found = 0, []
        for row, windows in zip(rows, read, strict=True):
            assert isinstance(row, Asked)
            starts, ends = zip(*told[place : place + len(windows)], strict=True)
            place += len(windows)
            best = answers.best_spans(windows, starts, ends).best(0.0 if self.none else None)  # type: ignore[arg-type]
            found.append(answers.answer_scores(best, [text for _, text in row.answers]))
        return {"F1": fmean(one.f1 for one in found), "exact match": fmean(one.exact for one in found)}

    def _told(self, model: nn.Module, every: Sequence[Any], batch: int) -> list[tuple[Tensor, ...]]:
        """The logits of each feature, read in batches of like lengths; of spans those of starts and of ends."""
        order = sorted(range(len(every)), key=lambda place: _length(every[place]))
        found: list[tuple[Tensor, ...]] = [()] * len(every)
        here = runtime.current()
        with evaluating(model), here.autocast():
            for at in range(0, len(order), batch):
                places = order[at : at + batch]
                made = features.collate([every[place] for place in places], self.vocabulary.pad)
                output = self._output(model, **{name: made[name].to(here.device) for name in _INPUTS})
                logits = (output.start_logits, output.end_logits) if self.kind == "spans" else (output.logits,)
                for place, *rows in zip(places, *(some.float().cpu() for some in logits), strict=True):
                    found[place] = tuple(rows)
        return found

    def _output(self, model: nn.Module, **batch: Tensor) -> Any:
        if not self.memory:
            return model(**batch)
        return remembered(model, **batch, window=self.length, memory=self.memory)


def cut(task: Task, rows: Sequence[Row]) -> int:
    """How many rows have texts of which something is left out, or not reached through the memory."""
    return sum(any(_cut(one) or _length(one) > task.reach for one in task.features(row)) for row in rows)


def unknown(task: Task, rows: Sequence[Row]) -> float:
    """The share of the tokens of rows that the tokenizer does not know."""
    known = unknown_id(task.tokenizer)
    if known is None:
        return 0.0
    every = [one for row in rows for one in task.features(row)]
    ids = [one.ids for some in every for one in (some.options if isinstance(some, Choices) else (some,))]
    return sum(row.count(known) for row in ids) / sum(map(len, ids))


def by_chance(rows: Sequence[Row]) -> tuple[str, float]:
    """What can be said without looking, and how often it is right: the usual class, no answer, any option."""
    if isinstance(rows[0], Optioned):
        return "Any option", fmean(1 / len(row.options) for row in rows if isinstance(row, Optioned))
    if isinstance(rows[0], Asked):
        return "No answer", fmean(not row.answers for row in rows if isinstance(row, Asked))
    label, count = Counter(row.label for row in rows if isinstance(row, Labelled)).most_common(1)[0]
    return repr(label), count / len(rows)


def learnt(task: Task, rows: Sequence[Row]) -> list[Any]:
    """The features of rows, one after the other."""
    return [one for row in rows for one in task.features(row)]


def _cut(one: Feature | Choices) -> bool:
    return one.cut > 0 if isinstance(one, Feature) else any(option.cut for option in one.options)


def _length(one: Feature | Choices) -> int:
    return len(one.ids) if isinstance(one, Feature) else max(len(option.ids) for option in one.options)
