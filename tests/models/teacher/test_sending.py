"""One attempt: what is noted, kept and paid for, by what becomes of it."""

from __future__ import annotations

import asyncio

import pytest

from shoestring.models.teacher.answers import Lost
from shoestring.models.teacher.budget import NOTHING, Budget, Purse, Taken
from shoestring.models.teacher.sending import Sending
from shoestring.models.teacher.words import Parameters, Question, Refused, Reply, Unanswered

QUESTION, MOST = Question("q", (("user", "a"),)), Taken(40, 20)


class Tried:
    """An attempt at a teacher that does this, and what it left."""

    def __init__(self, scripted, store, outcome):
        def answer(question, before):
            self.noted = store.lost(["k"]).unknown
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        self.purse = Purse(Budget())
        self.sending = Sending(scripted(answer), Parameters(), store, self.purse)
        self.really: list[float] = []
        self.store = store

    def run(self):
        async def attempt():
            reply, kept = await self.sending.attempt("k", QUESTION, MOST, self.really.append)
            await kept
            return reply

        return asyncio.run(attempt())


def test_an_answer_is_noted_before_and_kept_after(scripted, store):
    reply = Reply("four", "stop", 7, 3, "m")
    tried = Tried(scripted, store, reply)
    assert tried.run() == reply
    assert (tried.noted, store.lost(["k"]).unknown, store.get(["k"])) == (1, 0, {"k": reply})
    assert (tried.purse.paid, tried.purse.requests, tried.really) == (Taken(7, 3), 1, [10])


@pytest.mark.parametrize(
    ("outcome", "lost", "vain", "doubtful", "requests", "really"),
    [
        (Unanswered("busy"), Lost(0, 0, 0, 0), NOTHING, NOTHING, 0, [0]),
        (Unanswered("cut", maybe=True), Lost(1, 0, 0, 0), NOTHING, MOST, 0, []),
        (Unanswered("null", paid=(7, 3)), Lost(0, 1, 7, 3), Taken(7, 3), NOTHING, 1, [10]),
        (Refused("too long"), Lost(0, 0, 0, 0), NOTHING, NOTHING, 0, [0]),
        (ValueError("wrong key"), Lost(0, 0, 0, 0), NOTHING, NOTHING, 0, [0]),
        (asyncio.CancelledError(), Lost(1, 0, 0, 0), NOTHING, MOST, 0, []),
        (TypeError("a bug: it may have been sent"), Lost(1, 0, 0, 0), NOTHING, MOST, 0, []),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_brings_no_answer(scripted, store, outcome, lost, vain, doubtful, requests, really):
    tried = Tried(scripted, store, outcome)
    with pytest.raises(type(outcome)):
        tried.run()
    assert store.lost(["k"]) == lost
    assert (tried.purse.vain, tried.purse.doubtful) == (vain, doubtful)
    assert (tried.purse.requests, tried.really, tried.sending.flying) == (requests, really, set())
