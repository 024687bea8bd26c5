"""How fast to ask: requests and tokens a minute, the pauses a server asks for, and how long to wait before a retry."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime


@dataclass(frozen=True)
class Limits:
    """How fast and how often to ask.

    requests_per_minute, tokens_per_minute  in any 60 seconds; no limit where None
    attempts                                how often a question is asked at most until it counts as failed
    first_wait, longest_wait                seconds before the second attempt, doubled each time up to the longest
    longest_pause                           seconds a server may ask everybody to wait before asking is given up
    patience                                seconds that a server may put everybody off and answer nobody
    grace                                   seconds that what is in flight is waited for once asking is to stop: no less
                                            than the teacher's own time-out, since what is dropped may be paid for
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    attempts: int = 8
    first_wait: float = 0.25
    longest_wait: float = 30.0
    longest_pause: float = 600.0
    patience: float = 60.0
    grace: float = 300.0

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute"):
            rate = getattr(self, name)
            if rate is not None and not 1 <= rate < math.inf:
                raise ValueError(f"{name} is {rate}: expected one or more, or none at all")
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}: expected one or more")
        for name in ("first_wait", "longest_wait", "longest_pause", "patience", "grace"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: expected seconds, zero or more")

    def wait(self, attempt: int) -> float:
        """Seconds to wait after a failed attempt (the first is 1), drawn between half of it and all of it."""
        return min(self.longest_wait, self.first_wait * 2.0 ** min(attempt - 1, 60)) * random.uniform(0.5, 1.0)


class Window:
    """At most so much in any 60 seconds; more than that at once only where nothing else falls in them."""

    def __init__(self, most: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._used: deque[list[float]] = deque()  # [when, how much], oldest first
        self._sum = 0.0

    def delay(self, amount: float) -> float:
        """Seconds until this much fits; 0 where it does now."""
        now = self._clock()
        while self._used and self._used[0][0] <= now - 60:
            self._sum -= self._used.popleft()[1]
        over = self._sum + amount - self._most
        if over <= 0 or not self._used:
            return 0.0
        free = now
        for when, used in self._used:
            free, over = when + 60, over - used
            if over <= 0:
                break
        return free - now

    def take(self, amount: float) -> list[float]:
        """Use this much now; give what is returned to `correct` once it is known how much it was."""
        entry = [self._clock(), amount]
        self._used.append(entry)
        self._sum += amount
        return entry

    def correct(self, entry: list[float], amount: float) -> None:
        if entry[0] > self._clock() - 60 and any(entry is used for used in self._used):
            self._sum += amount - entry[1]
            entry[1] = amount


class Gate:
    """What every request passes before it is sent: the pause that a server asked for, the rates, and a short distance
    from the one before it."""

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._until = self._next = -math.inf
        self._apart = 0.0
        self._requests = limits.requests_per_minute and Window(limits.requests_per_minute, clock)
        self._tokens = limits.tokens_per_minute and Window(limits.tokens_per_minute, clock)

    def pause(self, seconds: float) -> None:
        """Let nothing pass for so long."""
        self._until = max(self._until, self._clock() + seconds)

    def spread(self, seconds: float) -> None:
        """Let two requests pass no closer than this from now on."""
        self._apart = seconds

    async def passed(self, tokens: float) -> Callable[[float], None]:
        """Wait until a request of so many tokens may be sent; what is returned takes how many they really were.

        To be waited for by one request at a time.
        """
        while (delay := self._delay(tokens)) > 0:
            await self._sleep(delay)
        self._next = self._clock() + self._apart
        if self._requests:
            self._requests.take(1)
        if not self._tokens:
            return lambda really: None
        window, entry = self._tokens, self._tokens.take(tokens)
        return lambda really: window.correct(entry, really)

    def _delay(self, tokens: float) -> float:
        delays = [max(self._until, self._next) - self._clock()]
        if self._requests:
            delays.append(self._requests.delay(1))
        if self._tokens:
            delays.append(self._tokens.delay(tokens))
        return max(delays)


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds of a `Retry-After` header, which gives them or a date; None where it gives neither.

    now  seconds since 1970
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - (time.time() if now is None else now)
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
