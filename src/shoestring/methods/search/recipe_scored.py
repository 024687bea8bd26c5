"""Scores of many networks, each kept the moment it is there, with what it took."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from shoestring import config
from shoestring.methods.search.history import plain
from shoestring.methods.search.inputs import Inputs
from shoestring.methods.search.parallel import Proxy, scores
from shoestring.methods.search.proxies import PROXIES
from shoestring.methods.search.score import Score


class Kept(NamedTuple):
    """A score, and the seconds it took."""

    score: Score
    seconds: float


def named(names: Sequence[str]) -> dict[str, Proxy]:
    """The proxies of these names. Raises ValueError naming the nearest where one is not known."""
    for name in names:
        if name not in PROXIES:
            near = config.nearest(name, PROXIES)
            raise ValueError(f"no proxy is called {name!r}{near}: expected some of {', '.join(PROXIES)}")
    return {name: PROXIES[name] for name in names}


@dataclass(frozen=True)
class Timed:
    """A proxy that also tells how long it took, on the device given; picklable."""

    proxy: Proxy
    device: str

    def __call__(self, model: nn.Module, inputs: Inputs) -> Kept:
        model.to(self.device)
        since = time.perf_counter()
        found = self.proxy(model, inputs)
        return Kept(found, time.perf_counter() - since)


def scored(
    path: Path,
    what: str,
    builds: Mapping[str, Callable[[], nn.Module]],
    proxies: Mapping[str, Proxy],
    inputs: Inputs,
    workers: int,
) -> dict[str, dict[str, Kept]]:
    """Every network's scores by every proxy: those in the file are not computed again.

    path    JSON lines of key, proxy, seconds and the score's parts; a line that a kill has torn is dropped
    what    of the line of progress
    builds  what builds each network, by key, picklable
    Returns scores by key and proxy, of the keys and proxies asked for. Raises ValueError where the file is broken.
    """
    found = _read(path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    missing = {key: [name for name in proxies if name not in found.get(key, {})] for key in builds}
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar, path.open("a", encoding="utf-8") as file:
        task = bar.add_task(what, total=len(builds), completed=sum(not names for names in missing.values()))
        for names in dict.fromkeys(tuple(names) for names in missing.values() if names):
            jobs = ((key, builds[key]) for key in builds if tuple(missing[key]) == names)
            timed = {name: Timed(proxies[name], device) for name in names}
            for key, entry in scores(jobs, timed, inputs, workers):
                found.setdefault(key, {}).update(entry)
                file.writelines(_line(key, name, kept) for name, kept in entry.items())
                file.flush()
                bar.advance(task)
        os.fsync(file.fileno())
    return {key: {name: found[key][name] for name in proxies} for key in builds}


def _line(key: str, name: str, kept: Kept) -> str:
    numbers = {part: plain(value) for part, value in kept.score._asdict().items()}
    return json.dumps({"key": key, "proxy": name, "seconds": kept.seconds, **numbers}) + "\n"


def _read(path: Path) -> dict[str, dict[str, Kept]]:
    """What the file holds; a torn last line is cut off it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    found: dict[str, dict[str, Kept]] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            entry = json.loads(line)
            parts = {part: float(entry[part]) for part in ("value", "size_term", "shape_term")}
            kept = Kept(Score(**parts, units=int(entry["units"])), float(entry["seconds"]))
            found.setdefault(str(entry["key"]), {})[str(entry["proxy"])] = kept
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} line {number}: is no kept score ({error}): delete the file") from error
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return found
