"""The words of asking a teacher: a question, how to sample, a reply, and how asking can fail."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Parameters:
    """How the teacher samples.

    max_tokens   the longest answer, tokens
    temperature  0 takes the likeliest token each time
    top_p        sample among the likeliest tokens that together have this probability
    stop         texts that end an answer and are no part of it
    seed         of the sampling, where the server heeds it; a question's `sample` is added to it
    Raises ValueError on a value out of its range.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}: expected one or more")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: expected zero or more, and finite")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: expected more than 0 and at most 1")
        if not isinstance(self.stop, tuple) or not all(self.stop):
            raise ValueError(f"stop is {self.stop!r}: expected a tuple of texts, none of them empty")


@dataclass(frozen=True)
class Question:
    """A prompt, asked once.

    name      whose it is, for messages to the user
    messages  (role, text) of each, in order
    sample    which of several samples of the same prompt this is (self-consistency)
    """

    name: str
    messages: tuple[tuple[str, str], ...]
    sample: int = 0


@dataclass(frozen=True)
class Reply:
    """An answer.

    finish_reason  "stop" where the teacher came to its end, "length" where max_tokens cut it; "" where nobody said
    counted        whether the server said how many tokens it took; else they are an upper bound, made from bytes
    replayed       whether the server said that it had answered this very request before, and charges it once
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    model: str
    counted: bool = True
    replayed: bool = False

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Teacher(Protocol):
    """Who answers. `complete` raises `Unanswered` where it may be asked again, `Refused` where this question may not,
    and ValueError where no question may. `close` lets go of what is held for the event loop that runs."""

    @property
    def model(self) -> str: ...

    async def complete(self, question: Question, parameters: Parameters, key: str) -> Reply: ...

    async def close(self) -> None: ...


class Unanswered(Exception):  # noqa: N818
    """No answer came of this attempt; another may bring one.

    wait     seconds the server asks everybody to wait, where it does
    reached  whether there was a server: where not, it is no question's fault
    maybe    whether the attempt may have been paid for: it was sent, and what became of it is not known
    paid     (prompt, completion) tokens, where the server said them of an answer that cannot be used
    replayed whether the server said that it had given this answer before, and charges it once
    """

    def __init__(
        self,
        reason: str,
        *,
        wait: float | None = None,
        reached: bool = True,
        maybe: bool = False,
        paid: tuple[int, int] | None = None,
        replayed: bool = False,
    ) -> None:
        super().__init__(reason)
        self.wait, self.reached, self.maybe, self.paid, self.replayed = wait, reached, maybe, paid, replayed


class Refused(Exception):  # noqa: N818
    """This question will not be answered, however often it is asked."""


class Forbidden(Refused):
    """The server forbids it: for what the question says, or to this account."""


def key(question: Question, model: str, parameters: Parameters) -> str:
    """SHA-256 over all that makes an answer: the model, the messages, how it samples and which sample it is."""
    described = {
        "model": model,
        "messages": [[role, text] for role, text in question.messages],
        "sample": question.sample,
        "max_tokens": parameters.max_tokens,
        "temperature": float(parameters.temperature),
        "top_p": float(parameters.top_p),
        "stop": list(parameters.stop),
        "seed": parameters.seed,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode("ascii")).hexdigest()
