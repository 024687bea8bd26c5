"""Lessons as tokens, and tokens as batches, for encoder-decoders and for decoders.

B rows, S source tokens, T target tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import nn

from shoestring.data import tokenizers
from shoestring.methods.rationale.lessons import Lesson
from shoestring.types import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IGNORED = -100
Family = Literal["encoder-decoder", "decoder"]
_BETWEEN = "\n"  # what a decoder reads between the source and what it is to write


class Pair(NamedTuple):
    """Token ids of what is read and of what is to be written; the target ends with the end of text."""

    source: list[int]
    target: list[int]


def language_model(model: nn.Module) -> Any:
    """The Hugging Face model inside what DDP and torch.compile put around it. Raises ValueError where there is none."""
    from transformers import PreTrainedModel

    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise ValueError(f"a {type(model).__name__} is no Hugging Face model: expected one that `from_pretrained` loads")


def family(model: nn.Module) -> Family:
    """Which of the two a Hugging Face model is, by its configuration."""
    return "encoder-decoder" if language_model(model).config.is_encoder_decoder else "decoder"


def check_room(model: nn.Module, source_tokens: int, target_tokens: int) -> None:
    """Raises ValueError where a model cannot read and write so many tokens: its positions end before."""
    config = language_model(model).config
    most = getattr(config, "max_position_embeddings", None)
    both = config.is_encoder_decoder  # each side has positions of its own
    needed = max(source_tokens, target_tokens) if both else source_tokens + target_tokens
    if most is not None and needed > most:
        raise ValueError(
            f"{source_tokens} tokens to read and {target_tokens} to write: the {config.model_type} has {most} positions"
            f"{' a side' if both else ' for both together'}: ask for fewer"
        )


@dataclass(frozen=True)
class Coder:
    """Turns lessons into ids. Letters of special tokens within a text stay letters.

    source_tokens, target_tokens  at most so many; of a source that is too long the middle is left out
    """

    tokenizer: PreTrainedTokenizerFast
    family: Family
    source_tokens: int
    target_tokens: int

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise ValueError(f"the family {self.family!r}: expected one of {', '.join(get_args(Family))}")
        if self.source_tokens < 8 or self.target_tokens < 2:
            raise ValueError(
                f"{self.source_tokens} source and {self.target_tokens} target tokens: expected 8 and 2 or more"
            )

    def pairs(self, lessons: Sequence[Lesson]) -> list[Pair]:
        sources = self.sources([lesson.source for lesson in lessons])
        bodies = self._encoded([lesson.target for lesson in lessons])
        endings = self._encoded([lesson.ending for lesson in lessons])
        parts = zip(sources, bodies, endings, strict=True)
        return [Pair(source, self._ended(body, ending)) for source, body, ending in parts]

    def sources(self, texts: Sequence[str]) -> list[list[int]]:
        """An encoder's source ends with the end of text; a decoder's with a new line, before what it is to write."""
        end = [self.end] if self.family == "encoder-decoder" else self._encoded([_BETWEEN])[0]
        start = [] if self.family == "encoder-decoder" else self._start
        room = self.source_tokens - len(end) - len(start)
        return [[*start, *_middle_out(ids, room), *end] for ids in self._encoded(texts)]

    def targets(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._ended(ids, []) for ids in self._encoded(texts)]

    def text(self, ids: Sequence[int]) -> str:
        """What was written, up to the end of text."""
        found = list(ids)
        if self.end in found:
            found = found[: found.index(self.end)]
        return str(self.tokenizer.decode(found, skip_special_tokens=True)).strip()

    @property
    def end(self) -> int:
        """The id that ends a text, and that batches are padded with."""
        return int(self.tokenizer.eos_token_id)

    def _ended(self, body: list[int], ending: list[int]) -> list[int]:
        """What fits of the body before its ending and the end of text."""
        room = self.target_tokens - 1
        return [*body[: max(0, room - len(ending))], *ending[:room], self.end]

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: what was made ready of them is made again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _start(self) -> list[int]:
        """What the tokenizer itself puts before a text: some decoders are lost without it."""
        with_start = self.tokenizer("a").input_ids
        first = self.tokenizer.bos_token_id
        return [int(first)] if first is not None and with_start[:1] == [first] else []

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        return [ids.tolist() for ids in self._encode(list(texts))] if texts else []

    @cached_property
    def _encode(self) -> tokenizers.Encoder:
        """Made once: of a large vocabulary that takes a tenth of a second."""
        return tokenizers.encoder(self.tokenizer)


def batch(pairs: Sequence[Pair], kind: Family, pad: int) -> Batch:
    """Pairs as one batch, padded on the right.

    An encoder-decoder's: `input_ids` (B, S), `attention_mask` (B, S), `labels` (B, T), -100 after the end.
    A decoder's: `input_ids` and `labels` (B, S + T), -100 where nothing is to be written, and `scored` (N,), the
    positions, of all flattened, that go through the head: those after which something is to be written. It cannot see
    to its right, so that its padding needs no mask.
    """
    if kind == "encoder-decoder":
        return {
            "input_ids": padded([pair.source for pair in pairs], pad),
            "attention_mask": padded([[1] * len(pair.source) for pair in pairs], 0),
            "labels": padded([pair.target for pair in pairs], IGNORED),
        }
    inputs = padded([[*pair.source, *pair.target] for pair in pairs], pad)
    labels = padded([[*[IGNORED] * len(pair.source), *pair.target] for pair in pairs], IGNORED)
    before = nn.functional.pad(labels[:, 1:] != IGNORED, (0, 1))  # a row's last token tells nothing
    return {"input_ids": inputs, "labels": labels, "scored": before.flatten().nonzero()[:, 0]}


def padded(rows: Sequence[Sequence[int]], filling: int) -> torch.Tensor:
    """Rows (B, longest), filled up on the right."""
    width = max(len(row) for row in rows)
    found = torch.full((len(rows), width), filling, dtype=torch.int64)
    for place, row in enumerate(rows):
        found[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return found


def _middle_out(ids: list[int], room: int) -> list[int]:
    """What fits: the start, which tells the task, and the end, where a question mostly stands."""
    if len(ids) <= room:
        return ids
    tail = room // 2
    return [*ids[: room - tail], *ids[len(ids) - tail :]]
