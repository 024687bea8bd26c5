"""How a local model's answer is drawn, token by token, and where it ends."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from shoestring.models.teacher.words import Parameters


class Draws:
    """A processor of `generate`'s scores that leaves each row one token, drawn by a generator of its own.

    So that a row's draws do not depend on the rows beside it, as they do where `generate` samples.
    """

    def __init__(self, parameters: Parameters, seeds: Sequence[int]) -> None:
        self._temperature, self._top_p = parameters.temperature, parameters.top_p
        self._draws = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores  (rows, vocabulary)"""
        chances = torch.softmax(scores.float() / self._temperature, dim=-1)
        if self._top_p < 1:
            ranked, order = chances.sort(dim=-1, descending=True)
            beyond = ranked.cumsum(-1) - ranked >= self._top_p  # never the likeliest
            chances = chances.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0.0)
        # in the order of the vocabulary: in that of the chances, rounding could swap two that are nearly the same
        below = chances.cumsum(-1)
        drawn = torch.stack([torch.rand(1, generator=one) for one in self._draws])
        place = torch.searchsorted(below, drawn.to(below.device) * below[:, -1:], right=True)
        return torch.full_like(scores, -torch.inf).scatter(-1, place.clamp(max=scores.shape[-1] - 1), 0.0)


class Stops:
    """A criterion of `generate` that ends a row once its text holds one of the stop texts."""

    def __init__(self, stops: Sequence[str], tokenizer: Any, width: int) -> None:
        self._stops, self._tokenizer, self._width = stops, tokenizer, width
        # a token is a byte or more, so a stop text has no more tokens than bytes; some more, for spaces at the seam
        self._tail = max(len(stop.encode()) for stop in stops) + 4

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """input_ids  (rows, width of the prompts and what is written so far)"""
        start = max(self._width, input_ids.shape[1] - self._tail)
        texts = [self._tokenizer.decode(row, skip_special_tokens=True) for row in input_ids[:, start:].tolist()]
        return torch.tensor([any(stop in text for stop in self._stops) for text in texts], device=input_ids.device)


class Unwanted:
    """A criterion of `generate` that ends the rows that nobody waits for any longer."""

    def __init__(self, futures: Sequence[Future[Any]]) -> None:
        self._futures = futures

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """(rows,), of which each has one of the futures."""
        return torch.tensor([future.done() for future in self._futures], device=input_ids.device)


def ended(
    ids: list[int], ends: set[int], parameters: Parameters, tokenizer: Any, prompt: int
) -> tuple[str, str, int, int]:
    """The text of an answer, why it ends, and the tokens of prompt and answer, the one that ends it included."""
    length = next((place for place, one in enumerate(ids) if one in ends), None)
    text = tokenizer.decode(ids[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    places = [place for stop in parameters.stop if (place := text.find(stop)) >= 0]
    reason = "length" if length is None and not places else "stop"
    # behind a stop text the row is only filled up
    count = len(ids[:length]) if length is None or places else length + 1
    return text[: min(places, default=len(text))], reason, prompt, count
