"""Ranges of stored tensors read into a buffer, so that memory does not grow with the checkpoint."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
from pathlib import Path

from torch import Tensor

from shoestring.methods.averaging.shards import Stored


class Reader:
    """Reads ranges of stored tensors; the files it opened close with it. Not to be shared between threads.

    Safetensors are read by offset and not mapped: mapped pages count as resident, and would grow with the checkpoint.
    """

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def read(self, stored: Stored, start: int, stop: int, buffer: Tensor) -> Tensor:
        """Elements start to stop, counted flat: a view of `buffer` (bytes), true until the next read into it."""
        length = (stop - start) * stored.dtype.itemsize
        block = buffer[:length].view(stored.dtype)
        if stored.mapped is not None:
            _copy_mapped(stored.mapped, start, stop, block)
            return block
        place, view = stored.offset + start * stored.dtype.itemsize, buffer.numpy().data[:length]
        descriptor = self._descriptor(stored.file)
        while view:
            got = os.preadv(descriptor, [view], place)
            if not got:
                raise ValueError(f"{stored.file}: ends at byte {place}, inside tensor {stored.name!r}; copy it anew")
            place, view = place + got, view[got:]
        return block

    def expect(self, stored: Stored, start: int, stop: int) -> None:
        """Let the system fetch a range from the disk while something else is done."""
        if sys.platform == "linux" and stored.mapped is None:
            place, length = stored.offset + start * stored.dtype.itemsize, (stop - start) * stored.dtype.itemsize
            os.posix_fadvise(self._descriptor(stored.file), place, length, os.POSIX_FADV_WILLNEED)

    def _descriptor(self, file: Path) -> int:
        if file not in self._open:
            self._open[file] = os.open(file, os.O_RDONLY)
        return self._open[file]


def _copy_mapped(tensor: Tensor, start: int, stop: int, block: Tensor) -> None:
    if tensor.is_contiguous():
        piece = tensor.reshape(-1)[start:stop]
        block.copy_(piece)
        _forget(piece.data_ptr(), piece.nbytes)
        return
    width = math.prod(tensor.shape[1:])
    first = start // width
    block.copy_(tensor[first : -(-stop // width)].reshape(-1)[start - first * width : stop - first * width])
    storage = tensor.untyped_storage()
    _forget(storage.data_ptr(), storage.nbytes())


def _forget(address: int, length: int) -> None:
    """Give mapped pages back: they stay in the system's cache, but no longer count as this process's memory."""
    if sys.platform == "linux":
        begin = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        whole = (address + length - begin) // mmap.PAGESIZE * mmap.PAGESIZE
        if whole > 0:
            libc = ctypes.CDLL(None)
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(whole), mmap.MADV_DONTNEED)
