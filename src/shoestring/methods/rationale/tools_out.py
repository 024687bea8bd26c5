"""Where a command's result goes: looked at before anything is paid for, and nothing made there before it is there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shoestring.methods.rationale import rows


def check_file(out: Path, suffix: str, *inputs: Path, option: str = "--out") -> None:
    """Raise ValueError where a file could not be written there, or is one that is read."""
    if out.suffix != suffix or out.is_dir():
        what = "a folder, " if out.is_dir() else ""
        raise ValueError(f"{option} {out}: {what}expected the name of a file ending in {suffix}")
    for read in inputs:
        if out.resolve() == read.resolve():
            raise ValueError(f"{option} {out}: it is what is read: write elsewhere")
    _check_above(out, option)
    if out.exists() and not os.access(out, os.W_OK):
        raise ValueError(f"{option} {out}: it cannot be written: give another")


def check_own(out: Path, columns: Collection[str], maker: str, never: Collection[str] = ()) -> None:
    """Raise ValueError where a file is there whose rows are not such as a command writes: it would be lost.

    columns, never  those that all of its rows have, and that none has
    """
    if not out.exists() or not out.stat().st_size:
        return
    try:
        found = set(next(rows.read(out)).cells)
        own = set(columns) <= found and not found & set(never)
    except (ValueError, StopIteration):
        own = False
    if not own:
        raise ValueError(f"--out {out}: it holds what no {maker} wrote: give another name, or delete it")


def check_folder(out: Path, option: str = "--out") -> None:
    """Raise ValueError where a folder could not be made there."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{option} {out}: a file: expected a folder, or nothing")
    _check_above(out / "any", option)


@contextmanager
def leaving_no_folder(path: Path) -> Iterator[None]:
    """Take away the folders above a path that came into being meanwhile and hold nothing."""
    new = [folder for folder in path.parents if not folder.exists()]
    try:
        yield
    finally:
        for folder in new:
            with suppress(OSError):  # something is in it
                folder.rmdir()


def _check_above(out: Path, option: str) -> None:
    there = next(folder for folder in out.absolute().parents if folder.exists())
    if not there.is_dir():
        raise ValueError(f"{option} {out}: {there} is a file: give another")
    if not os.access(there, os.W_OK):
        raise ValueError(f"{option} {out}: {there} cannot be written: give another")


@contextmanager
def leaving_nothing_begun(work: Path) -> Iterator[None]:
    """Where it goes wrong, take a new folder of runs away again, unless one was begun in it."""
    new = not work.exists()
    try:
        yield
    except BaseException:
        if new and not (work / "runs").exists():
            shutil.rmtree(work, ignore_errors=True)
        raise
