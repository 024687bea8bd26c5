"""Nested state to disk and back: tensors to safetensors, the rest to JSON, both exact."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

_TENSOR = "__tensor__"
_SPECIAL = "__float__"
_KEYS = "__keys__"


def write(state: Any, stem: Path) -> None:
    """Write nested dicts, lists, numbers, text and tensors as `stem`.json and `stem`.safetensors.

    Keys are text or whole numbers. Raises TypeError where something is none of these: what cannot be read back bit for
    bit is not written.
    """
    tensors: dict[str, Tensor] = {}
    plain = _outside(state, "", tensors)
    save_file(_apart(tensors), stem.with_name(stem.name + ".safetensors"))
    stem.with_name(stem.name + ".json").write_text(json.dumps(plain, allow_nan=False), encoding="utf-8")


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in host memory, copied only where two names share a storage or one is a part of it."""
    apart: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().contiguous()
        storage = here.untyped_storage()
        alone = storage.nbytes() == here.nbytes and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        apart[name] = here if alone else here.clone()
    return apart


def read(stem: Path) -> Any:
    """Read what `write` wrote. Raises ValueError naming the file that is absent or torn."""
    path, weights = stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".safetensors")
    for file in (path, weights):
        if not file.is_file():
            raise ValueError(f"{file}: no such file; the checkpoint is not whole")
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        tensors = load_file(weights)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    except SafetensorError as error:
        raise ValueError(f"{weights}: torn or not safetensors ({error})") from None
    return _inside(plain, tensors)


def _outside(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # a key may hold a slash, and 0 and "0" look alike: then a number sets the names apart
        name = f"{path}#{len(tensors)}" if path in tensors or "#" in path else path
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, dict):
        foreign = [key for key in value if not isinstance(key, str | int)]
        if foreign:
            raise TypeError(f"a checkpoint cannot hold the key {foreign[0]!r} (at {path or 'the top'})")
        if all(isinstance(key, str) for key in value) and not value.keys() & {_TENSOR, _SPECIAL, _KEYS}:
            return {key: _outside(inner, f"{path}/{key}", tensors) for key, inner in value.items()}
        pairs = [[key, _outside(inner, f"{path}/{key}", tensors)] for key, inner in value.items()]
        return {_KEYS: pairs}
    if isinstance(value, list | tuple):
        return [_outside(inner, f"{path}/{index}", tensors) for index, inner in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {_SPECIAL: str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__} (at {path or 'the top'})")


def _inside(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_inside(inner, tensors) for inner in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _SPECIAL in value:
        return float(value[_SPECIAL])
    if _KEYS in value:
        return {key: _inside(inner, tensors) for key, inner in value[_KEYS]}
    return {key: _inside(inner, tensors) for key, inner in value.items()}


def whole(tensor: Tensor, here: bool = True) -> Tensor:
    """All of a tensor, gathered where FSDP2 shards it: every process must call, and gets nothing of it unless `here`.

    What was gathered is moved to host memory at once, so that an accelerator never holds more than one whole tensor.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    gathered = tensor.full_tensor()
    if not here:
        return gathered.new_empty(0)
    # what shards unevenly is gathered with padding behind it, which no file can hold
    padded = gathered.untyped_storage().nbytes() != gathered.nbytes
    return gathered.clone().cpu() if padded else gathered.cpu()


def like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor cut and placed as `pattern` is."""
    if isinstance(pattern, DTensor):
        moved = tensor.to(pattern.device)
        return distribute_tensor(moved, pattern.device_mesh, pattern.placements)
    return tensor.to(pattern.device)
