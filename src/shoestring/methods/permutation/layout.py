"""The rows of two streams and what each may see, from integer order vectors."""
# B rows of the batch, S tokens a sequence, M memory, P predicted positions, T = M + S keys

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from shoestring.methods.permutation.attention import View
from shoestring.methods.permutation.orders import HIDDEN, INTEGERS, check

Stream = Literal["query", "content"]


class _Rows(NamedTuple):
    """(B, rows) each: how far a row sees, where it stands, and its segment."""

    sees: Tensor
    at: Tensor
    segments: Tensor | None


class _Keys(NamedTuple):
    """(B, keys) each, as `View` has them, and where they stand."""

    rank: Tensor
    until: Tensor | None
    at: Tensor
    segments: Tensor | None


@dataclass(frozen=True)
class Layout:
    """What a batch holds beside its tokens.

    rank, sees   (B, S) integers: a row of the query stream sees the tokens whose rank is below its `sees`; a row of the
                 content stream sees itself, too, unless it is hidden
    targets      (B, P) positions to be predicted, -1 where there are fewer; None is none
    stream       whose rows predict them: the query stream's, or the content stream's own
    segments     (B, S), or None
    memory       M, of which each row's latest `context` (B,) are seen; None is all
    compensate   MPNet's position compensation, by blocks of so many positions: of a token that a row does not see yet
                 it sees a masked position. None is none
    Raises ValueError where shapes do not fit together.
    """

    rank: Tensor
    sees: Tensor
    targets: Tensor | None = None
    stream: Stream = "query"
    segments: Tensor | None = None
    memory: int = 0
    context: Tensor | None = None
    compensate: int | None = None

    def __post_init__(self) -> None:
        check(self.rank, self.sees)
        rows, length = self.rank.shape
        targets = self.targets
        if targets is not None and (targets.dim() != 2 or len(targets) != rows or targets.dtype not in INTEGERS):
            raise ValueError(f"targets are {targets.dtype} {tuple(targets.shape)}: expected integers ({rows}, P)")
        if self.stream not in get_args(Stream):
            raise ValueError(f"stream is {self.stream!r}: expected one of {', '.join(get_args(Stream))}")
        if self.segments is not None and self.segments.shape != (rows, length):
            raise ValueError(
                f"token_type_ids are {tuple(self.segments.shape)}: expected {(rows, length)}, as the input"
            )
        if self.context is not None and self.context.shape != (rows,):
            raise ValueError(f"context is {tuple(self.context.shape)}: expected {(rows,)}, one a row")
        if self.compensate is not None and (targets is None or self.stream == "content" or self.compensate < 1):
            raise ValueError(
                f"compensate is {self.compensate}: expected a block's length, 1 or more, and query targets"
            )

    @property
    def length(self) -> int:
        return self.rank.shape[1]

    @property
    def extra(self) -> int:
        """Rows beside the sequence's own: the query stream's, and the masked positions that compensate."""
        if self.targets is None or self.stream == "content":
            return 0
        return self.targets.shape[1] * (1 if self.compensate is None else 2)

    def view(self) -> View:
        """Of all rows: the sequence's own, then the masked positions that compensate, then the query stream's."""
        rows = [self._own()]
        if self.compensate is not None:
            rows.append(self._masks(self.compensate)[0])
        if self.targets is not None and self.stream == "query":
            rows.append(self._asking(self.targets))
        # a shifted read wants the sequence's end to be that of the keys
        return self._view(rows, ordered=self.length if self.compensate is None else 0)

    def last(self, targets: Tensor) -> View:
        """Of the rows that predict alone: the last layer needs no others."""
        return self._view([self._asking(targets)], ordered=0)

    def asking(self, states: Tensor, targets: Tensor) -> Tensor:
        """(B, P, width), of the states (B, rows, width) of `view`: the rows of `last`."""
        if self.stream == "query":
            return states[:, states.shape[1] - targets.shape[1] :]
        return states.gather(1, targets.clamp(min=0)[..., None].expand(-1, -1, states.shape[2]))

    def _own(self) -> _Rows:
        at = torch.arange(self.length, device=self.rank.device).expand(len(self.rank), -1)
        sees = torch.where(self.rank < HIDDEN, torch.maximum(self.sees, self.rank + 1), self.sees)
        return _Rows(sees, at, self.segments)

    def _asking(self, targets: Tensor) -> _Rows:
        at = targets.clamp(min=0)
        sees = self.sees if self.stream == "query" else self._own().sees
        return _Rows(sees.gather(1, at), at, None if self.segments is None else self.segments.gather(1, at))

    def _masks(self, block: int) -> tuple[_Rows, _Keys]:
        """Song et al. 2020 (MPNet), section 2.3. Masked positions see, and are seen, as their block's context is."""
        assert self.targets is not None
        rows = self._asking(self.targets)
        start = (torch.div(rows.at, block, rounding_mode="floor") * (block + 1)).to(self.rank.dtype)
        rank = (start - 1).masked_fill(self.targets < 0, HIDDEN)
        until = self.rank.gather(1, rows.at)  # then the token itself is seen
        return rows._replace(sees=start), _Keys(rank, until, rows.at, rows.segments)

    def _keys(self) -> _Keys:
        batch, device = len(self.rank), self.rank.device
        past = self.rank.new_full((batch, self.memory), -1)
        if self.context is not None:
            age = torch.arange(self.memory, 0, -1, device=device)
            past = past.masked_fill(age > self.context[:, None], HIDDEN)
        rank = torch.cat([past, self.rank], 1)
        at = torch.arange(-self.memory, self.length, device=device).expand(batch, -1)
        segments = self.segments
        if segments is not None:  # the memory is of the first, as in the official code
            segments = torch.cat([segments.new_zeros(batch, self.memory), segments], 1)
        if self.compensate is None:
            return _Keys(rank, None, at, segments)
        masks = self._masks(self.compensate)[1]
        assert masks.until is not None
        until = torch.cat([torch.full_like(rank, HIDDEN + 1), masks.until], 1)
        if segments is not None and masks.segments is not None:
            segments = torch.cat([segments, masks.segments], 1)
        return _Keys(torch.cat([rank, masks.rank], 1), until, torch.cat([at, masks.at], 1), segments)

    def _view(self, groups: list[_Rows], ordered: int) -> View:
        keys = self._keys()
        sees, at = (torch.cat([getattr(group, name) for group in groups], 1) for name in ("sees", "at"))
        columns = None
        if at.shape[1] > ordered:
            columns = self.memory + self.length - at[:, ordered:, None] + keys.at[:, None]
        segments = None
        if keys.segments is not None:
            own = [group.segments for group in groups if group.segments is not None]
            segments = (torch.cat(own, 1), keys.segments)
        return View(sees, keys.rank, ordered, columns, keys.until, segments)


