"""The folder of a Hugging Face model: where a name's folder is, and whether what it should hold is there and whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_TEXT_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt")


def find(name: str) -> Path:
    """The local folder of a name: itself, or the snapshot of a Hub repository, downloaded only if it must be."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise ValueError(f"{name} is a file: expected the folder of a model, with config.json and its weights")
    if path.is_absolute() or name.startswith(("./", "../", "~")) or name.count("/") > 1:
        raise ValueError(f"{name}: there is no such folder")
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        cached = _snapshot(name, local=True)
        if (files := weight_files(cached)) and all(path.is_file() for path in files):
            return cached
    except (OSError, HfHubHTTPError, HFValidationError):
        pass  # nothing in the cache: the Hub is asked next
    absent = f"{name} is neither a folder nor in the Hub's cache"
    if constants.HF_HUB_OFFLINE:
        raise ValueError(f"{absent}, and HF_HUB_OFFLINE is set")
    try:
        return _snapshot(name, local=False)
    except LocalEntryNotFoundError as error:
        raise ValueError(f"{absent}, and the Hub was not reached ({one_line(error.__cause__ or error)})") from error
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise ValueError(f"{absent}; of the Hub: {one_line(error)}") from error


def _snapshot(name: str, local: bool) -> Path:
    """A repository's files, without torch's own weights where it has safetensors."""
    from huggingface_hub import snapshot_download

    def fetch(patterns: list[str]) -> Path:
        found = snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"], local_files_only=local)
        return Path(found)

    folder = fetch([*_TEXT_FILES, "*.safetensors"])
    return folder if weight_files(folder) else fetch(["pytorch_model*"])


def read_json(path: Path, expected: str) -> dict[str, Any]:
    """A JSON object from a file. Raises ValueError, saying what was expected, where it is absent or something else."""
    if not path.is_file():
        raise ValueError(f"{path} is absent: expected {expected}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a JSON {type(content).__name__}: expected an object")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The weights that `from_pretrained` would read: single before sharded, safetensors before torch's own."""
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        if (folder / f"{stem}.{suffix}").is_file():
            return [folder / f"{stem}.{suffix}"]
        index = folder / f"{stem}.{suffix}.index.json"
        if index.is_file():
            shards = read_json(index, "").get("weight_map")
            if not isinstance(shards, dict):
                raise ValueError(f"{index}: no 'weight_map' from tensors to files")
            return [folder / str(name) for name in sorted(set(shards.values()))]
    return []


def check_weights(folder: Path) -> None:
    """Raise ValueError, naming the file, where weights are absent or a safetensors file is not whole."""
    from safetensors import SafetensorError, safe_open

    files = weight_files(folder)
    if not files:
        raise ValueError(f"{folder} holds no weights: expected model.safetensors, its shards, or pytorch_model.bin")
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path} is absent, though the index beside it names it: fetch it again")
        if path.suffix != ".safetensors":
            continue
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{path} is torn or not safetensors ({one_line(error)}): fetch it again") from error


def fingerprint(model: Path) -> str:
    """A short SHA-256 over what makes a model: of a folder its settings, tokenizer and weights, of a file all of it."""
    digest = hashlib.sha256()
    texts = sorted({path for pattern in _TEXT_FILES for path in model.glob(pattern)})
    for path in [*texts, *weight_files(model)] if model.is_dir() else [model]:
        try:
            with path.open("rb") as stream:
                contents = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
        digest.update(f"{path.name}\0{contents}\n".encode())
    return digest.hexdigest()[:16]


def one_line(error: BaseException) -> str:
    """The first paragraph of what a library says, on one line."""
    return " ".join(str(error).split("\n\n")[0].split())


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZER_FILES) or any(folder.glob("*.model"))
