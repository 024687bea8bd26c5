"""Factorisation orders as two integers a token, in place of square masks.

S tokens a sequence, B rows

`rank[j]` says when token j becomes visible, `sees[i]` how far position i looks: a prediction at i sees every token j
with rank[j] < sees[i]; the content of i sees those, those up to its own rank, and itself. So 2 S integers say what the
S x S masks of Yang et al. 2019 (arXiv 1906.08237) say.

context      rank -1, sees 0: seen by all, and sees only the context
predicted    rank and sees are its place in the random permutation
functional   (separator and class tokens) rank its place, sees one more: never predicted, and as in the official code
             not seen by what is predicted before its place
padding      rank HIDDEN, sees 0: seen by nobody
A later block of the same sequence is raised above the earlier ones: it sees all of them, and they nothing of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HIDDEN = 1 << 30
INTEGERS = (torch.int32, torch.int64)


class Order(NamedTuple):
    """Of one sequence: each (S,) int32."""

    rank: NDArray[np.int32]
    sees: NDArray[np.int32]


def permuted(
    predicted: NDArray[np.bool_], functional: NDArray[np.bool_], block: int, generator: np.random.Generator
) -> Order:
    """A random order within each block of positions, block after block.

    predicted, functional  (S,): which tokens are predicted, and which never are; no token is both
    block                  positions a block, the official code's perm_size; the last block may be shorter
    Raises ValueError where shapes differ, a token is both, or the block is not positive. Every block has a permutation
    of its own; the official code uses one for all blocks of a half.
    """
    if predicted.shape != functional.shape or predicted.ndim != 1:
        raise ValueError(f"predicted {predicted.shape}, functional {functional.shape}: expected one row of each, alike")
    if block < 1:
        raise ValueError(f"blocks of {block} positions: expected one or more")
    if (predicted & functional).any():
        raise ValueError("a functional token is marked as predicted: expected either")
    length = len(predicted)
    positions = np.arange(length)
    blocks = positions // block
    # whole blocks stay together; the draws within each give the places
    shuffled = np.lexsort((generator.random(length), blocks))
    place = np.empty(length, dtype=np.int64)
    place[shuffled] = positions - blocks * block
    base = blocks * (block + 1)
    context = ~(predicted | functional)
    rank = base + np.where(context, -1, place)
    sees = base + np.where(context, 0, place + functional)
    return Order(rank.astype(np.int32), sees.astype(np.int32))


def perm_mask(rank: Tensor, sees: Tensor) -> Tensor:
    """(B, S, S) float of (B, S) order vectors: 1 where row i may not see token j, as transformers' XLNet wants it."""
    check(rank, sees)
    return (rank[:, None, :] >= sees[:, :, None]).float()


def check(rank: Tensor, sees: Tensor, shape: tuple[int, int] | None = None) -> None:
    """Raises ValueError where order vectors are not two integer tensors (B, S), of this shape if one is given.

    Looks at no value, so that nothing waits for a GPU.
    """
    for name, vector in (("rank", rank), ("sees", sees)):
        if vector.dtype not in INTEGERS:
            raise ValueError(f"{name} is of {vector.dtype}: expected int32 or int64")
        if vector.dim() != 2:
            raise ValueError(f"{name} is of shape {tuple(vector.shape)}: expected (rows, tokens)")
        if shape is not None and tuple(vector.shape) != tuple(shape):
            raise ValueError(f"{name} is of shape {tuple(vector.shape)}: expected {tuple(shape)}, as the input")
    if rank.shape != sees.shape:
        raise ValueError(f"rank is of shape {tuple(rank.shape)}, sees of {tuple(sees.shape)}: expected the same")
