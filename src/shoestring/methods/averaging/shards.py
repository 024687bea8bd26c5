"""One file of weights as it lies on disk: which tensors it holds, and where, found without reading them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # the error's name alone: nothing is unpickled but by torch's weights_only
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library itself
WRAPPERS = ("state_dict", "model_state_dict", "model", "module")


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor on disk: at byte `offset` of a safetensors file, or `mapped` from a torch file."""

    name: str
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int = 0
    mapped: Tensor | None = None

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Shard:
    """A file of weights: its tensors in the order in which they lie, and its metadata."""

    file: Path
    tensors: tuple[Stored, ...]
    metadata: Mapping[str, str]


def read_shard(file: Path) -> Shard:
    """List a file's tensors without reading them. Raises ValueError, one line naming the file, where it cannot be."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file: expected a file of weights")
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    if file.suffix in TORCH_SUFFIXES:
        return _read_torch(file)
    raise ValueError(f"{file}: weights of this kind are not read: expected one of {', '.join(SUFFIXES)}")


def _read_safetensors(file: Path) -> Shard:
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(LONGEST_HEADER, size - 8):
            what = f"says its header is {length} bytes long, but has {size} bytes"
            raise ValueError(f"{file}: {what}: cut short or not a safetensors file; copy it anew")
        raw = stream.read(length)
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", {})
        tensors = [_entry(file, 8 + length, name, entry) for name, entry in header.items()]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error) if str(error).startswith(str(file)) else f"{file}: the header is not safetensors'"
        raise ValueError(f"{reason}; copy the file anew") from error
    tensors.sort(key=lambda stored: (stored.offset, stored.numel))
    place = 8 + length
    for stored in tensors:
        if stored.offset != place:
            raise ValueError(
                f"{file}: tensor {stored.name!r} does not begin where the one before it ends; copy it anew"
            )
        place += stored.numel * stored.dtype.itemsize
    if place != size:
        cut = "cut short" if place > size else "longer than it should be"
        raise ValueError(f"{file}: the header says {place} bytes, but the file has {size}: {cut}; copy it anew")
    return Shard(file, tuple(tensors), metadata)


def _entry(file: Path, start: int, name: str, entry: dict[str, Any]) -> Stored:
    code, shape = entry["dtype"], tuple(int(extent) for extent in entry["shape"])
    if code not in DTYPES:
        raise ValueError(f"{file}: tensor {name!r} has dtype {code}, which is not read: expected {', '.join(DTYPES)}")
    begin, end = (int(bound) for bound in entry["data_offsets"])
    stored = Stored(name, file, DTYPES[code], shape, start + begin)
    if begin < 0 or min(shape, default=0) < 0 or end - begin != stored.numel * stored.dtype.itemsize:
        raise ValueError(f"{file}: tensor {name!r} of {code} {shape} cannot lie in bytes {begin} to {end}")
    return stored


def _read_torch(file: Path) -> Shard:
    try:
        loaded = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except UnpicklingError as error:
        mend = "save the plain state dict, torch.save(model.state_dict(), ...)"
        raise ValueError(f"{file}: refused: its pickle holds more than tensors and could run code; {mend}") from error
    except (RuntimeError, EOFError) as error:
        mend = "copy it anew, or save it again with torch.save of version 1.6 or later"
        raise ValueError(f"{file}: cut short, or not a torch file that can be mapped; {mend}") from error
    tensors = tuple(_mapped(file, name, value) for name, value in _state_dict(file, loaded).items())
    return Shard(file, tensors, {})


def _state_dict(file: Path, loaded: object) -> Mapping[str, Tensor]:
    if isinstance(loaded, Mapping):
        for state in (loaded, *(loaded[key] for key in WRAPPERS if key in loaded)):
            if isinstance(state, Mapping) and state and all(isinstance(value, Tensor) for value in state.values()):
                return state
    where = ", ".join(repr(key) for key in WRAPPERS)
    raise ValueError(f"{file}: holds no state dict: expected tensors by name, at the top or under {where}")


def _mapped(file: Path, name: str, tensor: Tensor) -> Stored:
    if tensor.layout is not torch.strided or tensor.dtype not in CODES:
        kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in CODES)
        raise ValueError(f"{file}: tensor {name!r} is {tensor.layout} {tensor.dtype}: expected dense {kinds}")
    return Stored(name, file, tensor.dtype, tuple(tensor.shape), mapped=tensor.detach())
