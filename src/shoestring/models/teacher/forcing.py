"""The thread that forces answers to the disk, so that no request waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

_TOGETHER = 0.01  # seconds that the first waits for others: forcing each alone keeps the processor busy
_Futures: TypeAlias = list["asyncio.Future[None]"]


class Forcing:
    """Forces SQLite's log to the disk, for all who wait at once.

    What SQLite has committed is in the system's hands, where a kill of this process does not reach it; where the power
    fails, only what was forced is there. `PRAGMA synchronous = FULL` would do so within each commit, and all others
    would wait for that too.

    log      SQLite's write-ahead log, which is there when something was committed
    refusal  what is raised where the disk refuses, by its words
    """

    def __init__(self, log: Path, refusal: Callable[[str | None], ValueError]) -> None:
        self._log, self._refusal = log, refusal
        self._waiting: queue.SimpleQueue[asyncio.Future[None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._force_all, name="answers", daemon=True)
        self._thread.start()

    def force(self) -> asyncio.Future[None]:
        """What is returned is done when all that is committed is on the disk."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.put(future)
        return future

    def close(self) -> None:
        """Return when nobody waits any more."""
        self._waiting.put(None)
        self._thread.join()

    def _force_all(self) -> None:
        descriptor: int | None = None
        try:
            for futures in self._gathered():
                error = None
                try:
                    if descriptor is None:
                        descriptor = os.open(self._log, os.O_RDONLY)
                    os.fsync(descriptor)
                except OSError as refused:
                    error = self._refusal(refused.strerror)
                _wake(futures, error)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _gathered(self) -> Iterator[_Futures]:
        """All who wait, each time, until a None comes."""
        while (future := self._waiting.get()) is not None:
            time.sleep(_TOGETHER)
            together = [future]
            while not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    yield together
                    return
                together.append(following)
            yield together


def _wake(futures: _Futures, error: ValueError | None) -> None:
    """All of one event loop at once: waking it costs more than a write."""
    loops: dict[asyncio.AbstractEventLoop, _Futures] = {}
    for future in futures:
        loops.setdefault(future.get_loop(), []).append(future)
    for loop, some in loops.items():
        with contextlib.suppress(RuntimeError):  # a loop that was ended waits for nothing
            loop.call_soon_threadsafe(_end, some, error)


def _end(futures: _Futures, error: ValueError | None) -> None:
    for future in futures:
        if future.done():  # cancelled
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
