"""Small files that are whole or not there; data by name; and what an output folder was begun on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def replace(path: Path, text: str) -> None:
    """Give a file this text: written beside, forced to the disk and renamed, so that no kill leaves a torn one.

    Its folder is made where there is none. What stood under the name is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    with beside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)


def read_json(path: Path, mend: str) -> Any:
    """What `replace` wrote as JSON. Raises ValueError naming the file where it is torn, with what to do about it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: torn ({error}): {mend}") from None


def find(name: str) -> Path:
    """A path, or what has that name in the folder SHOESTRING_DATA. Raises ValueError where neither is there."""
    path, shelf = Path(name).expanduser(), os.environ.get("SHOESTRING_DATA")
    if path.exists():
        return path
    if shelf is None:
        raise ValueError(
            f"{name}: no such file; name the folder of your data sets in SHOESTRING_DATA, or give its path"
        )
    if not (Path(shelf) / name).exists():
        raise ValueError(f"{name}: no such file, nor in SHOESTRING_DATA={shelf}: give its path")
    return Path(shelf) / name


def spelled(name: str, names: Sequence[str] = ()) -> str:
    """What is there in its plainest spelling: `w/` and `./w` are `w`, unless that is one of the names of other things.

    Else a name is left alone: `./w` may be told from a name on the Hub.
    """
    try:
        there = bool(name) and Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long a name, nobody's home, a null byte
        there = False
    plain = str(Path(name)) if there else name
    return name if plain in names else plain


def begun_on(out: Path, data: Mapping[str, str]) -> None:
    """Refuse an output folder whose finished runs are of other data: they are not redone, so theirs must be this.

    data  fingerprints by name; kept in `out`/data.json where nothing has run yet
    """
    kept = out / "data.json"
    if (out / "runs").exists() and not kept.exists():
        raise ValueError(f"{out}: does not say what data it was begun on ({kept.name} is missing): give another --out")
    if kept.exists() and (out / "runs").exists():
        began = read_json(kept, "give another --out, or delete the folder")
        if not isinstance(began, dict):
            raise ValueError(f"{kept}: holds {began!r}, expected fingerprints by name: give another --out")
        for name, before in began.items():
            if data.get(name) != before:
                raise ValueError(
                    f"{out}: begun on {name} {before}, which is {data.get(name)} now: give another --out, or delete it"
                )
    replace(kept, json.dumps(dict(data)))


def made_of(out: Path, what: Mapping[str, Any], parts: Sequence[str]) -> None:
    """Remove the parts of an output folder that were made of something else than this; what is of it stays.

    what   anything that JSON holds; kept in `out`/made.json
    parts  names of files and folders in `out`
    Where runs have begun nothing is removed: `begun_on` holds the folder to its data.
    """
    kept, told = out / "made.json", json.dumps(what, sort_keys=True)
    if (out / "runs").exists():
        return
    if not kept.exists() or kept.read_text(encoding="utf-8") != told:
        for part in parts:
            if (out / part).is_file():
                (out / part).unlink()
            else:
                shutil.rmtree(out / part, ignore_errors=True)
    replace(kept, told)
