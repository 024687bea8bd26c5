"""A folder's manifest: the size and checksum of each file, and the rename that makes the folder whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def seal(partial: Path, final: Path, **facts: Any) -> None:
    """Checksum a folder's files, flush them to the disk, and only then give the folder its name.

    facts   further keys of the manifest, beside `files`
    What stood under the final name is replaced.
    """
    manifest = partial / MANIFEST
    files = sorted(path for path in partial.rglob("*") if path.is_file() and path != manifest)
    for file in files:
        flush(file)
    listed = {str(f.relative_to(partial)): {"sha256": sha256(f), "bytes": f.stat().st_size} for f in files}
    manifest.write_text(json.dumps({"files": listed, **facts}, indent=1), encoding="utf-8")
    for path in (manifest, *(folder for folder in partial.rglob("*") if folder.is_dir()), partial):
        flush(path)
    if final.exists():
        discard(final)
    partial.replace(final)
    flush(final.parent)


def discard(folder: Path) -> None:
    """Delete a folder, so that a kill on the way leaves nothing torn under its name but a `.partial-` beside it."""
    doomed = folder.with_name(f".partial-{folder.name}-discarded")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.replace(doomed)
    shutil.rmtree(doomed)


def verify(folder: Path) -> None:
    """Compare every file with the manifest. Raises ValueError naming the first that is absent, torn or changed."""
    for name, expected in listed(folder).items():
        file = folder / name
        if not file.is_file():
            raise ValueError(f"{file}: absent, though the manifest lists it")
        if file.stat().st_size != expected["bytes"]:
            raise ValueError(f"{file}: {file.stat().st_size} bytes, the manifest says {expected['bytes']}: torn")
        if sha256(file) != expected["sha256"]:
            raise ValueError(f"{file}: its checksum is not the manifest's: changed or damaged")


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    """The files a manifest lists, each with `sha256` and `bytes`. Raises ValueError where it is absent or foreign."""
    manifest = folder / MANIFEST
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder}: not a checkpoint: it has no {MANIFEST}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise ValueError(f"{manifest}: torn or foreign") from None
    if not isinstance(files, dict) or not all(map(_complete, files.values())):
        raise ValueError(f"{manifest}: torn or foreign")
    return files


def _complete(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and isinstance(entry.get("bytes"), int)


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Force a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
