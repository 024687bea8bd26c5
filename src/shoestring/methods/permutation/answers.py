"""Answers that stand in a context: questions as windows for a model of spans, its logits as answers, their scores."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from shoestring.methods.permutation.features import Feature, joined, room_for
from shoestring.methods.permutation.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_ARTICLES = {"a", "an", "the"}
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Window(Feature):
    """A part of a context with the question behind it: [part SEP question SEP CLS]; of the question, `cut` is left out.

    context  the whole
    offsets  of each token of the part, the first of `ids`: from which to before which character of the context
    """

    context: str = ""
    offsets: tuple[tuple[int, int], ...] = ()


class Answer(NamedTuple):
    """A piece of the context, `context[start:end]`, and its log-probability in the window that likes it most."""

    text: str
    start: int
    end: int
    score: float


class Found(NamedTuple):
    """Answers, the best first, and the log-probability of there being none, in the window where that is least."""

    answers: list[Answer]
    none: float

    def best(self, margin: float | None = None) -> str:
        """The best answer's text; "" where there being none is likelier by more than `margin`, unless that is None."""
        if not self.answers or (margin is not None and self.none - self.answers[0].score > margin):
            return ""
        return self.answers[0].text


class AnswerScores(NamedTuple):
    """From 0 to 1: whether it is the answer word for word, and how far its words are the answer's."""

    exact: float
    f1: float


