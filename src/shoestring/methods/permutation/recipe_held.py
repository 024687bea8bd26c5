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
_ROWS = 64
Score = Callable[[nn.Module, Tensor, Tensor, int | None], Tensor]
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
    """Windows of text (windows, S), and of each number of tokens the places (windows, n) of a span."""

    windows: dict[int, Tensor]
    places: dict[int, Tensor]


def held(recipe: Recipe, tokens: Tokens, count: int, seed: int) -> Held:
    """Windows spread over a split, with a span in the second part of each, which sees the first part in every arm.

    count  windows of each length of span
    Raises ValueError where the split is too short for them.
    """
    text, longest = recipe.text, recipe.held.longest
    wanted = count * longest
    room = len(tokens) - text.length + 1
    if room < wanted:
        raise ValueError(
            f"{tokens.folder}: {len(tokens)} tokens hold no {wanted} windows: give more text, or score fewer"
        )
    generator = np.random.Generator(np.random.Philox(seed))
    starts = (np.arange(wanted) * room // wanted).reshape(count, longest)
    windows, places = {}, {}
    for size in range(1, longest + 1):
        rows = np.stack([tokens.ids[at : at + text.length] for at in starts[:, size - 1]]).astype(np.int64)
        first = generator.integers(text.reuse, text.length - size, count, endpoint=True)
        windows[size] = torch.from_numpy(rows)
        places[size] = torch.from_numpy(first)[:, None] + torch.arange(size)
    return Held(windows, places)


def scores(model: nn.Module, arm: Arm, recipe: Recipe, on: Held) -> dict[str, float]:
    """Mean nats: of spans of two tokens and more as one event, with each token told apart, and of single tokens."""
    block = recipe.text.reuse if arm.memory else None
    device = next(model.parameters()).device

    def mean(how: Score, size: int) -> float:
        parts = zip(torch.split(on.windows[size], _ROWS), torch.split(on.places[size], _ROWS), strict=True)
        told = [how(model, rows.to(device), at.to(device), block).double().sum(1) for rows, at in parts]
        return float(-torch.cat(told).mean())

    with evaluating(model):
        sizes = range(2, recipe.held.longest + 1)
        found = {JOINT: fmean(mean(_JOINT[arm.kind], size) for size in sizes), CLOZE: mean(_JOINT[arm.kind], 1)}
        if arm.kind in _APART:
            found[APART] = fmean(mean(_APART[arm.kind], size) for size in sizes)
    return found
