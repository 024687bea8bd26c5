"""When a question is given up, and when the server is."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from shoestring.models.teacher.limits import Limits
from shoestring.models.teacher.words import Question, Unanswered

_DOWN = 10  # questions given up one after the other, none answered meanwhile: the server is at fault, not they


@dataclass
class Open:
    """A question on its way.

    failures  attempts that failed
    waits     attempts that the server put off, while it answered nobody since `since`
    began     when it was first sent
    later     whether it was put behind the others already
    """

    key: str
    question: Question
    failures: int = 0
    waits: int = 0
    since: float = -math.inf
    began: float = math.inf
    later: bool = False

    @property
    def attempts(self) -> int:
        return self.failures + self.waits


class Patience:
    """What failures say of a question, and of the server.

    given_up  questions, one after the other, none answered meanwhile
    """

    def __init__(self, limits: Limits) -> None:
        self.given_up = 0
        self._limits, self._answered = limits, -math.inf

    def answered(self) -> None:
        """Some question was."""
        self._answered, self.given_up = time.monotonic(), 0

    def ends(self, item: Open, failure: Unanswered) -> bool:
        """Count a failure; whether there were as many as there may be. Being put off is one only where nobody is
        answered: a server that answers others is at its limit, and nothing is wrong with the question."""
        now = time.monotonic()
        if failure.wait is None:
            item.failures += 1
        elif item.waits and self._answered < item.since:
            item.waits += 1
        else:
            item.waits, item.since = 1, now
        put_off = item.waits and now - item.since < self._limits.patience
        return item.attempts >= self._limits.attempts and not put_off

    def server_is_down(self, item: Open, failure: Unanswered) -> bool:
        """Count a question that is given up; whether that is the server's fault and not its own."""
        self.given_up += 1
        return self._answered < item.began and (not failure.reached or self.given_up >= _DOWN)
