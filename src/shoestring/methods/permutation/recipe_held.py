"""What every arm is scored on: the same spans of held-out text, each as one event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import Tensor, nn

from shoestring.data.tokens import Tokens
from shoestring.methods.permutation import scoring
from shoestring.methods.permutation.objectives import Kind
from shoestring.methods.permutation.recipe_schema import Arm, Recipe
from shoestring.models.modes import evaluating

JOINT, APART, CLOZE = "nats a span", "nats a span, tokens apart", "nats a token"
REMEMBERED = "nats a span, with memory"
_ROWS = 64
Score = Callable[[nn.Module, Tensor, Tensor, int | None, scoring.Past], Tensor]
# each as good as the objective allows: a masked model is told a span token by token, too
_JOINT: dict[Kind, Score] = {
    "permutation": scoring.permuted,
    "mpnet": scoring.compensated,
    "masked": scoring.masked_in_turn,
    "autoregressive": scoring.causal,
}
_APART: dict[Kind, Score] = {"permutation": scoring.independent, "masked": scoring.masked}


@dataclass(frozen=True)
class Held:
    """Of each number of tokens: windows of text (windows, S), the places (windows, n) of a span in each, the M tokens
    that stand before each window, and how many of them (windows,) are of its first token's document."""

    windows: dict[int, Tensor]
    places: dict[int, Tensor]
    before: dict[int, Tensor]
    context: dict[int, Tensor]


def held(recipe: Recipe, tokens: Tokens, count: int, seed: int, end: int) -> Held:
    """Windows spread over a split, with a span in the second part of each, which sees the first part in every arm.

    count  windows of each length of span; end, the id that ends a document
    Raises ValueError where the split is too short for them.
    """
    text, longest = recipe.text, recipe.held.longest
    wanted = count * longest
    room = len(tokens) - recipe.memory - text.length + 1
    if room < wanted:
        raise ValueError(
            f"{tokens.folder}: {len(tokens)} tokens hold no {wanted} windows: give more text, or score fewer"
        )
    generator = np.random.Generator(np.random.Philox(seed))
    starts = recipe.memory + (np.arange(wanted) * room // wanted).reshape(count, longest)
    windows, places, before, context = {}, {}, {}, {}
    for size in range(1, longest + 1):
        every = [tokens.ids[at - recipe.memory : at + text.length] for at in starts[:, size - 1]]
        rows = torch.from_numpy(np.stack(every).astype(np.int64))
        first = generator.integers(text.reuse, text.length - size, count, endpoint=True)
        before[size], windows[size] = rows[:, : recipe.memory], rows[:, recipe.memory :]
        ended = (before[size] == end).flip(1).cumsum(1) > 0  # from the window backward
        context[size] = (~ended).sum(1)
        places[size] = torch.from_numpy(first)[:, None] + torch.arange(size)
    return Held(windows, places, before, context)


def scores(model: nn.Module, arm: Arm, recipe: Recipe, on: Held) -> dict[str, float]:
    """Mean nats: of spans of two tokens and more as one event, with each token told apart, and of single tokens.

    All arms see the same window; an arm with a memory is scored once more with what stands before it.
    """
    block = recipe.text.reuse if arm.memory else None
    device = next(model.parameters()).device
    causal = arm.kind == "autoregressive"

    def mean(how: Score, size: int, remembers: bool = False) -> float:
        told = []
        every = (on.windows, on.places, on.before, on.context)
        parts = (torch.split(some[size].to(device), _ROWS) for some in every)
        for rows, at, before, context in zip(*parts, strict=True):
            past: scoring.Past = None
            if remembers:
                past = {"mems": scoring.memories(model, before, recipe.text.reuse, causal), "context": context}
            told.append(how(model, rows, at, block, past).double().sum(1))
        return float(-torch.cat(told).mean())

    with evaluating(model):
        sizes = range(2, recipe.held.longest + 1)
        joint = _JOINT[arm.kind]
        found = {JOINT: fmean(mean(joint, size) for size in sizes), CLOZE: mean(joint, 1)}
        if arm.memory:
            found[REMEMBERED] = fmean(mean(joint, size, remembers=True) for size in sizes)
        if arm.kind in _APART:
            found[APART] = fmean(mean(_APART[arm.kind], size) for size in sizes)
    return found
