"""How far it is: the pace, lines without a terminal, a bar with one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from shoestring.methods.mixing import tools_watch
from shoestring.methods.mixing.tools_watch import Pace, duration, watching


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(tools_watch.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (99, "99 s"), (120, "2 min"), (6000, "1.7 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_pace_leaves_out_what_was_done_before(clock):
    pace = Pace()
    assert pace.left("trainings", 10, 20) == ""
    clock[0] += 30
    assert pace.left("trainings", 12, 20) == "120 s left".replace("120 s", "2 min")
    assert pace.left("trainings", 20, 20) == "done"


def test_without_a_terminal_a_line_now_and_then(clock):
    console = Console(file=io.StringIO(), width=80)
    with watching(console) as tell:
        for done in range(5):
            tell("trainings", done, 4)
            clock[0] += 20
    assert console.file.getvalue().splitlines() == ["trainings: 2 of 4, 40 s left", "trainings: 4 of 4, done"]


def test_with_a_terminal_a_bar(clock):
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with watching(console) as tell:
        tell("trainings", 1, 4)
        clock[0] += 10
        tell("trainings", 3, 4)
    assert "3/4" in console.file.getvalue()
    assert "5 s left" in console.file.getvalue()


def test_nothing_told_shows_nothing():
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with watching(console):
        pass
    assert console.file.getvalue() == ""
