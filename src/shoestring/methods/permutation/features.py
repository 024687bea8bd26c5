"""Text as an XLNet reads it when it is fine-tuned: separators after the texts, the class token last, padding left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from shoestring.data.tokenizers import Encoder
from shoestring.methods.permutation.vocabulary import Vocabulary
from shoestring.types import Batch

FIRST, SECOND, CLASS, PADDING = 0, 1, 2, 4  # segments, as the official code numbers them; nobody sees the padding's
_BLANK = re.compile(r"(?<!\w)_+(?!\w)")
_UNIT = 8  # a batch's width is a multiple of it: products of odd sizes are slow


@dataclass(frozen=True)
class Feature:
    """One sequence, unpadded: [A SEP CLS] or [A SEP B SEP CLS].

    ids, segments  of each token
    label          the class; None where it is not known
    span           the first and the last token of the answer, both CLS where there is none; None where it is not known
    cut            tokens of the texts that were left out
    """

    ids: list[int]
    segments: list[int]
    label: int | None = None
    span: tuple[int, int] | None = None
    cut: int = 0


@dataclass(frozen=True)
class Choices:
    """A question's options, each with the context and the question; `label` is the place of the right one."""

    options: tuple[Feature, ...]
    label: int | None = None


def classification(
    vocabulary: Vocabulary,
    encode: Encoder,
    text: str,
    pair: str | None = None,
    length: int = 128,
    label: str | None = None,
    labels: Sequence[str] = (),
) -> Feature:
    """A text, or a pair of texts, to be told the class of.

    encode  `shoestring.data.tokenizers.encoder` of the vocabulary's tokenizer
    length  the most tokens, the special ones included; of a pair the longer text is cut first, at its end
    label   one of `labels`, those of the head; None where it is not known
    Raises ValueError where a text is empty, the label unknown or the length too small.
    """
    if label is not None and label not in labels:
        known = f"one of {', '.join(map(repr, labels))}" if labels else "the head's labels beside it"
        raise ValueError(f"label {label!r}: expected {known}")
    first = tokens(encode, text, "text")
    second = None if pair is None else tokens(encode, pair, "second text")
    room, count = room_for(length, 1 if second is None else 2), len(first) + len(second or ())
    if second is None:
        first = first[:room]
    else:
        first, second = _longest_first(first, second, room)
    number = None if label is None else list(labels).index(label)
    return Feature(*joined(vocabulary, first, second), number, cut=max(0, count - room))


