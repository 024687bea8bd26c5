"""Multiple choice by likelihood: the option a language model finds most likely after the question."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from shoestring.models.modes import evaluating
from shoestring.runtime import unwrap

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Choice:
    """A question: each option continues the context as it stands, its leading space included; `answer` is an index."""

    context: str
    options: tuple[str, ...]
    answer: int

    def __post_init__(self) -> None:
        if len(self.options) < 2 or not all(self.options):
            raise ValueError(f"options {list(self.options)!r}: expected two or more, none of them empty")
        if not 0 <= self.answer < len(self.options):
            raise ValueError(f"answer {self.answer} of {len(self.options)} options: expected an index from 0")


class ChoiceScore(NamedTuple):
    """accuracy: by log-likelihood; accuracy_normalised: by log-likelihood per byte of the option, as written.

    log_likelihoods     nats, by question and option
    truncated           options whose context lost tokens on its left, to fit the model
    """

    accuracy: float
    accuracy_normalised: float
    log_likelihoods: list[list[float]]
    truncated: int


class _Continuation(NamedTuple):
    tokens: list[int]
    scored: int
    truncated: bool


def choose(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Choice], batch_size: int = 8
) -> ChoiceScore:
    """Answer questions by the likelihood of their options.

    Tokenised as the LM Evaluation Harness does: context and option together, spaces at the context's end moved to the
    option, an empty context replaced by the beginning- or end-of-sequence token. Ties go to the first option. Raises
    ValueError where an option has no tokens of its own, or alone is longer than the model's context.
    """
    if not questions:
        raise ValueError("there are no questions to answer")
    longest = _longest(model)
    rows = [
        _continuation(tokenizer, question.context, option, longest, f"question {number}")
        for number, question in enumerate(questions)
        for option in question.options
    ]
    values = iter(_log_likelihoods(model, rows, batch_size))
    scores = [[next(values) for _ in question.options] for question in questions]
    normalised = [
        [value / len(option.encode()) for value, option in zip(line, question.options, strict=True)]
        for line, question in zip(scores, questions, strict=True)
    ]
    return ChoiceScore(
        _accuracy(scores, questions), _accuracy(normalised, questions), scores, sum(row.truncated for row in rows)
    )


def read_questions(path: str | Path) -> list[Choice]:
    """Questions from a JSONL file: an object a line, {"context": text, "options": [text, ...], "answer": index from 0}.

    Raises ValueError, naming file and line, where one is something else.
    """
    questions = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                questions.append(_question(json.loads(line)))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from error
    if not questions:
        raise ValueError(f"{path} holds no questions: expected one JSON object a line")
    return questions


def _question(content: Any) -> Choice:
    if not isinstance(content, dict) or content.keys() != {"context", "options", "answer"}:
        found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"expected an object with context, options and answer, found {found or 'an empty one'}")
    context, options, answer = content["context"], content["options"], content["answer"]
    if not isinstance(context, str):
        raise ValueError(f"context is {context!r}: expected text")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError(f"options is {options!r}: expected a list of texts")
    if not isinstance(answer, int) or isinstance(answer, bool):
        raise ValueError(f"answer is {answer!r}: expected the index of an option, from 0")
    return Choice(context, tuple(options), answer)


def _longest(model: nn.Module) -> int | None:
    """How many tokens a model can read at once, or None where its configuration sets no limit."""
    config: Any = unwrap(model).config
    return getattr(config, "max_position_embeddings", None)


def _continuation(tokenizer: Any, context: str, option: str, longest: int | None, where: str) -> _Continuation:
    """The tokens of context and option, of which the last `scored` are the option's.

    EleutherAI's harness, `TemplateLM._encode_pair` and `loglikelihood`. The last token is not read, only predicted,
    so one more than `longest` fits.
    """
    kept = context.rstrip()
    option = context[len(kept) :] + option
    if kept:
        tokens = _encode(tokenizer, kept + option)
        start = len(_encode(tokenizer, kept))
    else:
        tokens = tokenizer.encode(option, add_special_tokens=False)
        prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        if prefix is None:
            raise ValueError(f"{where} has no context, and the tokenizer no token to begin with: set its eos_token")
        tokens = tokens if tokens and tokens[0] == prefix else [prefix, *tokens]
        start = 1
    scored = len(tokens) - start
    if scored < 1:
        raise ValueError(f"{where}: option {option!r} adds no token to its context")
    if longest is not None and scored > longest:
        raise ValueError(f"{where}: option {option[:40]!r}... has {scored} tokens, the model reads {longest}")
    cut = 0 if longest is None else max(0, len(tokens) - longest - 1)
    return _Continuation(tokens[cut:], scored, cut > 0)


def _encode(tokenizer: Any, text: str) -> list[int]:
    """With the special tokens the tokenizer adds by itself, unless the text already begins with one."""
    begun = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=not begun)
    return tokens


def _log_likelihoods(model: nn.Module, rows: Sequence[_Continuation], batch_size: int) -> list[float]:
    """Log-likelihood of each row's option, in the order given; computed longest first, so that batches are even."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: expected one or more")
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].tokens))
    found = [0.0] * len(rows)
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            for index, value in zip(chosen, _batch(model, [rows[index] for index in chosen]), strict=True):
                if not math.isfinite(value):
                    raise ValueError(f"the log-likelihood of option {index} (counted over all questions) is {value}")
                found[index] = value
    return found


def _batch(model: nn.Module, rows: Sequence[_Continuation]) -> Iterable[float]:
    """Padded on the right, where a causal model cannot see it from the left; the mask is for models that look."""
    device = next(model.parameters()).device
    width = max(len(row.tokens) for row in rows) - 1
    inputs = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(inputs)
    for place, row in enumerate(rows):
        length = len(row.tokens) - 1
        inputs[place, :length] = torch.tensor(row.tokens[:-1])
        mask[place, :length] = 1
    logits: Tensor = model(input_ids=inputs.to(device), attention_mask=mask.to(device), use_cache=False).logits
    for place, row in enumerate(rows):
        end = len(row.tokens) - 1
        predicted = logits[place, end - row.scored : end].float().log_softmax(-1)
        targets = torch.tensor(row.tokens[-row.scored :], device=device)
        yield float(predicted.gather(-1, targets.unsqueeze(-1)).double().sum())


def _accuracy(scores: Sequence[Sequence[float]], questions: Sequence[Choice]) -> float:
    right = [
        max(range(len(line)), key=line.__getitem__) == question.answer
        for line, question in zip(scores, questions, strict=True)
    ]
    return sum(right) / len(right)
