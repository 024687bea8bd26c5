"""Attention by relative positions (Transformer-XL), for any rows: a sequence's own, and those of predicted positions.

Scores are by content, by distance and by segment. None is kept for backward, which computes them again, a few rows at a
time: what a layer keeps grows with its rows, not with rows times keys.
"""
# B rows of the batch, N heads, Q query rows, T keys, L distances, D width of a head, G directions (1, or 2 halves of B)

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_ROWS = 64  # at a time: their scores stay in the processor's cache
_ROWS_ELSEWHERE = 512  # on a GPU, where starting a product costs more; their scores are what is in memory at once
_KEYS = 16  # keys are left out by so many: products of odd sizes are slow


@dataclass(frozen=True)
class View:
    """Which keys each query row sees, and how far they are.

    sees, rank  (B, Q) and (B, T): a row sees the keys whose rank is below its `sees`
    until       (B, T): and whose `until` is not below it; None is no bound
    ordered     how many of the first rows are those of a sequence that ends with the last key: row i is at distance
                T - ordered + i - j from key j
    columns     (B, Q - ordered, T): for the other rows, which of the L distances each key has
    segments    (B, Q) and (B, T): the segment of each row and key; None where there is but one
    """

    sees: Tensor
    rank: Tensor
    ordered: int
    columns: Tensor | None = None
    until: Tensor | None = None
    segments: tuple[Tensor, Tensor] | None = None

    def blocked(self, rows: slice, keys: slice) -> Tensor:
        """(B, 1, rows, keys) bool: what the rows do not see."""
        sees = self.sees[:, None, rows, None]
        blocked = self.rank[:, None, None, keys] >= sees
        return blocked if self.until is None else blocked | (self.until[:, None, None, keys] < sees)

    def elsewhere(self, rows: slice, keys: slice) -> Tensor | None:
        """(B, 1, rows, keys) bool: keys of another segment than the row's."""
        if self.segments is None:
            return None
        return self.segments[0][:, None, rows, None] != self.segments[1][:, None, None, keys]

    @cached_property
    def blind(self) -> Tensor:
        """(B, Q) bool: rows that see no key at all."""
        if self.until is None:
            return self.rank.amin(dim=1, keepdim=True) >= self.sees
        blind = [self.blocked(rows, keys).all(-1)[:, 0] for rows, keys in self.parts]
        return torch.cat(blind, dim=1) if blind else torch.zeros_like(self.sees, dtype=torch.bool)

    @cached_property
    def parts(self) -> list[tuple[slice, slice]]:
        """All rows, a few at a time, none of both kinds together; and the keys up to the last that any of them sees."""
        kinds = ((0, self.ordered), (self.ordered, self.sees.shape[1]))
        step = _ROWS if self.rank.device.type == "cpu" else _ROWS_ELSEWHERE
        rows = [slice(at, min(at + step, end)) for start, end in kinds for at in range(start, end, step)]
        places = torch.arange(1, self.rank.shape[1] + 1, device=self.rank.device)
        seen = [(self.rank < self.sees[:, some].amax(1, keepdim=True)).any(0) for some in rows]
        last = torch.stack([(one * places).amax() for one in seen]).tolist() if seen else []
        whole = self.rank.shape[1]
        return [
            (some, slice(0, min(whole, max(1, -(-end // _KEYS)) * _KEYS))) for some, end in zip(rows, last, strict=True)
        ]


@torch.compiler.disable  # type: ignore[untyped-decorator]  # traced, it breaks into a graph a piece
def attend(
    content: Tensor,
    position: Tensor,
    segment: Tensor | None,
    keys: Tensor,
    values: Tensor,
    distances: Tensor,
    view: View,
    dropout: float = 0.0,
) -> Tensor:
    """What each query row reads; a row that sees no key reads zeros.

    content, position  (B, N, Q, D): the scaled queries that meet keys and distances
    segment            (B, N, Q): a row's score of keys of another segment over that of keys of its own, which is all
                       that a softmax can tell; goes with `view.segments`
    keys, values       (B, N, T, D)
    distances          (G, N, L, D): column l is the key of distance T - l; the g-th part of the batch reads the g-th
    dropout            of the probabilities
    Returns (B, N, Q, D). Dai et al. 2019 (Transformer-XL), appendix B; Yang et al. 2019 (XLNet), sections 2.4 and 2.5.
    """
    seed = int(torch.randint(2**62, ()).item()) if dropout else 0
    given = (content, position, segment, keys, values, distances)
    read: Tensor = _Attention.apply(*given, view, dropout, seed)  # type: ignore[no-untyped-call]
    return read.masked_fill(view.blind[:, None, :, None], 0.0)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        content: Tensor,
        position: Tensor,
        segment: Tensor | None,
        keys: Tensor,
        values: Tensor,
        distances: Tensor,
        view: View,
        dropout: float,
        seed: int,
    ) -> Tensor:
        read = torch.empty_like(content)
        with torch.autocast(content.device.type, enabled=False):
            for rows, seen in view.parts:
                part = _Part(view, rows, seen, position, distances)
                likely = part.probabilities(content, segment, keys)
                read[:, :, rows] = _dropped(likely, dropout, seed + rows.start) @ values[:, :, seen]
        ctx.save_for_backward(content, position, segment, keys, values, distances, read)
        ctx.view, ctx.dropout, ctx.seed = view, dropout, seed
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        content, position, segment, keys, values, distances, read = ctx.saved_tensors
        by_content, by_position = torch.empty_like(content), torch.empty_like(position)
        by_segment = None if segment is None else torch.empty_like(segment)
        by_key, by_value, by_distance = torch.zeros_like(keys), torch.zeros_like(values), torch.zeros_like(distances)
        gradient = gradient.to(values.dtype)
        mean = (gradient * read).sum(-1, keepdim=True)
        with torch.autocast(content.device.type, enabled=False):
            for rows, seen in ctx.view.parts:
                part = _Part(ctx.view, rows, seen, position, distances)
                likely = part.probabilities(content, segment, keys)
                dropped = _dropped(likely, ctx.dropout, ctx.seed + rows.start)
                here = gradient[:, :, rows]
                by_value[:, :, seen] += dropped.transpose(-1, -2) @ here
                # through softmax and dropout m: p (m dp - sum p m dp); that sum is what was read, times its gradient
                scores = here @ values[:, :, seen].transpose(-1, -2)
                if ctx.dropout:
                    scores = scores.mul_(dropped).addcmul_(likely, mean[:, :, rows], value=-1)
                else:
                    scores = scores.sub_(mean[:, :, rows]).mul_(likely)
                by_content[:, :, rows] = scores @ keys[:, :, seen]
                by_key[:, :, seen] += scores.transpose(-1, -2) @ content[:, :, rows]
                by_position[:, :, rows] = part.distance_gradients(scores, by_distance)
                if by_segment is not None:
                    by_segment[:, :, rows] = (scores * ctx.view.elsewhere(rows, seen)).sum(-1)
        return by_content, by_position, by_segment, by_key, by_value, by_distance, None, None, None


class _Part:
    """A few rows and the distances they need: ordered ones T + rows of them, read through a shifted view."""

    def __init__(self, view: View, rows: slice, keys: slice, position: Tensor, distances: Tensor) -> None:
        self.view, self.rows, self.keys = view, rows, keys
        ordered = rows.start < view.ordered
        self.wanted = slice(view.ordered - rows.stop, view.ordered - rows.start + keys.stop) if ordered else slice(None)
        self.columns = None
        if not ordered:
            assert view.columns is not None
            chosen = view.columns[:, rows.start - view.ordered : rows.stop - view.ordered, keys]
            self.columns = _halves(chosen[:, None], len(distances)).transpose(1, 2)
        self.distances = distances[:, :, self.wanted]
        # (G, N, B / G * rows, D): one product for all rows that share the distances
        self.position = _halves(position[:, :, rows], len(distances)).transpose(1, 2).flatten(2, 3)

    def probabilities(self, content: Tensor, segment: Tensor | None, keys: Tensor) -> Tensor:
        """(B, N, rows, keys), in the type of the keys; rows that see nothing get equal ones."""
        scores = content[:, :, self.rows] @ keys[:, :, self.keys].transpose(-1, -2)
        raw = self._raw(self.position @ self.distances.transpose(-1, -2))
        _halves(scores, len(raw)).add_(self._shifted(raw).transpose(1, 2))
        elsewhere = self.view.elsewhere(self.rows, self.keys)
        if segment is not None and elsewhere is not None:
            scores.addcmul_(segment[:, :, self.rows, None], elsewhere.to(scores.dtype))
        scores.masked_fill_(self.view.blocked(self.rows, self.keys), torch.finfo(scores.dtype).min)
        return torch.softmax(scores, -1)

    def distance_gradients(self, scores: Tensor, by_distance: Tensor) -> Tensor:
        """Add to the distances' gradients (G, N, L, D), and return the rows' own (B, N, rows, D), of the scores'."""
        groups = len(self.distances)
        raw = self._raw(self.position.new_zeros(*self.position.shape[:3], self.distances.shape[2]))
        given = _halves(scores, groups).transpose(1, 2)
        if self.columns is None:
            self._shifted(raw).copy_(given)
        else:
            raw.scatter_add_(-1, self.columns.expand_as(given), given)
        flat = raw.flatten(2, 3)
        by_distance[:, :, self.wanted] += flat.transpose(-1, -2) @ self.position
        return self._raw(flat @ self.distances).transpose(1, 2).flatten(0, 1)

    def _raw(self, products: Tensor) -> Tensor:
        rows = self.rows.stop - self.rows.start
        return products.view(*products.shape[:2], products.shape[2] // rows, rows, products.shape[3])

    def _shifted(self, raw: Tensor) -> Tensor:
        """(G, N, B / G, rows, T) of (…, distances): nothing is copied where the rows are ordered."""
        if self.columns is not None:
            return raw.gather(-1, self.columns.expand(-1, raw.shape[1], -1, -1, -1))
        *outer, row, one = raw.stride()
        size = (*raw.shape[:-1], self.keys.stop)
        return raw.as_strided(size, (*outer, row - one, one), raw.storage_offset() + raw.shape[-2])


def _halves(rows: Tensor, groups: int) -> Tensor:
    """(B, ...) as (G, B / G, ...)."""
    return rows.view(groups, len(rows) // groups, *rows.shape[1:])


def _dropped(likely: Tensor, dropout: float, seed: int) -> Tensor:
    """The probabilities that are left, scaled up; the same for the same seed."""
    if not dropout:
        return likely
    if likely.device.type == "cpu":  # torch draws these one by one
        drawn = np.frombuffer(np.random.Generator(np.random.SFC64(seed)).bytes(2 * likely.numel()), dtype=np.uint16)
        kept = torch.from_numpy(drawn >= round(dropout * 65536)).view(likely.shape)
    else:
        generator = torch.Generator(likely.device).manual_seed(seed)
        kept = torch.empty_like(likely).bernoulli_(1 - dropout, generator=generator)
    return (likely * kept).div_(1 - dropout)
