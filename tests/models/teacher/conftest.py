"""A server that fails in all the ways a server can, always alike; and questions to ask it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from shoestring.models.teacher.answers import Answers
from shoestring.models.teacher.limits import Limits
from shoestring.models.teacher.loopback import Exchange
from shoestring.models.teacher.words import Parameters, Question, Reply

ERRORS = ("500", "503", "408", "409", "429", "429 until", "hang up", "reset")  # nothing was made
LOST = ("too long", "half a chunk", "garbage", "no choices", "empty", "502", "504")  # and is made again
FAULTS = (*ERRORS, *LOST, "slow")


class Failing(Exchange):
    """Fails a part of the requests; which and how is drawn from the key and how often it came."""

    rate = 0.5
    delay = 0.0
    faults: tuple[str, ...] = FAULTS
    seen: Counter[str]
    drawn: Counter[str]

    def complete(self, body: dict[str, Any]) -> None:
        key = self.headers["Idempotency-Key"]
        with self.server.lock:
            self.seen[key] += 1
            number = int.from_bytes(hashlib.sha256(f"{key} {self.seen[key]}".encode()).digest()[:6])
            fault = self.faults[number % len(self.faults)] if number / 2**48 < self.rate else "none"
            self.drawn[fault] += 1
        time.sleep(self.delay)
        if fault in ERRORS:
            self.fail(fault)
        elif fault in LOST:
            future, replayed = self.once(body)
            assert future is not None
            self.lose(fault, future.result(), {"Idempotent-Replayed": "true"} if replayed else {})
        else:
            time.sleep(0.1 if fault == "slow" else 0)
            super().complete(body)

    def fail(self, fault: str) -> None:
        self.close_connection = fault in ("hang up", "reset")
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault != "hang up":
            until = {"429": "0.02", "429 until": formatdate(time.time() - 5, usegmt=True)}.get(fault)
            self.give(int(fault.split()[0]), b'{"error": {"message": "no"}}', {"Retry-After": until} if until else None)

    def lose(self, fault: str, made: bytes, told: dict[str, str]) -> None:
        said = json.loads(made)
        if fault in ("too long", "half a chunk"):
            self.close_connection = True
            half = made[: len(made) // 2]
            if fault == "too long":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(made) + half)
            else:
                head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                self.wfile.write(head + b"%x\r\n" % len(made) + half)
            return
        if fault == "no choices":
            del said["choices"]
        elif fault == "empty":
            said["choices"] = []
        garbage = {"garbage": b"<html>busy</html>", "502": b"upstream", "504": b"upstream"}
        self.give(int(fault) if fault.isdecimal() else 200, garbage.get(fault) or json.dumps(said).encode(), told)


@pytest.fixture
def failing() -> Callable[..., type[Failing]]:
    """How requests are dealt with, for `serving`: failing(rate, delay, faults)."""

    def build(rate: float = 0.5, delay: float = 0.0, faults: tuple[str, ...] = FAULTS) -> type[Failing]:
        told = {"rate": rate, "delay": delay, "faults": faults, "seen": Counter(), "drawn": Counter()}
        return type("Failing", (Failing,), told)

    return build


@pytest.fixture
def fast() -> Limits:
    """Retries that a test does not wait for."""
    return Limits(first_wait=0.002, longest_wait=0.02, attempts=30)


@pytest.fixture
def questions() -> Callable[..., list[Question]]:
    """questions(count, text): of one user message each."""

    def build(count: int, text: str = "question") -> list[Question]:
        return [Question(f"q{number}", (("user", f"{text} {number}"),)) for number in range(count)]

    return build


class Scripted:
    """A teacher that answers by a function of (question, how often it was asked before), which may raise."""

    model = "scripted"

    def __init__(self, answer: Callable[[Question, int], Any], seconds: float = 0.001) -> None:
        self.answer, self.seconds = answer, seconds
        self.asked: Counter[str] = Counter()
        self.sent: list[tuple[float, str]] = []
        self.flying = self.most = self.closed = 0

    async def complete(self, question: Question, parameters: Parameters, key: str) -> Reply:
        before = self.asked[question.name]
        self.asked[question.name] += 1
        self.sent.append((time.monotonic(), question.name))
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(self.seconds)
            said = self.answer(question, before)
        finally:
            self.flying -= 1
        return said if isinstance(said, Reply) else Reply(str(said), "stop", 10, 5, self.model)

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def scripted() -> type[Scripted]:
    return Scripted


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Answers]:
    with Answers(tmp_path / "answers.sqlite") as opened:
        yield opened
