"""The folder a run writes into: held by one process, and of one recipe for good."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import yaml

from shoestring import config, files, runtime
from shoestring.cost import Ledger

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Found = TypeVar("Found", bound="DataclassInstance")

# keys that change how long a run takes, not what it finds
_FREE = ("compute.workers", "compute.save_seconds", "workers")
_LOCK = ".lock"
_RECIPE = "recipe.yaml"
_NOBODYS = (_LOCK, f"{_RECIPE}.partial", ".DS_Store", "lost+found")  # a kill left them, or a system


@contextmanager
def opened(folder: Path, recipe: str) -> Iterator[None]:
    """Hold a folder for a recipe (as YAML); one that another process holds, or something else filled, is refused."""
    if int(os.environ.get("RANK", "0")):
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _LOCK).exists():  # nor is one left there then
        _refuse_strange(folder)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{folder}: another process is running there; wait for it, or give another --out"
            ) from None
        _refuse_strange(folder)
        _same(folder / _RECIPE, recipe)
        yield


def once(path: Path, kind: type[Found], work: Callable[[], Found]) -> Found:
    """What a work found, kept as JSON the moment it ends; found before, it is read and not redone.

    kind  the dataclass that is found; every process that works calls, and the first writes
    Raises ValueError, naming the file, where it is torn.
    """
    here = runtime.current()
    if not path.exists():
        found = work()
        if here.rank == 0:
            files.replace(path, json.dumps(asdict(found), ensure_ascii=False))
        here.accelerator.wait_for_everyone()
    mend = "delete it, and this run is done again"
    try:
        return kind(**files.read_json(path, mend))
    except TypeError as error:
        raise ValueError(f"{path}: torn ({error}): {mend}") from None


def kept_facts(folder: Path, facts: dict[str, str]) -> dict[str, str]:
    """The facts of a run's first start, kept in its folder; a later start on another commit is added to them."""
    path = folder / "facts.json"
    kept = config.read_yaml(path) if path.exists() else facts
    if facts["commit"] not in kept["commit"]:
        kept = {**kept, "commit": f"{kept['commit']}, gone on with at {facts['commit']}"}
    files.replace(path, json.dumps(kept, indent=1))
    return {str(name): str(value) for name, value in kept.items()}


def write_ledger(ledger: Ledger, folder: Path) -> None:
    """Write the ledger's phases as ledger.json."""
    files.replace(folder / "ledger.json", json.dumps(ledger.state_dict(), indent=1))


def _same(path: Path, recipe: str) -> None:
    if path.exists():
        before, now = config.read_yaml(path), yaml.safe_load(recipe)
        if not isinstance(before, dict):
            raise ValueError(f"{path}: not the recipe of a run: give another --out, or delete the folder")
        before, now = _flat(before), _flat(now)
        keys = [key for key in sorted({*before, *now} - {*_FREE}) if before.get(key) != now.get(key)]
        if keys and _begun(path.parent):
            raise ValueError(
                f"{path.parent}: it holds {_told(before, now, keys)}: give another --out, or delete the folder"
            )
    files.replace(path, recipe)


def _told(before: dict[str, object], now: dict[str, object], keys: list[str]) -> str:
    """How the run that is there differs, where the two have most of their keys in common."""
    if len({*before} & {*now}) < len({*before} | {*now}) / 2:
        return "a run of another kind"
    there, here = (", ".join(f"{key}={one.get(key)!r}" for key in keys) for one in (before, now))
    return f"a run with {there}, this one has {here}"


def _refuse_strange(folder: Path) -> None:
    """Raise ValueError where something else filled a folder."""
    names = sorted(there.name for there in folder.iterdir() if there.name not in _NOBODYS)
    if names and _RECIPE not in names:
        raise ValueError(f"{folder}: it holds {names[0]!r} and no run: give another --out, or an empty folder")


def _begun(folder: Path) -> bool:
    """Whether anything that cost something is there: a recipe that was refused leaves none behind."""
    return any((folder / name).exists() for name in ("runs", "report.json"))


def _flat(values: dict[str, object], above: str = "") -> dict[str, object]:
    """Nested keys by their dotted names."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return flat
