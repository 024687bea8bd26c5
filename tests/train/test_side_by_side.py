"""Runs side by side: the same results in the same order, and none left behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from shoestring import runtime
from shoestring.train.side_by_side import Job, Show, affordable, side_by_side

WORK = """
import os, sys, time
from functools import partial
from pathlib import Path
from rich.console import Console
from shoestring.train.side_by_side import Job, side_by_side


def half(seed, show):
    # the first job ends last
    time.sleep(0.3 * (seed == 0))
    show(seed, 3, seed / 2, 10.0)
    import torch
    return seed, torch.randn(3, generator=torch.Generator().manual_seed(seed)).tolist()


def fail(folder, show):
    raise ValueError("the loss of seed 1 is not finite")


def endless(folder, show):
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def idle(folder, show):
    (folder / str(os.getpid())).touch()


def killed(show):
    os._exit(9)


if __name__ == "__main__":
    what, folder = sys.argv[1], Path(sys.argv[2])
    quiet = Console(file=open(os.devnull, "w"))
    if what == "orphans":
        side_by_side([Job("long", partial(endless, folder)), Job("idle", partial(idle, folder))], 2, quiet)
        raise SystemExit
    jobs = [Job(f"seed {seed}", partial(half, seed)) for seed in range(3)]
    alone, beside = side_by_side(jobs, 1, quiet), side_by_side(jobs, 2, quiet)
    print([seed for seed, _ in beside], alone == beside)
    since = time.perf_counter()
    try:
        side_by_side([Job("long", partial(endless, folder)), Job("bad", partial(fail, folder))], 2, quiet)
    except ValueError as error:
        print(error, time.perf_counter() - since < 120)
    try:
        side_by_side([Job("gone", killed)], 2, quiet)
    except ChildProcessError as error:
        print(error)
"""


def alive(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


def gone(folder: Path, seconds: float) -> bool:
    """Whether the workers that left their numbers in a folder end in time."""
    numbers = [int(path.name) for path in folder.iterdir()]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(map(alive, numbers)):
            return True
        time.sleep(0.05)
    return False


def test_the_order_an_error_and_a_killed_worker(python: Callable, tmp_path: Path) -> None:
    """In one process, as each start takes seconds."""
    folder = tmp_path / "workers"
    folder.mkdir()
    result = python(WORK, "all", folder)
    assert result.returncode == 0, result.stderr
    order, failed, killed = result.stdout.splitlines()
    assert order == "[0, 1, 2] True"
    assert failed == "the loss of seed 1 is not finite True"
    assert gone(folder, 5)
    assert killed.startswith("a worker process was killed, most likely for memory: run again with ")


def test_workers_end_when_the_run_is_killed(tmp_path: Path) -> None:
    """Both the one in the middle of its work, without a word to say, and the one that waits for more."""
    script, folder = tmp_path / "script.py", tmp_path / "workers"
    script.write_text(WORK)
    folder.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), "orphans", str(folder)])
    until = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    workers = [int(path.name) for path in folder.iterdir()]
    assert len(workers) == 2
    assert all(map(alive, workers))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert gone(folder, 5)


@pytest.mark.parametrize(
    ("terminal", "shown"),
    [
        (True, ["seed 7", "2/5", "5/5", "loss 1.250  12,345 tokens/s"]),
        (False, ["seed 7: step 5 of 5, loss 1.250, 12,345"]),
    ],
)
def test_one_worker_runs_here_and_shows_its_progress(terminal: bool, shown: list[str]) -> None:
    def work(show: Show) -> int:
        show(2, 5, 2.5, 12345.0)
        time.sleep(0.3)  # bars are drawn ten times a second
        show(5, 5, 1.25, 12345.0)
        return os.getpid()

    told = io.StringIO()
    console = Console(file=told, width=120, force_terminal=terminal, color_system=None)
    assert side_by_side([Job("seed 7", work)], 1, console) == [os.getpid()]
    for part in shown:
        assert part in told.getvalue()
    if not terminal:
        assert told.getvalue().count("\n") == 1


def test_workers_find_the_memory_of_an_accelerator_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given back before the first of them starts, and not where all is done here."""

    def stop() -> None:
        raise KeyError("released")

    monkeypatch.setattr(runtime, "release", stop)
    jobs = [Job("one", lambda show: "done")]
    assert side_by_side(jobs, 1, Console(file=io.StringIO())) == ["done"]
    with pytest.raises(KeyError, match="released"):
        side_by_side(jobs, 2, Console(file=io.StringIO()))


@pytest.mark.parametrize(("jobs", "each", "expected"), [(1, 1.0, 1), (64, 1.0, None), (64, 1e18, 1)])
def test_how_many_fit(jobs: int, each: float, expected: int | None) -> None:
    cores = len(os.sched_getaffinity(0))
    assert affordable(jobs, each) == (min(jobs, cores) if expected is None else expected)


def test_memory_limits_how_many_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    free = psutil.virtual_memory()._replace(available=10 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    assert affordable(64, 2 * 2**30) == 4  # four fifths of what is free


def test_within_a_launcher_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert affordable(64, 1.0) == 1
