"""Average every window of a run's checkpoints, reading each checkpoint once."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch

from shoestring.methods.averaging.average import shares
from shoestring.methods.averaging.blend import Window
from shoestring.methods.averaging.checkpoints import find, open_checkpoint, step_of
from shoestring.methods.averaging.merge import BLOCK_BYTES, write_averages
from shoestring.methods.averaging.stream import Progress


def sweep(
    run: str | Path,
    out: str | Path,
    count: int,
    stride: int = 1,
    dtype: torch.dtype | None = None,
    block_bytes: int = BLOCK_BYTES,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the mean of every window of `count` checkpoints of a run, `stride` apart: what `merge` of each would write.

    Returns the folders, oldest first: in `out`/step-00000100 is the mean of the window that ends with step 100.
    Each checkpoint is read once, whatever the windows; the disk must hold all averages, of which none has a name before
    all are whole. The other arguments, what a killed call leaves and the errors are those of `merge`. The files of
    weights are laid out as the run's newest checkpoint's are.
    """
    if count < 1 or stride < 1:
        raise ValueError(f"count is {count} and stride is {stride}: expected at least 1 of each")
    found = find(run)
    reach = (count - 1) * stride
    if len(found) <= reach:
        raise ValueError(f"{run}: has {len(found)} checkpoints: a window of {count}, {stride} apart, needs {reach + 1}")
    names = [Path(f"step-{step_of(path):08d}") for path in found]
    twice = next((name for name, after in pairwise(names) if name == after), None)
    if twice is not None:
        raise ValueError(f"{run}: has two checkpoints of {twice}: remove one")
    windows = [
        Window(names[last], tuple(range(last - reach, last + 1, stride)), tuple(shares(None, count)))
        for last in range(reach, len(found))
    ]
    write_averages([open_checkpoint(path) for path in found], out, windows, dtype, block_bytes, progress)
    return [Path(out) / window.folder for window in windows]
