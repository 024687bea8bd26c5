"""What is shown of asking: lines where no terminal is, a bar where one is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from shoestring.models.teacher.attempts import Standing
from shoestring.models.teacher.progress import _duration, watching


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_at_the_beginning_every_half_minute_and_at_the_end():
    screen, clock = io.StringIO(), Clock()
    with watching(Console(file=screen), "rationales", clock) as tell:
        for second in range(101):
            clock.now = float(second)
            tell(Standing(100 + second * 10, 1100, {}, second * 1000, 0.0))
    assert screen.getvalue().splitlines() == [
        "rationales: 100 of 1,100, 0 tokens, beginning",
        "rationales: 400 of 1,100, 30,000 tokens, 70 s left",
        "rationales: 700 of 1,100, 60,000 tokens, 40 s left",
        "rationales: 1,000 of 1,100, 90,000 tokens, 10 s left",
        "rationales: 1,100 of 1,100, 100,000 tokens, done",
    ]


def test_money_is_said_where_there_are_prices():
    screen = io.StringIO()
    with watching(Console(file=screen)) as tell:
        tell(Standing(3, 3, {}, 1500, 0.0123456))
    assert screen.getvalue() == "asking: 3 of 3, 1,500 tokens for 0.01235, done\n"


def test_what_failed_is_said_the_moment_it_does():
    screen = io.StringIO()
    with watching(Console(file=screen)) as tell:
        tell(Standing(1, 1, {"q": "no"}, 0, 0.0))
    assert screen.getvalue() == "asking: 1 of 1, 1 failed, 0 tokens, done\n"


def test_a_terminal_gets_a_bar():
    screen = io.StringIO()
    with watching(Console(file=screen, force_terminal=True, width=120), "rationales") as tell:
        tell(Standing(0, 4, {}, 0, 0.0))
        tell(Standing(4, 4, {"q": "no"}, 1500, 0.0))
    assert "rationales" in screen.getvalue()
    assert "4/4" in screen.getvalue()
    assert "1 failed, 1,500 tokens, done" in screen.getvalue()


def test_what_never_begins_shows_nothing():
    screen = io.StringIO()
    with watching(Console(file=screen, force_terminal=True)):
        pass
    assert screen.getvalue() == ""


@pytest.mark.parametrize(("seconds", "words"), [(3.2, "3 s"), (99, "99 s"), (120, "2 min"), (7200, "2.0 h")])
def test_durations_in_words(seconds, words):
    assert _duration(seconds) == words
