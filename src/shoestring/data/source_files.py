"""The files that a source of text names, each with the split that its name states."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from shoestring.data import formats
from shoestring.data.splits import WORDS, Split, named_split, without_split

File: TypeAlias = tuple[Path, str, Split | None]  # path, name for people and fingerprints, split by its name
PLACEHOLDER = "{split}"


def of_several(sources: Sequence[str], among_others: bool) -> dict[str, list[File]]:
    """The files of each source, as `of` has them.

    among_others  there are more sources than one, some of which may have no files. Then a lone file's name says its
                  split, too, and so does the folder that a source is, or is in, where all of these, below the one that
                  all are in, are named after splits
    """
    found = {source: of(source) for source in sources}
    places = {source: _place(source) for source in found if PLACEHOLDER not in source}
    if not among_others or not places:
        return found
    above = os.path.commonpath([*places.values()])
    below = {source: place.relative_to(above) for source, place in places.items()}
    told = not any(without_split(part) for place in below.values() for part in place.parts)
    for source, place in below.items():
        names = ((path, name, str(place / name) if told else name) for path, name, _ in found[source])
        found[source] = [(path, name, named_split(whole)) for path, name, whole in names]
    return found


def _place(source: str) -> Path:
    path = Path(source).expanduser().absolute()  # links by their own names
    return path if path.is_dir() else path.parent


def of(source: str) -> list[File]:
    """The files of a path, a folder, or a path with `{split}` in it. A lone file states no split.

    Raises ValueError where there is none, or one is empty or of an unknown kind.
    """
    if PLACEHOLDER in source:
        found: list[File] = [
            (path, path.name, split)
            for split, words in WORDS.items()
            for path in _placed(source, words)
            if path.is_file()
        ]
        if not found:
            raise ValueError(f"{source}: no file there: {PLACEHOLDER} was tried as {', '.join(chain(*WORDS.values()))}")
        for path, _, _ in found:
            _known(path)
        return found
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise ValueError(f"{source}: no such file or folder; a source is a path, 'python', or hf:NAME")
    _known(path)
    return [(path, path.name, None)]


def _placed(source: str, words: tuple[str, ...]) -> list[Path]:
    return [Path(source.replace(PLACEHOLDER, word)).expanduser() for word in words]


def _folder(folder: Path) -> list[File]:
    """The files of a known format below a folder, sorted; those whose names start with a dot are left out."""
    found = []
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if formats.suffix(path) and path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            found.append((path, name, named_split(name)))
    if not found:
        raise ValueError(
            f"{folder}: no text in this folder: expected files ending in {', '.join(formats.SUFFIXES)} (.gz)"
        )
    return found


def _known(path: Path) -> None:
    if formats.suffix(path) is None:
        raise ValueError(f"{path}: unknown kind of file: expected {', '.join(formats.SUFFIXES)}, each also with .gz")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty: expected text")


def domain(name: str) -> str:
    """The first part of a file's path, less suffix, split and shard, that says anything."""
    parts = name.split("/")
    parts[-1] = parts[-1].split(".")[0]
    return next((word for part in parts if (word := without_split(part))), "text")
