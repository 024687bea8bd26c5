"""How far asking is, what it has cost and how long it will still take, on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shoestring.models.teacher.attempts import Standing, Tell

if TYPE_CHECKING:
    from rich.console import Console

_LINES = 30.0  # seconds between two lines


@contextmanager
def watching(
    console: Console | None = None, what: str = "asking", clock: Callable[[], float] = time.monotonic
) -> Iterator[Tell]:
    """A bar while the context is open, or a line every half minute where no terminal can draw one.

    what  stands before it
    What it yields is for `ask`'s `tell`.
    """
    from rich.console import Console as Screen
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    screen = console or Screen(stderr=True)
    left = _left(clock)
    if not screen.is_terminal:
        yield _lines(screen, what, left, clock)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, TextColumn("{task.fields[told]}"), console=screen)
    task = bar.add_task(what, told="")

    def tell(now: Standing) -> None:
        bar.start()  # only now: what is refused at once shows no bar
        bar.update(task, completed=now.done, total=now.total, told=f"{_cost(now)}, {left(now.done, now.total)}")

    try:
        yield tell
    finally:
        bar.stop()


def _lines(screen: Console, what: str, left: Callable[[int, int], str], clock: Callable[[], float]) -> Tell:
    at: list[float] = []

    def tell(standing: Standing) -> None:
        now, remaining = clock(), left(standing.done, standing.total)
        if standing.done >= standing.total or now - (at or [now])[-1] >= _LINES or not at:
            at.append(now)
            line = f"{what}: {standing.done:,} of {standing.total:,}, {_cost(standing)}, {remaining}"
            screen.print(line, highlight=False, markup=False, soft_wrap=True)

    return tell


def _cost(standing: Standing) -> str:
    failed = f"{len(standing.failed):,} failed, " if standing.failed else ""
    return f"{failed}{standing.tokens:,} tokens" + (f" for {standing.money:.4g}" if standing.money else "")


def _left(clock: Callable[[], float]) -> Callable[[int, int], str]:
    """How long what is left takes, at the pace since the first look."""
    first: list[tuple[float, int]] = []

    def left(done: int, total: int) -> str:
        first.append((clock(), done)) if not first else None
        since, before = first[0]
        if done >= total:
            return "done"
        if done == before:
            return "beginning"
        return f"{_duration((clock() - since) / (done - before) * (total - done))} left"

    return left


def _duration(seconds: float) -> str:
    for unit, size, most in (("s", 1, 100), ("min", 60, 100)):
        if seconds < size * most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"
