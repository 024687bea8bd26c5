"""FLOPs of a step of two streams, by formula; a multiply-add counts two. Only matrix products are counted."""

from __future__ import annotations

from transformers import XLNetConfig

from shoestring.methods.permutation.attention import View
from shoestring.methods.permutation.layout import Layout


def step(config: XLNetConfig, layout: Layout, directions: int = 1) -> int:
    """Of one forward and backward of a language model, its head included, all weights trained.

    layout      of the batch: which keys are left out, because no row of a part sees them, hangs on its order
    directions  1, or 2 where half of the rows is read from right to left
    Backward takes two products for each of forward's, and computes the scores again.
    """
    width, batch, targets = config.d_model, len(layout.rank), layout.targets
    rows = layout.length + layout.extra
    view = layout.view()
    total: int = 0
    for layer in range(config.n_layer):
        asking = rows
        if targets is not None and layer == config.n_layer - 1:
            view, asking = layout.last(targets), targets.shape[1]
        weights = width * config.d_inner * 2 + 2 * width**2  # feed-forward, queries and what is read
        total += 3 * batch * (asking * weights + 2 * view.rank.shape[1] * width**2)
        # sinusoids have no gradient
        total += 2 * directions * _distances(layout) * width**2
        total += batch * width * _attention(view, _distances(layout))
        if layout.segments is not None:
            total += batch * asking * width * 3
    scored = layout.length if targets is None else targets.shape[1]
    return int(2 * (total + 3 * batch * scored * width * config.vocab_size))


def _distances(layout: Layout) -> int:
    return layout.memory + 2 * layout.length


def _attention(view: View, distances: int) -> int:
    """Multiply-adds of scores and values, forward and backward, by the batch's rows and the width."""
    total = 0
    for part, keys in view.parts:
        rows = part.stop - part.start
        reached = rows + keys.stop if part.start < view.ordered else distances
        # content 1 + 1 + 2, values 1 + 2; distances 1 + 1 + 2
        total += rows * (7 * keys.stop + 4 * reached)
    return total
