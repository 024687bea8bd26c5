"""The arithmetic of a merge, block by block: read a range of every source, add in order, cast once, write."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from shoestring.methods.averaging.layout import OutputFile, Slot
from shoestring.methods.averaging.reader import Reader
from shoestring.methods.averaging.shards import Stored

ACCUMULATED = 64 << 20  # bytes of sums that one thread holds at most, whatever the windows
HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Window:
    """An average to write: in which folder, of which sources (oldest first), each with which share."""

    folder: Path
    members: tuple[int, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Piece:
    """A range of one tensor's elements, counted flat."""

    slot: Slot
    start: int
    stop: int


@dataclass(frozen=True)
class Span:
    """Neighbouring pieces of an output file, up to byte `end` of it: what one thread works on at a time."""

    file: OutputFile
    pieces: tuple[Piece, ...]
    end: int

    def __len__(self) -> int:
        return sum((piece.stop - piece.start) * piece.slot.dtype.itemsize for piece in self.pieces)


def spans(files: Sequence[OutputFile], elements: int, span_bytes: int) -> list[Span]:
    """All files cut into spans of about `span_bytes`, and these into pieces of at most `elements`, in order."""
    found = []
    for file in files:
        pieces: list[Piece] = []
        held = 0
        for slot in file.slots:
            for start in range(0, slot.numel, elements):
                piece = Piece(slot, start, min(start + elements, slot.numel))
                pieces.append(piece)
                held += (piece.stop - piece.start) * slot.dtype.itemsize
                if held >= span_bytes:
                    found.append(Span(file, tuple(pieces), slot.offset + piece.stop * slot.dtype.itemsize))
                    pieces, held = [], 0
        found.append(Span(file, tuple(pieces), file.size))
    return found


def block_elements(windows: Sequence[Window], block_bytes: int, accumulate: torch.dtype) -> int:
    """How many elements a block has, so that the sums that are open at once stay within bounds."""
    return max(1, min(block_bytes, ACCUMULATED // _open_at_once(windows)) // accumulate.itemsize)


def _open_at_once(windows: Sequence[Window]) -> int:
    return min(len(windows), max(window.members[-1] - window.members[0] + 1 for window in windows))


class Blender:
    """Averages spans with buffers of its own: one a thread.

    A source is read once for all windows that it is a member of; each window has its own sum, which starts at zero, so
    that it is the very sum that `average` makes in memory, and nothing drifts as with a sum that rolls along.
    """

    def __init__(
        self, sources: Sequence[Mapping[str, Stored]], windows: Sequence[Window], elements: int, accumulate: torch.dtype
    ) -> None:
        self._sources = sources
        self._windows = windows
        self._raw = torch.empty(elements * 8, dtype=torch.uint8)
        self._cast = torch.empty(elements * 8, dtype=torch.uint8)
        self._sums = [torch.empty(elements, dtype=accumulate) for _ in range(_open_at_once(windows))]
        self._uses: list[list[tuple[int, Window, float]]] = [[] for _ in sources]
        for number, window in enumerate(windows):
            for index, share in zip(window.members, window.shares, strict=True):
                self._uses[index].append((number, window, share))

    def blend(self, span: Span) -> None:
        """Read, average and write a span of every window. Raises ValueError naming what is not finite; OSError."""
        with Reader() as reader:
            targets = [_open(window.folder / span.file.name) for window in self._windows]
            try:
                for piece in span.pieces:
                    if piece.slot.dtype.is_floating_point:
                        self._average(reader, piece, span, targets)
                    else:
                        self._copy(reader, piece, span, targets)
            finally:
                for target in targets:
                    os.close(target)

    def expect(self, span: Span) -> None:
        """Ask the system to fetch a span's inputs ahead of time."""
        with Reader() as reader:
            for source in self._sources:
                for piece in span.pieces:
                    reader.expect(source[piece.slot.name], piece.start, piece.stop)

    def _average(self, reader: Reader, piece: Piece, span: Span, targets: list[int]) -> None:
        length = piece.stop - piece.start
        for index, source in enumerate(self._sources):
            block = reader.read(source[piece.slot.name], piece.start, piece.stop, self._raw)
            for number, window, share in self._uses[index]:
                total = self._sums[number % len(self._sums)][:length]
                if index == window.members[0]:
                    total.zero_()
                # half precision widens within the sum, to the same bits; float8 cannot, and float64 would widen the sum
                widened = block if block.dtype in HALVES else block.to(total.dtype)
                total.add_(widened, alpha=share)
                if index == window.members[-1]:
                    result = self._finished(reader, piece, window, total)
                    _write(targets[number], result, piece, window.folder / span.file.name)

    def _copy(self, reader: Reader, piece: Piece, span: Span, targets: list[int]) -> None:
        for number, window in enumerate(self._windows):
            block = reader.read(self._sources[window.members[-1]][piece.slot.name], piece.start, piece.stop, self._raw)
            _write(targets[number], block, piece, window.folder / span.file.name)

    def _finished(self, reader: Reader, piece: Piece, window: Window, total: Tensor) -> Tensor:
        dtype, result = piece.slot.dtype, total
        if dtype != total.dtype:
            result = self._cast[: total.numel() * dtype.itemsize].view(dtype).copy_(total)
        low, high = torch.aminmax(total)
        limit = torch.finfo(dtype).max
        if -limit <= low.item() and high.item() <= limit:
            return result
        if bool(torch.isfinite(result.to(torch.float64)).all()):  # just beyond the limit, and rounded back to it
            return result
        members = [self._sources[index][piece.slot.name] for index in window.members]
        return _newest_of_equals(reader, piece, members).to(dtype)


def _newest_of_equals(reader: Reader, piece: Piece, members: list[Stored]) -> Tensor:
    """A block of a mask: infinite, but the same tensor in every source. Raises ValueError where it is no mask."""
    buffers = [torch.empty((piece.stop - piece.start) * stored.dtype.itemsize, dtype=torch.uint8) for stored in members]
    blocks = [reader.read(stored, piece.start, piece.stop, own) for stored, own in zip(members, buffers, strict=True)]
    newest = blocks[-1].to(torch.float64)
    if len(blocks) > 1 and all(torch.equal(block.to(torch.float64), newest) for block in blocks[:-1]):
        return blocks[-1]
    for stored, block in zip(members, blocks, strict=True):
        if not bool(torch.isfinite(block.to(torch.float64)).all()):
            mend = "leave that checkpoint out"
            raise ValueError(f"{stored.file}: tensor {stored.name!r} holds NaN or an infinity: {mend}")
    beyond = f"is beyond what {str(piece.slot.dtype).removeprefix('torch.')} can hold"
    raise ValueError(f"{members[-1].file}: the mean of tensor {piece.slot.name!r} {beyond}: choose a wider dtype")


def _open(file: Path) -> int:
    return os.open(file, os.O_WRONLY | os.O_CREAT, 0o666)


def _write(target: int, block: Tensor, piece: Piece, file: Path) -> None:
    width = piece.slot.dtype.itemsize
    write_at(target, block.view(torch.uint8).numpy().data, piece.slot.offset + piece.start * width, file)


def write_at(target: int, view: memoryview, place: int, file: Path) -> None:
    """Write all of `view` at a byte of an open file. Raises OSError that names the file."""
    try:
        while view:
            wrote = os.pwrite(target, view, place)
            place, view = place + wrote, view[wrote:]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error
