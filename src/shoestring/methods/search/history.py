"""What a search trained, in order, with its running cost; kept on disk, so that a stopped search goes on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from shoestring.methods.search.space import Space

A = TypeVar("A")


class Trained(NamedTuple):
    """What training an architecture gave.

    accuracy  what the search goes by, on validation data; higher is better; -inf where the training failed
    cost      what it took, in the unit of the budget: seconds, FLOPs, epochs
    test      what is reported of it, and never looked at by a search; nan where unknown
    """

    accuracy: float
    cost: float
    test: float = math.nan


class Visit(NamedTuple, Generic[A]):
    """One trained architecture of a search.

    cost   its own
    spent  of the budget, when it was done: all before it, itself, and the scores paid for until then
    """

    architecture: A
    accuracy: float
    cost: float
    spent: float
    test: float = math.nan


Train: TypeAlias = Callable[[A], Trained]


def checked(text: str, found: Trained) -> Trained:
    """The outcome of a training itself. Raises ValueError where its accuracy is nan or its cost not above 0."""
    if math.isnan(found.accuracy):
        raise ValueError(f"{text}: its accuracy is nan: expected a number, or -inf where the training failed")
    if not 0 < found.cost < math.inf:
        raise ValueError(f"{text}: its cost is {found.cost}: expected more than 0, or no budget would ever be spent")
    return found


def best(history: Iterable[Visit[A]], budget: float = math.inf) -> Visit[A]:
    """The most accurate of those done within the budget, the earliest of equals. Raises ValueError where none was."""
    done = [visit for visit in history if visit.spent <= budget]
    if not done:
        raise ValueError(f"nothing was trained within a budget of {budget:g}: give more than one training costs")
    return max(done, key=lambda visit: visit.accuracy)


def improvements(history: Iterable[Visit[A]]) -> list[Visit[A]]:
    """The visits that were better than all before them: the best so far against what was spent."""
    found: list[Visit[A]] = []
    for visit in history:
        if not found or visit.accuracy > found[-1].accuracy:
            found.append(visit)
    return found


def kept(space: Space[A], train: Train[A], path: str | Path) -> Train[A]:
    """A training that keeps each outcome in a file the moment it is there, and answers from that file first.

    To go on with a stopped search, call it again with the same seed: it asks for the same architectures, and pays only
    for those that are not in the file. A line that was torn when the process was killed is trained again.

    path  JSON lines: architecture (its text), accuracy, cost, test
    Raises ValueError where the file is broken, or of another search, space or seed.
    """
    file = Path(path)
    past = _read(file, space)
    asked = 0

    def recalled(architecture: A) -> Trained:
        nonlocal asked
        text = space.encode(architecture)
        asked += 1
        if asked > len(past):
            found = checked(text, train(architecture))
            _append(file, text, found)
            return found
        was, found = past[asked - 1]
        if was != text:
            raise ValueError(
                f"{file} line {asked}: holds {was}, but the search asks for {text}: "
                "the file is of another search, space or seed; name a new one"
            )
        return found

    return recalled


def exactly(cost: float) -> Fraction:
    """A cost as the decimal that it is written as, so that ten times a tenth is one."""
    return Fraction(repr(float(cost)))


def plain(value: float) -> float | str:
    """A number as JSON has it: those that are not finite are text."""
    return value if math.isfinite(value) else str(value)


def _append(file: Path, text: str, found: Trained) -> None:
    numbers = {name: plain(float(value)) for name, value in found._asdict().items()}
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps({"architecture": text, **numbers}) + "\n")
        opened.flush()
        os.fsync(opened.fileno())


def _read(file: Path, space: Space[A]) -> list[tuple[str, Trained]]:
    """The outcomes in a file; a torn last line is cut off it."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        return []
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    past = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            entry = json.loads(line)
            text = str(entry["architecture"])
            found = Trained(*(float(entry[name]) for name in Trained._fields))
            past.append((space.encode(space.decode(text)), checked(text, found)))
        except KeyError as error:
            raise ValueError(f"{file} line {number}: has no key {error}: expected a search's history") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} line {number}: not of a search's history ({error}): name a new file") from error
    if len(whole) < len(content):
        os.truncate(file, len(whole))
    return past
