"""Checkpoints on disk: found in a run in order of step, and opened whatever wrote them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoestring.methods.averaging.shards import SUFFIXES, Shard, read_shard
from shoestring.models import manifest
from shoestring.models.manifest import MANIFEST

WHOLE = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"
FOLDER = re.compile(r"^(?!tmp-)(?:.*[-_@.])?(?:step|checkpoint|epoch|iter)[-_]?\d+$")
SHARD = re.compile(r"-\d+-of-\d+")
STATES = re.compile(r"^(?:optimizer|scheduler|scaler|rng_state|training_args|adapter_model)")
HUB = re.compile(r"^[\w.-]+/[\w.-]+(?:@[\w./-]+)?$")
HUB_CONFIGURATION = ["*.json", "*.txt", "*.model", "*.jinja"]
READ = (
    "a Hugging Face folder (model.safetensors or pytorch_model.bin, whole or sharded), a run's checkpoint folder, "
    f"a file ({', '.join(SUFFIXES)}) or a Hub name such as EleutherAI/pythia-70m@step1000"
)


@dataclass(frozen=True)
class Checkpoint:
    """One model's weights on disk.

    source   how the user named it
    folder   where its configuration and tokenizer lie; None for a bare file
    shards   its files of weights
    index    the metadata of its index file, where it is sharded
    digests  the sha256 that each file of weights must have, where a manifest says so
    """

    source: str
    folder: Path | None
    shards: tuple[Shard, ...]
    index: Mapping[str, Any] | None = None
    digests: Mapping[Path, str] = field(default_factory=dict)


def find(path: str | Path) -> list[Path]:
    """The checkpoints of a run, oldest first, by the numbers in their names and never by the alphabet.

    Knows our own runs, the Hugging Face Trainer's, folders of revisions (`step1000`) and numbered files of weights.
    A partly written one is passed over. Raises ValueError where there is none, or where names of several kinds lie
    side by side, so that their order would be a guess.
    """
    root = Path(path)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder: expected a run with checkpoints in it")
    for found in (_folders(root.iterdir()), _folders(root.glob("**/checkpoint/*")), _files(root)):
        if not found:
            continue
        kinds = sorted({str(file.parent / re.sub(r"\d+", "#", file.name)) for file in found})
        if len(kinds) > 1:
            raise ValueError(f"{root}: holds checkpoints of several kinds ({', '.join(kinds)}): name one folder of one")
        return sorted(found, key=_numbers)
    expected = f"step-100, checkpoint-500, step1000, or numbered files ({', '.join(SUFFIXES)})"
    raise ValueError(f"{root}: holds no checkpoints: expected {expected}")


def step_of(path: str | Path) -> int:
    """The step in a checkpoint's name: its last number, as in `step-00000100` or `epoch=3-step=100.ckpt`."""
    return _numbers(Path(path))[-1]


def _numbers(path: Path) -> list[int]:
    numbers = re.findall(r"\d+", path.stem if path.suffix in SUFFIXES else path.name)
    if not numbers:
        raise ValueError(f"{path}: has no step in its name: expected a number, as in step-100")
    return [int(number) for number in numbers]


def _partial(path: Path) -> bool:
    return path.name.endswith(".partial") or ".partial-" in path.name


def _folders(paths: Any) -> list[Path]:
    return [path for path in paths if FOLDER.match(path.name) and not _partial(path) and path.is_dir()]


def _files(root: Path) -> list[Path]:
    numbered = (path for path in root.iterdir() if path.suffix in SUFFIXES and re.search(r"\d", path.stem))
    return [path for path in numbered if not (SHARD.search(path.name) or STATES.match(path.name) or _partial(path))]


def open_checkpoint(source: str | Path) -> Checkpoint:
    """Find a checkpoint's files of weights and list their tensors, without reading them.

    A Hub name is looked up in the local cache first, then fetched. Raises ValueError, one line naming the file.
    """
    path = Path(source)
    if not path.exists():
        if not HUB.match(str(source)) or path.suffix in SUFFIXES or path.parent.exists():
            raise ValueError(f"{source}: no such checkpoint: expected {READ}")
        path = _from_hub(str(source))
    if path.is_file():
        return Checkpoint(str(source), None, (read_shard(path),))
    files, index = _weights(path)
    return Checkpoint(str(source), path, tuple(map(read_shard, files)), index, _digests(path, files))


def holds_weights(folder: Path) -> bool:
    """Whether a folder is a checkpoint itself, not a run of them."""
    return any((folder / name).exists() or (folder / (name + INDEX)).exists() for name in WHOLE)


def _weights(folder: Path) -> tuple[list[Path], Mapping[str, Any] | None]:
    """The folder's files of weights, looked for in the order in which transformers does, and the index's metadata."""
    for name in WHOLE:
        if (folder / name).exists():
            return [folder / name], None
        if (folder / (name + INDEX)).exists():
            return _indexed(folder / (name + INDEX))
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"{folder}: holds an adapter: merge each into its base first (peft's merge_and_unload)")
    raise ValueError(f"{folder}: holds no weights that are read: expected {READ}")


def _indexed(index: Path) -> tuple[list[Path], Mapping[str, Any]]:
    content = read_json(index)
    names = content.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{index}: has no 'weight_map': expected the index of a sharded checkpoint")
    files = [index.parent / name for name in sorted(set(names.values()))]
    absent = [file for file in files if not file.is_file()]
    if absent:
        raise ValueError(f"{absent[0]}: no such file, though {index.name} names it; copy it anew")
    return files, content.get("metadata") or {}


def _digests(folder: Path, files: list[Path]) -> dict[Path, str]:
    """What the manifest says of the files of weights; their sizes are checked here, as that costs nothing."""
    if not (folder / MANIFEST).exists():
        return {}
    listed, digests = manifest.listed(folder), {}
    for file in files:
        entry = listed.get(file.name)
        if entry is None:
            raise ValueError(f"{file}: is not in {MANIFEST}: the folder was changed after it was written")
        if file.stat().st_size != entry["bytes"]:
            have = f"has {file.stat().st_size} bytes, but {MANIFEST} says {entry['bytes']}"
            raise ValueError(f"{file}: {have}: cut short or changed; copy it anew")
        digests[file] = str(entry["sha256"])
    return digests


def read_json(file: Path) -> dict[str, Any]:
    """The object a JSON file holds. Raises ValueError, one line naming the file, where it holds none."""
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: is not JSON ({error}); copy it anew") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds a {type(content).__name__}: expected a JSON object")
    return content


def _from_hub(source: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    name, _, revision = source.partition("@")
    try:
        folder = Path(snapshot_download(name, revision=revision or None, local_files_only=True))
        if any((folder / file).exists() for whole in WHOLE for file in (whole, whole + INDEX)):
            return folder
    except OSError:  # not in the cache: fetched below
        pass
    try:
        files = HfApi().list_repo_files(name, revision=revision or None)
        kind = "model*.safetensors" if any(file.endswith(".safetensors") for file in files) else "pytorch_model*.bin"
        allowed = [*HUB_CONFIGURATION, kind]
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=allowed))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{source}: neither a file nor in the local cache, and not fetched: {reason}") from error
