"""What a merged checkpoint looks like on disk: its files of weights, laid out beforehand, and what stands by them."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from shoestring.methods.averaging.agreement import configuration, plain_names
from shoestring.methods.averaging.checkpoints import INDEX, STATES, Checkpoint
from shoestring.methods.averaging.shards import CODES, Shard, Stored
from shoestring.models.manifest import MANIFEST

NUMBERED = re.compile(r"-\d+-of-\d+")
BESIDE = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm", ".py")
NOT_BESIDE = re.compile(r"^(?:state|trainer_state|process-\d+|all_results|train_results|eval_results)\.json$")


@dataclass(frozen=True)
class Slot:
    """Where a tensor goes: from byte `offset` of an output file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class OutputFile:
    """A safetensors file to be written: its header's bytes, then its tensors without gaps."""

    name: str
    header: bytes
    slots: tuple[Slot, ...]
    size: int


def lay_out(newest: Checkpoint, dtype: torch.dtype | None) -> tuple[OutputFile, ...]:
    """The files of the average: the newest checkpoint's, as safetensors, under plain names.

    dtype  of floats; the newest's own where None
    """
    stored = [stored for shard in newest.shards for stored in shard.tensors]
    plain = dict(zip(map(id, stored), plain_names([one.name for one in stored]), strict=True))
    return tuple(_output(shard, plain, dtype) for shard in newest.shards)


def _output(shard: Shard, plain: Mapping[int, str], dtype: torch.dtype | None) -> OutputFile:
    def stored_as(stored: Stored) -> torch.dtype:
        return dtype if dtype is not None and stored.dtype.is_floating_point else stored.dtype

    # the widest first, as safetensors writes them, so that each lies aligned; the order is kept otherwise
    ordered = sorted(shard.tensors, key=lambda stored: -stored_as(stored).itemsize)
    entries: dict[str, object] = {"__metadata__": {"format": "pt", **shard.metadata}}
    place, places = 0, []
    for stored in ordered:
        end = place + stored.numel * stored_as(stored).itemsize
        entries[plain[id(stored)]] = {
            "dtype": CODES[stored_as(stored)],
            "shape": list(stored.shape),
            "data_offsets": [place, end],
        }
        places.append(place)
        place = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    slots = tuple(
        Slot(plain[id(stored)], stored_as(stored), stored.shape, len(header) + begin)
        for stored, begin in zip(ordered, places, strict=True)
    )
    return OutputFile(_file_name(shard.file), header, slots, len(header) + place)


def _file_name(file: Path) -> str:
    """The name under which `from_pretrained` looks for the file."""
    number = NUMBERED.search(file.stem)
    return f"model{number.group() if number else ''}.safetensors"


def write_beside(newest: Checkpoint, files: tuple[OutputFile, ...], folder: Path, dtype: torch.dtype | None) -> None:
    """Copy configuration and tokenizer from the newest checkpoint, and write the index where there are several files.

    The optimizer's state stays behind: an average has no moments that match it.
    """
    if newest.folder is not None:
        for file in sorted(newest.folder.iterdir()):
            if file.is_file() and _belongs(file.name):
                shutil.copyfile(file, folder / file.name)
    settings = configuration(newest)
    if settings and dtype is not None:
        settings["torch_dtype" if "torch_dtype" in settings else "dtype"] = str(dtype).removeprefix("torch.")
        (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if newest.index is not None:
        slots = {slot.name: (file.name, slot) for file in files for slot in file.slots}
        total = sum(slot.numel * slot.dtype.itemsize for _, slot in slots.values())
        weight_map = {name: slots[name][0] for name in sorted(slots)}
        index = {"metadata": {**newest.index, "total_size": total}, "weight_map": weight_map}
        (folder / f"model.safetensors{INDEX}").write_text(json.dumps(index, indent=2) + "\n")


def _belongs(name: str) -> bool:
    if name == MANIFEST or name.endswith(INDEX) or STATES.match(name) or NOT_BESIDE.match(name):
        return False
    return name.endswith(BESIDE)
