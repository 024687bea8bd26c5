"""Runs of one recipe, its seeds above all, side by side in processes, with one line of progress each."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import psutil
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shoestring import runtime

Tell = tuple[str, int, int, float, float]


class Show(Protocol):
    """How a run tells how far it is: step, the step it goes to, its loss, tokens per second."""

    def __call__(self, step: int, until: int, loss: float, rate: float) -> None: ...


@dataclass(frozen=True)
class Job:
    """One run: a name, and the work, which must be picklable (a module's function, or a partial of one)."""

    name: str
    work: Callable[[Show], Any]


def side_by_side(jobs: Sequence[Job], workers: int, console: Console | None = None) -> list[Any]:
    """What each job returns, in the order of the jobs.

    workers   processes at once; 1 runs the jobs here, one after the other
    A job that raises ends the others. A worker stops when its parent dies, so that a killed run leaves none behind.
    Raises ChildProcessError where a worker is killed from outside (by a full memory, say).
    """
    with _display(console) as tell:
        if workers == 1:
            return [job.work(_Teller(job.name, tell)) for job in jobs]
        runtime.release()
        context = multiprocessing.get_context("spawn")
        queue = context.SimpleQueue()
        listener = threading.Thread(target=_listen, args=(queue, tell), daemon=True)
        listener.start()
        try:
            with ProcessPoolExecutor(workers, context, _begin, (queue,)) as pool:
                return _gathered(pool, jobs)
        finally:
            queue.put(None)
            listener.join(timeout=5)  # a worker that was ended while it spoke may have left the queue locked


def affordable(jobs: int, bytes_each: float) -> int:
    """How many runs fit side by side: no more than processor cores, than memory holds, or than there are jobs.

    On an accelerator one at a time, and one within a launcher's processes: they share what is there already.
    """
    if torch.accelerator.is_available() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return 1
    fits = int(0.8 * psutil.virtual_memory().available // bytes_each)
    return max(1, min(jobs, runtime.cores(), fits))


def _gathered(pool: ProcessPoolExecutor, jobs: Sequence[Job]) -> list[Any]:
    futures: dict[Future[Any], str] = {pool.submit(_work, job): job.name for job in jobs}
    try:
        for future in as_completed(futures):
            future.result()
    except BrokenProcessPool:
        raise ChildProcessError(
            "a worker process was killed, most likely for memory: run again with compute.workers=1, it goes on"
        ) from None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    return [future.result() for future in futures]


class _Teller:
    def __init__(self, name: str, tell: Callable[[Tell], None]) -> None:
        self.name, self.tell = name, tell

    def __call__(self, step: int, until: int, loss: float, rate: float) -> None:
        self.tell((self.name, step, until, loss, rate))


class _Lines:
    """Progress where no terminal can redraw a bar: a line a run, at most every half minute, and at its end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.since: dict[str, float] = {}

    def __call__(self, item: Tell) -> None:
        name, step, until, loss, rate = item
        now = time.monotonic()
        if step == until or now - self.since.setdefault(name, now) >= 30:
            self.since[name] = now
            told = f"{name}: step {step} of {until}, loss {loss:.3f}, {rate:,.0f} tokens/s"
            self.console.print(told, highlight=False, soft_wrap=True)


_queue: Any = None


def _begin(queue: Any) -> None:
    global _queue
    _queue = queue
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # the run was killed: do not write beside the one that resumes it


def _work(job: Job) -> Any:
    return job.work(_Teller(job.name, _send))


def _send(tell: Tell) -> None:
    _queue.put(tell)


def _listen(queue: Any, tell: Callable[[Tell], None]) -> None:
    while (item := queue.get()) is not None:
        tell(item)


@contextmanager
def _display(console: Console | None) -> Iterator[Callable[[Tell], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[rate]:,.0f} tokens/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = console or Console(stderr=True, quiet=int(os.environ.get("RANK", "0")) > 0)
    if not console.is_terminal:
        yield _Lines(console)
        return
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as progress:

        def tell(item: Tell) -> None:
            name, step, until, loss, rate = item
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=until, loss=loss, rate=rate)
            progress.update(tasks[name], completed=step, total=until, loss=loss, rate=rate)

        yield tell
