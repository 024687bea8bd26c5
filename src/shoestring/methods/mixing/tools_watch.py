"""How far it is and how long it will still take, on standard error: a bar, or lines where no terminal can draw one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

Tell = Callable[[str, int, int], None]  # (what, done, of so many)
_LINES = 30.0  # seconds between two lines


class Pace:
    """How long what is left takes, at the pace since the first look."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[float, int]] = {}

    def left(self, what: str, done: int, total: int) -> str:
        now = time.monotonic()
        since, before = self._first.setdefault(what, (now, done))
        if done >= total:
            return "done"
        return f"{duration((now - since) / (done - before) * (total - done))} left" if done > before else ""


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    for unit, size, most in (("s", 1, 100), ("min", 60, 100)):
        if seconds < size * most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"


@contextmanager
def watching(console: Console | None = None) -> Iterator[Tell]:
    from rich.console import Console as Screen
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    screen = console or Screen(stderr=True)
    pace = Pace()
    if not screen.is_terminal:
        yield _lines(screen, pace)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, TextColumn("{task.fields[left]}"), console=screen)
    tasks: dict[str, TaskID] = {}

    def tell(what: str, done: int, total: int) -> None:
        bar.start()  # only now: what is refused at once shows no bar
        if what not in tasks:
            tasks[what] = bar.add_task(what, left="")
        bar.update(tasks[what], completed=done, total=total, left=pace.left(what, done, total))

    try:
        yield tell
    finally:
        bar.stop()


def _lines(screen: Console, pace: Pace) -> Tell:
    at: dict[str, float] = {}

    def tell(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        left = pace.left(what, done, total)
        if done >= total or now - at.setdefault(what, now) >= _LINES:
            at[what] = now
            screen.print(f"{what}: {done} of {total}, {left}", highlight=False, markup=False, soft_wrap=True)

    return tell