def choices(
    vocabulary: Vocabulary,
    encode: Encoder,
    context: str,
    question: str,
    options: Sequence[str],
    length: int = 512,
    right: int | None = None,
) -> Choices:
    """A question on a context with options to choose from, RACE-style: [context SEP question option SEP CLS] of each.

    An option stands where the question has a blank, `_` or more of them by themselves, or else behind it. encode and
    length are those of `classification`; right is the place of the right option. The end of a context that is too long
    is left out, and the start of a question that takes more than half of the length besides. Raises ValueError where a
    text is empty, there are fewer than two options, `right` is none of them or the length is too small.

    Official code, run_race.py: it keeps 128 of 512 tokens of the question, and where the context is short lets later
    options read the earlier ones, by appending to its list; here each option is read by itself.
    """
    if len(options) < 2:
        raise ValueError(f"{len(options)} options: expected two or more")
    if right is not None and not 0 <= right < len(options):
        raise ValueError(f"the right option is {right} of {len(options)}: expected 0 to {len(options) - 1}")
    read = tokens(encode, context, "context")
    room = room_for(length, 2)
    features = []
    for option in options:
        if not question.strip() or not option.strip():
            raise ValueError(f"question {question!r}, option {option!r}: expected words in both")
        asked = option.join(_BLANK.split(question)) if _BLANK.search(question) else f"{question} {option}"
        second = tokens(encode, asked, "question")
        cut = max(0, len(read) + len(second) - room)
        second = second[-max(room // 2, room - len(read)) :]
        features.append(Feature(*joined(vocabulary, read[: room - len(second)], second), cut=cut))
    return Choices(tuple(features), right)


def collate(features: Sequence[Feature] | Sequence[Choices], pad: int) -> Batch:
    """A batch, padded at the left to the longest, made a multiple of 8.

    pad  the id that padding is filled with; its segment is 4, which the official code's classification has, and 3 its
         SQuAD; the mask hides both
    Gives `input_ids`, `token_type_ids` and `attention_mask` (B, S), or (B, options, S) of choices, with `labels` (B,)
    or `start_positions` and `end_positions` (B,) in the padded rows, where these are known. Raises ValueError where
    there are none, some are labelled and some not, or questions have different numbers of options.
    """
    if not features:
        raise ValueError("no features: expected one or more")
    asked = [feature for feature in features if isinstance(feature, Choices)]
    rows = [feature for feature in features if isinstance(feature, Feature)]
    if asked and rows:
        raise ValueError("choices and others in one batch: expected one kind")
    if len(counts := {len(question.options) for question in asked}) > 1:
        raise ValueError(f"questions with {sorted(counts)} options in one batch: expected as many of each")
    rows = rows or [option for question in asked for option in question.options]
    width = -(-max(len(row.ids) for row in rows) // _UNIT) * _UNIT
    batch = {
        "input_ids": _padded([row.ids for row in rows], pad, width),
        "token_type_ids": _padded([row.segments for row in rows], PADDING, width),
        "attention_mask": _padded([[1] * len(row.ids) for row in rows], 0, width),
    }
    if asked:
        batch = {name: tensor.view(len(asked), -1, width) for name, tensor in batch.items()}
    labels = [feature.label for feature in features if feature.label is not None]
    spans = [(row.span, width - len(row.ids)) for row in rows if row.span is not None]
    for found, expected in ((labels, len(features)), (spans, len(rows))):
        if 0 < len(found) < expected:
            raise ValueError(f"{len(found)} of {expected} features are labelled: expected all or none")
    if labels:
        batch["labels"] = torch.tensor(labels)
    if spans:
        starts, ends = zip(*((span[0] + moved, span[1] + moved) for span, moved in spans), strict=True)
        batch |= {"start_positions": torch.tensor(starts), "end_positions": torch.tensor(ends)}
    return batch


def joined(vocabulary: Vocabulary, first: list[int], second: list[int] | None) -> tuple[list[int], list[int]]:
    """The ids and segments of one text or two, with what stands after them."""
    ids, segments = [*first, vocabulary.sep], [FIRST] * (len(first) + 1)
    if second is not None:
        ids, segments = [*ids, *second, vocabulary.sep], segments + [SECOND] * (len(second) + 1)
    return [*ids, vocabulary.cls], [*segments, CLASS]


def room_for(length: int, texts: int) -> int:
    """How many tokens are left for one or two texts. Raises ValueError where there is not one for each."""
    special = texts + 1
    if length < special + texts:
        raise ValueError(
            f"a length of {length} tokens, {special} of them special: expected {special + texts} or more, so that each "
            "text has one"
        )
    return length - special


def tokens(encode: Encoder, text: str, name: str) -> list[int]:
    """A text's ids. Raises ValueError where it has none."""
    ids: list[int] = encode([text])[0].tolist() if text.strip() else []
    if not ids:
        raise ValueError(f"the {name} is {text!r}: expected words")
    return ids


def _longest_first(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """What is left when tokens go one by one, each from the text that is longer then, from the second of two alike."""
    kept = min(len(second), max(room // 2, room - len(first)))
    return first[: room - kept], second[:kept]


def _padded(rows: Sequence[list[int]], filling: int, width: int) -> torch.Tensor:
    return torch.tensor([[filling] * (width - len(row)) + row for row in rows])
