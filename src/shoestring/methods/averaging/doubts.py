"""Are checkpoints on disk fit to be averaged? The window's questions, asked of a few elements of each tensor."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from shoestring.methods.averaging.checkpoints import Checkpoint, open_checkpoint, step_of
from shoestring.methods.averaging.reader import Reader
from shoestring.methods.averaging.window import suspicious_sample

ELEMENTS = 1024


def doubts(sources: Sequence[str | Path]) -> list[str]:
    """What speaks against averaging these checkpoints, oldest first, one sentence each; nothing for a healthy window.

    Reads at most 1024 elements of each tensor that all of them hold with equal shape; what does not agree is `merge`'s
    to refuse. Steps are taken from the names where those all differ.
    """
    checkpoints = [open_checkpoint(source) for source in sources]
    shapes = [
        {
            stored.name: stored.shape
            for shard in one.shards
            for stored in shard.tensors
            if stored.dtype.is_floating_point
        }
        for one in checkpoints
    ]
    shared = {name for name, shape in shapes[-1].items() if all(other.get(name) == shape for other in shapes)}
    if not shared:
        return []
    with Reader() as reader:
        rows = torch.stack([_sample(one, shared, reader) for one in checkpoints])
    stored = [stored for shard in checkpoints[-1].shards for stored in shard.tensors if stored.name in shared]
    dtype = max(stored, key=lambda one: one.numel).dtype
    return suspicious_sample(rows, dtype, _steps(sources))


def _sample(checkpoint: Checkpoint, shared: set[str], reader: Reader) -> Tensor:
    rows = {}
    for shard in checkpoint.shards:
        for stored in shard.tensors:
            if stored.name in shared:
                count = min(stored.numel, ELEMENTS)
                start = (stored.numel - count) // 2
                buffer = torch.empty(count * stored.dtype.itemsize, dtype=torch.uint8)
                rows[stored.name] = reader.read(stored, start, start + count, buffer).to(torch.float32)
    return torch.cat([rows[name] for name in sorted(rows)])


def _steps(sources: Sequence[str | Path]) -> list[int] | None:
    """The steps in the names; None where a name has none, or all are the same file name."""
    if not all(any(letter.isdigit() for letter in Path(source).name) for source in sources):
        return None
    steps = [step_of(source) for source in sources]
    return None if any(one == other for one, other in pairwise(steps)) else steps