def spans(
    vocabulary: Vocabulary,
    tokenizer: PreTrainedTokenizerFast,
    question: str,
    context: str,
    length: int = 512,
    stride: int = 128,
    answers: Sequence[tuple[int, str]] | None = None,
) -> list[Window]:
    """A question on a context, SQuAD-style: as many windows as the context needs.

    length   the most tokens of a window, the special ones and the question's included; of a question the first tokens
             are read, half of the length at most
    stride   how many tokens of the context a window starts after the one before it; at most a window, so that none is
             left out
    answers  each the character of the context that it starts at, and its text; empty where there is none to be found,
             None where it is not known. The first is learned from
    Windows that do not hold all of the answer point to CLS. Raises ValueError where a text is empty, the answer stands
    elsewhere, the tokenizer tells no offsets, or the length or the stride is too small.

    Official code, run_squad.py: context first, since the second segment was the shorter in pretraining. It cuts the
    question at 64 of 512 tokens, pads at the right, and aligns text by longest common subsequences, not by offsets.
    """
    room = room_for(length, 2)
    if stride < 1:
        raise ValueError(f"a stride of {stride} tokens: expected one or more")
    asked = _tokenized(tokenizer, question, "question")[0]
    cut = max(0, len(asked) - max(1, room // 2))
    asked = asked[: max(1, room // 2)]
    ids, offsets = _tokenized(tokenizer, context, "context")
    answer = _located(offsets, context, *answers[0]) if answers else None
    size = room - len(asked)
    windows, start = [], 0
    while True:
        part = slice(start, start + size)
        row = joined(vocabulary, ids[part], asked)
        span = None if answers is None else (len(row[0]) - 1,) * 2
        if answer is not None and start <= answer[0] and answer[1] < start + size:
            span = (answer[0] - start, answer[1] - start)
        windows.append(Window(*row, span=span, cut=cut, context=context, offsets=tuple(offsets[part])))
        if start + size >= len(ids):
            return windows
        start += min(stride, size)


def best_spans(
    windows: Sequence[Window],
    start_logits: Tensor | Sequence[Tensor],
    end_logits: Tensor | Sequence[Tensor],
    count: int = 5,
    longest: int = 64,
) -> Found:
    """The likeliest answers to one question, over all of its windows.

    start_logits, end_logits  a row for each window, as the model gives them for a collated one: its last logits count
    count                     the most answers
    longest                   the most tokens of an answer
    Log-probabilities are of both ends, among a window's tokens of the context and CLS, which stands for there being no
    answer. None starts or ends with a token of white space. Raises ValueError where the rows are not those of the
    windows, these not of one context, or a logit is no number.

    Official code, run_squad.py, but its head tells the end from the start, and has an output of its own for no answer.
    A token that is read in several windows counts where it is likeliest, not where it has most context.
    """
    if not windows or not len(windows) == len(start_logits) == len(end_logits):
        raise ValueError(f"{len(windows)} windows, logits of {len(start_logits)} and {len(end_logits)}: one row each")
    if len(contexts := {window.context for window in windows}) > 1:
        raise ValueError(f"windows of {len(contexts)} contexts: expected all of one question")
    if count < 1 or longest < 1:
        raise ValueError(f"{count} answers of {longest} tokens: expected one or more of each")
    scores: dict[tuple[int, int], float] = {}
    none = float("inf")
    for window, starts, ends in zip(windows, start_logits, end_logits, strict=True):
        size = len(window.offsets)
        start, end = _log_probabilities(starts, window), _log_probabilities(ends, window)
        none = min(none, float(start[-1] + end[-1]))
        both = start[:size, None] + end[None, :size]
        written = torch.tensor([bool(window.context[first:after].strip()) for first, after in window.offsets])
        allowed = (written[:, None] & written).triu().tril(longest - 1)
        top = both.masked_fill(~allowed, -torch.inf).flatten().topk(min(count, int(allowed.sum())))
        for score, place in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            piece = _stripped(window.context, window.offsets[place // size][0], window.offsets[place % size][1])
            scores[piece] = max(score, scores.get(piece, -torch.inf))
    context = windows[0].context
    ranked = sorted(scores, key=lambda piece: (-scores[piece], piece))[:count]
    return Found([Answer(context[start:end], start, end, scores[start, end]) for start, end in ranked], none)


def answer_scores(prediction: str, golds: Sequence[str]) -> AnswerScores:
    """How good an answer is by the gold answer that it is nearest to; no golds mean that there is no answer.

    Neither case, punctuation, the articles nor white space count. Rajpurkar et al. 2016 (SQuAD), section 6.1; without
    an answer as Rajpurkar et al. 2018 (SQuAD 2.0).
    """
    said = _words(prediction)
    wanted = [_words(gold) for gold in golds] or [[]]
    return AnswerScores(max(float(said == gold) for gold in wanted), max(_overlap(said, gold) for gold in wanted))


def _tokenized(tokenizer: PreTrainedTokenizerFast, text: str, name: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids and where each stands in the text. Letters of special tokens stay letters."""
    if not tokenizer.is_fast:
        raise ValueError(f"a {type(tokenizer).__name__} tells no offsets: expected a fast tokenizer")
    wanted = {"add_special_tokens": False, "split_special_tokens": True, "return_offsets_mapping": True}
    found = tokenizer(text, **wanted, verbose=False)
    if not text.strip() or not found["input_ids"]:
        raise ValueError(f"the {name} is {text!r}: expected words")
    return list(found["input_ids"]), list(found["offset_mapping"])


def _located(offsets: Sequence[tuple[int, int]], context: str, start: int, answer: str) -> tuple[int, int]:
    """The first and the last token of an answer."""
    end = start + len(answer)
    if not answer.strip():
        raise ValueError(f"the answer is {answer!r}: expected words, or no answers where there is none")
    if start < 0 or context[start:end] != answer:
        stands = context[start:end] if start >= 0 else ""
        raise ValueError(f"the answer {answer!r} does not stand at character {start} of its context, but {stands!r}")
    start, end = _stripped(context, start, end)
    inside = [place for place, (first, after) in enumerate(offsets) if max(first, start) < min(after, end)]
    if not inside:
        raise ValueError(f"the answer {answer!r} has no token: the tokenizer leaves these characters out")
    return inside[0], inside[-1]


def _stripped(context: str, start: int, end: int) -> tuple[int, int]:
    """The same piece of a context without white space around it."""
    piece = context[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def _log_probabilities(logits: Tensor, window: Window) -> Tensor:
    """(tokens of the context + 1,): the last is of CLS."""
    if logits.dim() != 1 or len(logits) < len(window.ids):
        raise ValueError(f"logits {tuple(logits.shape)} of a window of {len(window.ids)} tokens: expected one a token")
    row = logits.detach().float().cpu()[len(logits) - len(window.ids) :]
    if not row.isfinite().all():
        raise ValueError("a window's logits are not all finite: the model's weights or its precision are at fault")
    return torch.cat([row[: len(window.offsets)], row[-1:]]).log_softmax(0)


def _words(text: str) -> list[str]:
    words = text.lower().translate(_WITHOUT_PUNCTUATION).split()
    return [word for word in words if word not in _ARTICLES]


def _overlap(said: list[str], gold: list[str]) -> float:
    if not said or not gold:
        return float(said == gold)
    return 2 * (Counter(said) & Counter(gold)).total() / (len(said) + len(gold))
