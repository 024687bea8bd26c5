"""How fast to ask, on a clock of the tests' own."""

from __future__ import annotations

import asyncio
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.models.teacher.limits import Gate, Limits, Window, retry_after


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def sent(limits: Limits, amounts: list[float]) -> list[float]:
    """When each of several requests passes, seconds after the first look."""
    clock = Clock()
    gate = Gate(limits, clock, clock.sleep)

    async def all_of_them() -> list[float]:
        times = []
        for amount in amounts:
            await gate.passed(amount)
            times.append(clock.now - 1000)
        return times

    return asyncio.run(all_of_them())


def test_requests_a_minute_by_hand():
    assert sent(Limits(requests_per_minute=2), [1] * 5) == [0, 0, 60, 60, 120]


def test_tokens_a_minute_by_hand():
    assert sent(Limits(tokens_per_minute=100), [60, 40, 10, 95, 5]) == [0, 0, 60, 120, 120]


def test_without_limits_nothing_waits():
    assert sent(Limits(), [1e9] * 3) == [0, 0, 0]


def test_more_than_a_minute_allows_passes_alone():
    assert sent(Limits(tokens_per_minute=100), [500, 1, 500]) == [0, 60, 120]


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(60, 200))
def test_no_minute_holds_more_than_it_may(amounts, most):
    times = sent(Limits(tokens_per_minute=most), amounts)
    assert times == sorted(times)
    for start in times:
        assert sum(amount for when, amount in zip(times, amounts, strict=True) if start <= when < start + 60) <= most


def test_what_was_really_used_makes_room():
    clock = Clock()
    window = Window(100, clock)
    entry = window.take(90)
    assert window.delay(50) == 60
    window.correct(entry, 20)
    assert window.delay(50) == 0
    clock.now += 61
    assert window.delay(100) == 0
    window.correct(entry, 90)  # too late to matter
    assert window.delay(100) == 0


def test_a_pause_holds_everybody():
    clock = Clock()
    gate = Gate(Limits(), clock, clock.sleep)
    gate.pause(5)
    gate.pause(2)
    asyncio.run(gate.passed(1))
    assert clock.now == 1005


def test_two_requests_are_a_little_apart():
    clock = Clock()
    gate = Gate(Limits(), clock, clock.sleep)
    gate.spread(0.25)
    times = []

    async def several() -> None:
        for wait in (0, 0, 0, 1, 0):
            clock.now += wait
            await gate.passed(1)
            times.append(clock.now - 1000)
        gate.spread(0)
        clock.now += 0.25
        await gate.passed(1)
        await gate.passed(1)
        assert clock.now - 1000 == times[-1] + 0.25

    asyncio.run(several())
    assert times == [0, 0.25, 0.5, 1.5, 1.75]


def test_waits_double_up_to_the_longest():
    limits = Limits(first_wait=1, longest_wait=10)
    for attempt, most in enumerate([1, 2, 4, 8, 10, 10], 1):
        waits = [limits.wait(attempt) for _ in range(50)]
        assert most / 2 <= min(waits) < max(waits) <= most
    assert limits.wait(5000) <= 10


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3),
        (" 0.5 ", 0.5),
        ("-4", 0),
        (formatdate(1000, usegmt=True), 10),
        (formatdate(900, usegmt=True), 0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("Mon, 99 Foo 2020 25:61:61 GMT", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after(value, now=990.0) == seconds


@pytest.mark.parametrize(
    "values",
    [
        {"requests_per_minute": 0},
        {"tokens_per_minute": 0.5},
        {"attempts": 0},
        {"first_wait": -1},
        {"patience": float("inf")},
        {"grace": -1.0},
    ],
)
def test_limits_out_of_range_are_refused(values):
    name = next(iter(values))
    with pytest.raises(ValueError, match=rf"{name} is .*: expected"):
        Limits(**values)
