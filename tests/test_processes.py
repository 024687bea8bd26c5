"""Worker processes end with the one that asked for their work, and only with it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from shoestring import processes

# a worker: says that it watches, and would stay for a minute
WORKER = """
import sys, time
from shoestring import processes
processes.end_with(sys.argv[1], int(sys.argv[2]))
print("watching", flush=True)
time.sleep(60)
"""
# one that starts a worker, says its number and waits to be killed
STARTER = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]], stdout=subprocess.PIPE)
worker.stdout.readline()
print(worker.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def start() -> Any:
    """Start Python on a text; what is still there at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(text: str, *arguments: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", text, *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_who_asks_is_this_machine_and_process() -> None:
    assert processes.asking() == (socket.gethostname(), os.getpid())


def test_a_worker_ends_with_the_one_that_asked(start: Callable[..., subprocess.Popen[str]]) -> None:
    """Which need not have started it: this process does, and lives on."""
    asker = start("import time; time.sleep(60)")
    worker = start(WORKER, socket.gethostname(), asker.pid)
    assert said(worker) == "watching"
    assert worker.poll() is None
    asker.kill()
    asker.wait()
    assert worker.wait(timeout=30) == 1


def test_a_worker_ends_with_the_one_that_started_it(start: Callable[..., subprocess.Popen[str]]) -> None:
    starter = start(STARTER, WORKER, socket.gethostname(), os.getpid())
    worker = psutil.Process(int(said(starter)))
    starter.kill()
    starter.wait()
    _, alive = psutil.wait_procs([worker], timeout=30)
    assert alive == []


def test_nothing_is_watched_on_another_machine() -> None:
    before = threading.active_count()
    processes.end_with("another.machine", 1)
    assert threading.active_count() == before


def test_one_watch_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[bool] = []

    class Noted:
        def __init__(self, target: Any, daemon: bool) -> None:
            started.append(daemon)

        def start(self) -> None: ...

    monkeypatch.setattr(threading, "Thread", Noted)
    processes.end_with.cache_clear()
    for _ in range(3):
        processes.end_with(socket.gethostname(), 2**22)
    assert started == [True]
    processes.end_with.cache_clear()