def blockwise(tokens: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """rank and sees (B, S) int32 where each block of positions sees itself and those before it, and no later one."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    sees = (torch.div(places, block, rounding_mode="floor") * (block + 1)).to(torch.int32).expand(tokens.shape[:2])
    return sees - 1, sees


def left_to_right(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """rank and sees (B, S) int32 where each position sees those before it, and its content itself besides."""
    places = torch.arange(tokens.shape[1], device=tokens.device, dtype=torch.int32).expand(tokens.shape[:2])
    return places, places


def distances(width: int, length: int, memory: int, backward: bool, clamp: int, device: torch.device) -> Tensor:
    """(G, 2 S + M, width) fp32: sinusoids of the distances T, T - 1, ..., 1 - S, where T is M + S.

    backward  whether the batch's second half is read from right to left: G is 2 then, the second of negated distances
    clamp     the largest distance that is told apart; all where it is not positive
    """
    away = torch.arange(memory + length, -length, -1, device=device, dtype=torch.float32)
    if clamp > 0:
        away = away.clamp(-clamp, clamp)
    frequencies = 1 / torch.pow(10000, torch.arange(0, width, 2.0, device=device) / width)
    angles = away[:, None] * frequencies
    ahead = torch.cat([angles.sin(), angles.cos()], -1)
    return torch.stack([ahead, torch.cat([-angles.sin(), angles.cos()], -1)]) if backward else ahead[None]
