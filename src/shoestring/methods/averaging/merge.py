"""Average checkpoints on disk, of any size, in the memory of a few blocks."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from shoestring.methods.averaging.agreement import agree
from shoestring.methods.averaging.average import shares
from shoestring.methods.averaging.blend import Blender, Window, block_elements, spans, write_at
from shoestring.methods.averaging.checkpoints import Checkpoint, open_checkpoint
from shoestring.methods.averaging.layout import OutputFile, lay_out, write_beside
from shoestring.methods.averaging.partial import JOURNAL, Partial
from shoestring.methods.averaging.shards import CODES
from shoestring.methods.averaging.stream import Digest, Progress, stream
from shoestring.models.manifest import MANIFEST, flush

BLOCK_BYTES = 512 << 10
SPAN_BYTES = 8 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def merge(
    sources: Sequence[str | Path],
    out: str | Path,
    weights: Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    block_bytes: int = BLOCK_BYTES,
    progress: Progress | None = None,
) -> Path:
    """Write the weighted mean of checkpoints, oldest first, as a folder that `from_pretrained` loads.

    sources      Hugging Face folders, checkpoint folders of runs, files of weights, or Hub names with a revision
    weights      one a source, divided by their sum; alike where None
    dtype        of the averaged floats; where None the newest's, and the sources must agree in it. The sum is held in
                 float32, or in float64 where that is asked for, and is cast once
    block_bytes  of the sum that a thread holds at a time: memory does not grow with the checkpoints
    progress     told how many bytes are written, and how many there are to write

    The same bits as `average` gives in memory: floats are averaged, other tensors and masks come from the newest. Where
    a source has a manifest, as our runs' have, its files are held against their checksums. Files, names,
    configuration and tokenizer are the newest's; names lose the prefixes of DDP and `torch.compile`. The optimizer's
    state is left out: an average has no moments that match it, so it is for evaluation or for a fresh optimizer.
    The result grows as `<out>.partial` and is renamed when whole; a killed call, made again, goes on where it stopped.
    Raises ValueError, one line that names the file and the tensor, and leaves nothing under the name `out`.
    """
    if isinstance(sources, str | Path):
        raise ValueError(f"sources is {str(sources)!r}: expected a list of checkpoints")
    if not sources:
        raise ValueError("there are no checkpoints to merge: give at least one")
    window = Window(Path(), tuple(range(len(sources))), tuple(shares(weights, len(sources))))
    return write_averages([open_checkpoint(source) for source in sources], out, [window], dtype, block_bytes, progress)


def write_averages(
    checkpoints: Sequence[Checkpoint],
    out: str | Path,
    windows: Sequence[Window],
    dtype: torch.dtype | None,
    block_bytes: int,
    progress: Progress | None,
) -> Path:
    """Write several averages of the same checkpoints at once, each in its folder under `out`, all of them or none."""
    if dtype is not None and not (dtype.is_floating_point and dtype in CODES):
        raise ValueError(f"dtype is {dtype}: expected a floating-point one, such as torch.float32")
    if block_bytes < 1:
        raise ValueError(f"block_bytes is {block_bytes}: expected at least 1")
    sources = agree(checkpoints, dtype)
    files = lay_out(checkpoints[-1], dtype)
    accumulate = torch.float64 if dtype == torch.float64 else torch.float32
    elements = block_elements(windows, block_bytes, accumulate)
    settings = [elements, SPAN_BYTES, str(dtype), [(str(one.folder), one.members, one.shares) for one in windows]]
    partial = Partial(Path(out).resolve(), _fingerprint(checkpoints, settings))
    _check_space(partial.folder, sum(file.size for file in files) * len(windows))
    with partial, _failing_well(partial):
        placed = [Window(partial.folder / one.folder, one.members, one.shares) for one in windows]
        _write_headers(placed, files)
        expected = {file: sha256 for one in checkpoints for file, sha256 in one.digests.items()}
        work = spans(files, elements, SPAN_BYTES)
        written = stream(
            work, placed, lambda: Blender(sources, placed, elements, accumulate), partial, expected, progress
        )
        for window in placed:
            _complete(window, checkpoints, files, written, dtype)
        partial.finish()
    return Path(out)


@contextmanager
def _failing_well(partial: Partial) -> Iterator[None]:
    """Throw away what bad sources spoilt; keep what a full disk only cut short, and say how to go on."""
    try:
        yield
    except ValueError:
        partial.discard()
        raise
    except OSError as error:
        if error.errno not in FULL:
            raise
        mend = "free some space and call again: it goes on where it stopped"
        raise ValueError(f"{error.filename or partial.folder}: {error.strerror}; {mend}") from error


def _fingerprint(checkpoints: Sequence[Checkpoint], settings: object) -> str:
    files = [shard.file.resolve() for checkpoint in checkpoints for shard in checkpoint.shards]
    states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([states, settings]).encode()).hexdigest()


def _check_space(folder: Path, needed: int) -> None:
    there = sum(file.stat().st_blocks * 512 for file in folder.rglob("*.safetensors"))
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    if needed - there > free:
        raise ValueError(f"{folder}: needs {needed - there} bytes more, and the disk has {free} free: make room")


def _write_headers(windows: Sequence[Window], files: Sequence[OutputFile]) -> None:
    for window in windows:
        window.folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            path = window.folder / file.name
            path.touch()
            with path.open("r+b") as stream:
                write_at(stream.fileno(), memoryview(file.header), 0, path)


def _complete(
    window: Window,
    checkpoints: Sequence[Checkpoint],
    files: tuple[OutputFile, ...],
    written: dict[Path, Digest],
    dtype: torch.dtype | None,
) -> None:
    """Add what stands beside the weights, and the manifest, which also says what was averaged."""
    weights = {file.name: written[window.folder / file.name].hexdigest() for file in files}
    write_beside(checkpoints[window.members[-1]], files, window.folder, dtype)
    listed = {}
    for path in sorted(window.folder.iterdir()):
        if path.is_file() and path.name not in (JOURNAL, MANIFEST):
            sha256 = weights.get(path.name) or hashlib.sha256(path.read_bytes()).hexdigest()
            listed[path.name] = {"sha256": sha256, "bytes": path.stat().st_size}
            if path.name not in weights:  # which were flushed as they grew
                flush(path)
    averaged = {
        "sources": [checkpoints[index].source for index in window.members],
        "weights": list(window.shares),
    }
    manifest = window.folder / MANIFEST
    manifest.write_text(json.dumps({"files": listed, "averaged": averaged}, indent=1), encoding="utf-8")
    flush(manifest)
    flush(window.folder)
