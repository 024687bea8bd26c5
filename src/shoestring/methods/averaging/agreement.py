"""Whether checkpoints are of one model, tensor by tensor, and which of their tensors belong together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from shoestring.methods.averaging.checkpoints import Checkpoint, read_json
from shoestring.methods.averaging.reader import Reader
from shoestring.methods.averaging.shards import Stored

WRAPPED = re.compile(r"(?:^|(?<=\.))_orig_mod\.")
COMPARED = 1 << 17  # elements read at a time where two tensors are compared


def agree(checkpoints: Sequence[Checkpoint], dtype: torch.dtype | None) -> list[dict[str, Stored]]:
    """The tensors of each checkpoint by the plain names of the newest, which is the last one.

    Plain names are without what DDP (`module.`) and `torch.compile` (`_orig_mod.`) put before them, in every source.
    Of two tied tensors a file may hold either one or both. Where the sources' dtypes differ, `dtype` must be given.
    Raises ValueError, one line naming the file and the tensor, at the first that is missing, extra or other.
    """
    held = [_by_name(checkpoint) for checkpoint in checkpoints]
    newest = held[-1]
    if not newest:
        raise ValueError(f"{checkpoints[-1].source}: holds no tensors")
    quantised = next(
        (checkpoint for checkpoint in checkpoints if "quantization_config" in configuration(checkpoint)), None
    )
    if quantised is not None:
        raise ValueError(f"{quantised.source}: its weights are quantised (config.json): merge the ones before it")
    aligned = [
        _paired(checkpoint, own, checkpoints[-1], newest) for checkpoint, own in zip(checkpoints, held, strict=True)
    ]
    for own in aligned:
        for name, stored in own.items():
            _check(name, stored, newest[name], dtype)
    return aligned


def plain_names(names: Sequence[str]) -> list[str]:
    """Names of tensors without the prefixes of wrappers; `module.` is one only where all names bear it."""
    plain = [WRAPPED.sub("", name) for name in names]
    while plain and all(name.startswith("module.") for name in plain):
        plain = [WRAPPED.sub("", name.removeprefix("module.")) for name in plain]
    return plain


def configuration(checkpoint: Checkpoint) -> dict[str, object]:
    """The checkpoint's config.json; empty where it has none."""
    file = checkpoint.folder / "config.json" if checkpoint.folder else None
    return read_json(file) if file is not None and file.exists() else {}


def _by_name(checkpoint: Checkpoint) -> dict[str, Stored]:
    tensors = [stored for shard in checkpoint.shards for stored in shard.tensors]
    held: dict[str, Stored] = {}
    for name, stored in zip(plain_names([stored.name for stored in tensors]), tensors, strict=True):
        if name in held:
            raise ValueError(f"{stored.file}: tensor {name!r} is also in {held[name].file}: expected it once")
        held[name] = stored
    return held


def _paired(
    checkpoint: Checkpoint, own: dict[str, Stored], last: Checkpoint, newest: dict[str, Stored]
) -> dict[str, Stored]:
    """The checkpoint's tensors by the newest's names, tied ones found under their other name."""
    missing = [name for name in newest if name not in own]
    extra = [name for name in own if name not in newest]
    paired = {name: own[name] for name in newest if name in own}
    ties = _ties(last)
    for name in missing:
        stored = _twin(name, own, newest, [other for other in extra if _vocabulary(last, own[other])]) if ties else None
        if stored is None:
            raise ValueError(f"{_place(checkpoint)}: tensor {name!r} is missing, which {newest[name].file} holds")
        paired[name] = stored
    used = {id(stored) for stored in paired.values()}
    for name in extra:
        if id(own[name]) not in used and not (ties and any(_same(own[name], one) for one in paired.values())):
            raise ValueError(f"{own[name].file}: tensor {name!r} is extra: {_place(last)} does not hold it")
    return paired


def _twin(name: str, own: dict[str, Stored], newest: dict[str, Stored], extra: list[str]) -> Stored | None:
    """What stands for a missing tied tensor: its twin in the newest, or the one extra tensor of its shape."""
    for other, stored in newest.items():
        if other != name and other in own and _same(stored, newest[name]):
            return own[other]
    alike = [other for other in extra if own[other].shape == newest[name].shape]
    return own[alike[0]] if len(alike) == 1 else None


def _ties(checkpoint: Checkpoint) -> bool:
    """Whether the model may tie tensors: transformers does unless its configuration says no; a bare file may, too."""
    return configuration(checkpoint).get("tie_word_embeddings", True) is True


def _vocabulary(checkpoint: Checkpoint, stored: Stored) -> bool:
    """Whether a tensor is as long as the vocabulary: only such ones go by another name when tied."""
    return len(stored.shape) == 2 and stored.shape[0] == configuration(checkpoint).get("vocab_size")


def _same(one: Stored, other: Stored) -> bool:
    if one is other or one.shape != other.shape or one.dtype != other.dtype or len(one.shape) < 2:
        return one is other
    first, second = (torch.empty(COMPARED * one.dtype.itemsize, dtype=torch.uint8) for _ in range(2))
    with Reader() as reader:
        for start in range(0, one.numel, COMPARED):
            stop = min(start + COMPARED, one.numel)
            if not torch.equal(reader.read(one, start, stop, first), reader.read(other, start, stop, second)):
                return False
    return True


def _place(checkpoint: Checkpoint) -> Path:
    return checkpoint.shards[0].file if len(checkpoint.shards) == 1 else checkpoint.shards[0].file.parent


def _check(name: str, stored: Stored, newest: Stored, dtype: torch.dtype | None) -> None:
    if stored.shape != newest.shape:
        shapes = f"has shape {list(stored.shape)}, but {list(newest.shape)} in {newest.file}"
        raise ValueError(f"{stored.file}: tensor {name!r} {shapes}: only checkpoints of one model can be averaged")
    if stored.dtype == newest.dtype:
        return
    kinds = f"is {_short(stored.dtype)}, but {_short(newest.dtype)} in {newest.file}"
    if not (stored.dtype.is_floating_point and newest.dtype.is_floating_point):
        raise ValueError(f"{stored.file}: tensor {name!r} {kinds}: only floats of different kinds can be averaged")
    if dtype is None:
        raise ValueError(f"{stored.file}: tensor {name!r} {kinds}: say which dtype the average should have")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
