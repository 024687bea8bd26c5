"""Asking a server that fails in every way, killed and stopped and asked again: nothing lost, nothing paid twice."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoestring.cost import Ledger
from shoestring.models.teacher.answers import Answers
from shoestring.models.teacher.asking import Asked, Paid, ask, ask_all
from shoestring.models.teacher.attempts import Standing
from shoestring.models.teacher.budget import Budget
from shoestring.models.teacher.endpoint import Endpoint
from shoestring.models.teacher.limits import Limits
from shoestring.models.teacher.loopback import Exchange, serving
from shoestring.models.teacher.words import Parameters, Question, Reply, key

PARAMETERS = Parameters(max_tokens=50)


def upper(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
    return messages[-1]["content"].upper()


# what comes back


def test_replies_stand_where_their_questions_do_and_are_asked_once(store):
    texts = ["b", "a", "naïve 😀 𐍈", "{x} {} %s {{0}}", "", "b", "x " * 50_000]
    questions = [Question(f"q{number}", (("user", text),)) for number, text in enumerate(texts)]
    with serving(upper) as served:
        asked = ask(questions, Endpoint("m", served.url), Parameters(max_tokens=10**6), store)
        assert [reply and reply.text for reply in asked.replies] == [text.upper() for text in texts]
        assert served.requests == 6  # "b" is there twice
        assert asked.paid == asked.total == Paid(6, served.prompt_tokens, served.completion_tokens, 0.0)
        again = ask(questions, Endpoint("m", served.url), Parameters(max_tokens=10**6), store)
        assert (again.replies, again.paid, again.total) == (asked.replies, Paid(0, 0, 0, 0.0), asked.total)
        assert served.received == 6


def test_no_questions(store, scripted):
    nothing = Paid(0, 0, 0, 0.0)
    assert ask([], scripted(str), PARAMETERS, store) == Asked([], nothing, nothing, {}, None, 0, 0)


def test_only_what_was_edited_is_asked_again(store, questions):
    with serving(upper) as served:
        teacher = Endpoint("m", served.url)
        before = questions(20)
        ask(before, teacher, PARAMETERS, store)
        edited = [replace(one, messages=(("user", "another"),)) if one.name in ("q3", "q7") else one for one in before]
        edited[9] = replace(edited[9], sample=1)
        asked = ask(edited, teacher, PARAMETERS, store)
        assert asked.paid.requests == 2  # q3 and q7 are the same prompt now; and the other sample
        ask(before, teacher, replace(PARAMETERS, temperature=0.5), store)
        ask(before, Endpoint("n", served.url), PARAMETERS, store)
        assert served.requests == 20 + 2 + 20 + 20
        assert ask(before, teacher, PARAMETERS, store).paid.requests == 0


def test_the_ledger_is_charged_what_was_paid_in_this_call(store, questions):
    ledger, budget = Ledger(), Budget(price_in=1.0, price_out=2.0)
    with serving(upper) as served:
        for count in (10, 25, 25):
            with ledger.phase(f"ask {count}"):
                asked = ask(
                    questions(count), Endpoint("m", served.url), PARAMETERS, store, ledger=ledger, budget=budget
                )
        assert ledger.total().teacher_tokens == served.tokens == asked.total.tokens
        assert ledger.total("ask 10").teacher_tokens * 2.5 == served.tokens
        assert asked.total.money == (served.prompt_tokens + 2 * served.completion_tokens) / 1e6
        assert asked.paid.money == 0


def test_the_ledger_is_charged_though_it_ends_badly(store, questions, scripted):
    def answer(question, before):
        if question.name == "q2":
            raise ValueError("wrong key")
        return Reply("yes", "stop", 10, 5, "m")

    ledger = Ledger()
    with pytest.raises(ValueError, match=r"wrong key"):
        ask(questions(3), scripted(answer), PARAMETERS, store, ledger=ledger)
    assert ledger.total().teacher_tokens == 30


def test_tokens_that_no_server_says_are_told(store, questions, scripted):
    teacher = scripted(lambda question, before: Reply("yes", "stop", 100, 4, "m", counted=question.name != "q1"))
    asked = ask(questions(3), teacher, PARAMETERS, store)
    assert (asked.uncounted, asked.paid.tokens) == (1, 312)
    assert ask(questions(3), teacher, PARAMETERS, store).uncounted == 1


def test_it_tells_how_far_it_is(store, questions, scripted):
    told: list[Standing] = []
    teacher = scripted(lambda question, before: Reply("yes", "stop", 10, 5, "m"))
    budget = Budget(price_in=1e5, price_out=0)
    ask(questions(3), teacher, PARAMETERS, store)
    ask(questions(6), teacher, PARAMETERS, store, budget=budget, tell=told.append)
    assert (told[0], told[-1]) == (Standing(3, 6, {}, 0, 0.0), Standing(6, 6, {}, 45, 3.0))
    assert [standing.done for standing in told] == [3, 4, 5, 6]
    assert told == sorted(told)


def test_it_works_where_an_event_loop_runs(store, questions):
    async def notebook() -> Asked:
        return ask(questions(5), Endpoint("m", served.url), PARAMETERS, store)

    with serving(upper) as served:
        assert asyncio.run(notebook()).paid.requests == 5


def test_two_at_once_share_a_teacher_and_a_store(store, questions):
    async def both() -> list[Asked]:
        teacher = Endpoint("m", served.url)
        halves = (questions(30), questions(30, "other"))
        return await asyncio.gather(*(ask_all(half, teacher, PARAMETERS, store, concurrency=3) for half in halves))

    with serving(upper) as served:
        assert [asked.paid.requests for asked in asyncio.run(both())] == [30, 30]


def test_concurrency_of_none_is_refused(store, scripted):
    with pytest.raises(ValueError, match=r"concurrency is 0: expected one or more"):
        ask([], scripted(str), PARAMETERS, store, concurrency=0)


# failures


def test_a_server_that_fails_in_every_way_is_asked_until_all_is_answered(store, questions, failing, fast):
    exchange = failing(0.6)
    ledger = Ledger()
    with serving(upper, exchange=exchange) as served:
        asked = ask(questions(150), Endpoint("m", served.url), PARAMETERS, store, limits=fast, ledger=ledger)
        assert [reply and reply.text for reply in asked.replies] == [f"QUESTION {number}" for number in range(150)]
        assert set(exchange.drawn) == {*exchange.faults, "none"}
        assert served.requests == asked.total.requests == len(store) == 150
        assert served.tokens == asked.total.tokens == asked.paid.tokens == ledger.total().teacher_tokens
    assert (asked.failed, asked.stopped) == ({}, None)


def test_a_budget_holds_on_a_server_that_fails_in_every_way(store, questions, failing, fast):
    budget = Budget(tokens=4000)
    with serving(upper, exchange=failing(0.5)) as served:
        paid = 0
        for _ in range(3):
            before = served.tokens
            asked = ask(questions(900), Endpoint("m", served.url), PARAMETERS, store, limits=fast, budget=budget)
            assert 1000 < served.tokens - before <= 4000
            assert "the budget is spent" in (asked.stopped or "")
            paid += asked.paid.tokens
            assert paid == asked.total.tokens <= served.tokens


def test_a_server_that_writes_a_long_prompt_around_ours_passes_the_budget_by_one_request_at_most(store, questions):
    """Nobody can know of it before the first answer: nothing else is sent until that is there."""

    class Wordy(Exchange):
        def complete(self, body: dict[str, Any]) -> None:
            body["messages"].insert(0, {"role": "system", "content": "word " * 1000})
            super().complete(body)

    with serving(upper, exchange=Wordy) as served:
        budget = Budget(tokens=8000)
        asked = ask(questions(100), Endpoint("m", served.url), PARAMETERS, store, budget=budget, concurrency=32)
        assert served.requests == 1
        assert "cannot be kept to" in (asked.stopped or "")
        assert asked.paid.tokens == served.tokens


def test_nobody_there_is_one_line(store, questions):
    with serving(upper) as served:
        url = served.url
    limits = Limits(first_wait=0.001, longest_wait=0.01, attempts=3)
    with pytest.raises(
        ValueError, match=rf"^{url} cannot be reached \(Connection refused\) \(3 attempts\), and [^\n]+$"
    ):
        ask(questions(1000), Endpoint("m", url), PARAMETERS, store, limits=limits)


def test_a_wrong_key_is_one_line_and_one_round(store, questions, failing):
    exchange = failing(1.0, faults=("401",))
    exchange.complete = lambda self, body: self.refuse(401, "no such key")  # type: ignore[method-assign]
    with serving(upper, exchange=exchange) as served:
        with pytest.raises(ValueError, match=r"^\S+ refuses the API key \(HTTP 401: no such key\): [^\n]+$"):
            ask(questions(1000), Endpoint("m", served.url, "sk-1"), PARAMETERS, store, concurrency=8)
        assert served.received <= 8
    assert (len(store), store.lost([key(one, "m", PARAMETERS) for one in questions(1000)]).unknown) == (0, 0)


# kills


CLIENT = """
import json, sys
from shoestring.models.teacher.answers import Answers
from shoestring.models.teacher.asking import ask
from shoestring.models.teacher.endpoint import Endpoint
from shoestring.models.teacher.limits import Limits
from shoestring.models.teacher.words import Parameters, Question
questions = [Question(f"q{n}", (("user", f"question {n}"),)) for n in range(int(sys.argv[3]))]
limits = Limits(first_wait=0.002, longest_wait=0.02, attempts=40)
teacher = Endpoint("m", sys.argv[2])
with Answers(sys.argv[1]) as store:
    print("begun", flush=True)
    asked = ask(questions, teacher, Parameters(max_tokens=50), store, concurrency=8, limits=limits)
print(json.dumps([[reply and reply.text for reply in asked.replies], asked.paid.requests, asked.total.requests,
                  asked.total.tokens, asked.failed, asked.stopped]))
"""


def client(path: Path, url: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", CLIENT, str(path), url, str(count)]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "begun\n"
    return started


def test_killed_ten_times_at_any_moment_and_gone_on_with(tmp_path, failing):
    """Every answer once, none paid twice, and the tokens are those that the server counted."""
    path, count = tmp_path / "answers.sqlite", 300
    chance, kept, kills = random.Random(7), [0], 0
    with serving(upper, exchange=failing(0.3, delay=0.02)) as served:
        for _ in range(10):
            with client(path, served.url, count) as killed:
                time.sleep(chance.uniform(0, 0.35))
                kills += killed.poll() is None
                killed.kill()
            with Answers(path) as store:
                kept.append(len(store))
        with client(path, served.url, count) as last:
            texts, paid, requests, tokens, failed, stopped = json.loads(last.communicate()[0])
        assert (kills, kept) == (10, sorted(kept))
        assert len(set(kept)) > 5
        assert texts == [f"QUESTION {number}" for number in range(count)]
        assert (failed, stopped) == ({}, None)
        assert requests == served.requests == count
        assert tokens == served.tokens
        assert paid <= count - kept[-1]
        with Answers(path) as store:
            assert len(store) == count


class Heedless(Exchange):
    """A server that answers a repeated key anew, as most do."""

    def complete(self, body: dict[str, Any]) -> None:
        time.sleep(0.02)
        del self.headers["Idempotency-Key"]
        super().complete(body)


def test_killed_ten_times_before_a_server_that_heeds_no_key(tmp_path):
    """Every answer once, and what was paid for in vain is what was in flight at the kills, which is told."""
    path, count, chance = tmp_path / "answers.sqlite", 200, random.Random(3)
    keys = [key(Question(f"q{n}", (("user", f"question {n}"),)), "m", PARAMETERS) for n in range(count)]
    with serving(upper, exchange=Heedless) as served:
        for _ in range(10):
            with client(path, served.url, count) as killed:
                time.sleep(chance.uniform(0, 0.15))
                killed.kill()
        with client(path, served.url, count) as last:
            texts, _, requests, tokens, failed, stopped = json.loads(last.communicate()[0])
        assert texts == [f"QUESTION {number}" for number in range(count)]
        assert (failed, stopped, requests) == ({}, None, count)
        with Answers(path) as store:
            unknown = store.lost(keys).unknown
        assert 0 < served.requests - count <= unknown <= 10 * 32
        assert served.tokens > tokens


def test_after_a_kill_it_is_known_how_many_may_have_been_paid_for(tmp_path, questions):
    path, keys = tmp_path / "answers.sqlite", [key(one, "m", PARAMETERS) for one in questions(100)]
    free = threading.Event()

    def answer(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        if served.requests + served.received > 60:
            assert free.wait(30)
        return "yes"

    with serving(answer) as served:
        with client(path, served.url, 100) as killed:
            while served.received - served.requests < 8:  # all that may be in flight waits for an answer
                time.sleep(0.01)
            killed.kill()
        with Answers(path) as store:
            assert (store.lost(keys).unknown, len(store)) == (8, served.requests)
        free.set()
        with client(path, served.url, 100) as last:
            last.communicate()
        with Answers(path) as store:  # and as this server says that it had answered them, it is known in the end
            assert (store.lost(keys).unknown, len(store)) == (0, served.requests)


# Ctrl-C


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Heard, though the tests may have been started in the background, where it is not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupting(times: int, answered: threading.Event | None = None) -> Any:
    """An answer function that presses Ctrl-C on the fifth question, so often, and answers later, or when told to."""
    seen: list[int] = []
    lock = threading.Lock()

    def answer(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        with lock:
            seen.append(1)
            fifth = len(seen) == 5
        if fifth:
            for press in range(times):
                time.sleep(press)  # two at once are one to the system
                os.kill(os.getpid(), signal.SIGINT)
        if answered is None:
            time.sleep(0.3)
        else:
            answered.wait(60)
        return "yes"

    return answer


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_keeps_what_is_in_flight_and_goes_on_later(store, questions, capfd):
    handler = signal.getsignal(signal.SIGINT)
    ledger = Ledger()
    with serving(interrupting(1)) as served:
        with pytest.raises(KeyboardInterrupt):
            ask(questions(200), Endpoint("m", served.url), PARAMETERS, store, concurrency=8, ledger=ledger)
        assert 5 <= served.requests == len(store) < 100
        assert ledger.total().teacher_tokens == served.tokens
        assert signal.getsignal(signal.SIGINT) is handler
        assert "stopping: what is on its way is waited for and kept; Ctrl-C again drops it" in capfd.readouterr().err
        asked = ask(questions(200), Endpoint("m", served.url), PARAMETERS, store, concurrency=200)
        assert (asked.total.requests, served.requests, asked.unknown) == (200, 200, 0)


@pytest.mark.usefixtures("_ctrl_c")
def test_a_second_ctrl_c_drops_what_is_in_flight(store, questions):
    answered = threading.Event()
    with serving(interrupting(2, answered)) as served:
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            ask(questions(40), Endpoint("m", served.url), PARAMETERS, store, concurrency=8)
        assert time.monotonic() - begun < 30
        answered.set()
        keys = [key(one, "m", PARAMETERS) for one in questions(40)]
        assert 5 <= store.lost(keys).unknown <= 8


def test_what_is_in_flight_is_not_waited_for_for_ever(store, questions, scripted):
    def answer(question, before):
        raise ValueError("wrong key")

    teacher = scripted(answer)
    complete = teacher.complete

    async def slow(question, parameters, key):
        if question.name != "q0":
            await asyncio.sleep(60)
        return await complete(question, parameters, key)

    teacher.complete = slow
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"wrong key"):
        ask(questions(3), teacher, PARAMETERS, store, limits=Limits(grace=0.1))
    assert 0.1 <= time.monotonic() - begun < 5


@pytest.mark.usefixtures("_ctrl_c")
def test_where_ctrl_c_is_not_heard_it_stays_so(store, questions):
    """As in the background of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with serving(interrupting(1)) as served:
        assert ask(questions(10), Endpoint("m", served.url), PARAMETERS, store).paid.requests == 10
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_cancelled_task_keeps_what_is_in_flight(store, questions, scripted):
    async def cancelled() -> None:
        teacher = scripted(lambda question, before: "yes", seconds=0.2)
        task = asyncio.create_task(ask_all(questions(40), teacher, PARAMETERS, store, concurrency=4))
        while teacher.flying < 4:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert teacher.closed == 1

    asyncio.run(cancelled())
    assert len(store) == 4


def test_a_full_disk_is_one_line_and_goes_on_later(store, questions, monkeypatch):
    def refuse(descriptor: int) -> None:
        if len(store) > 20:
            raise OSError(28, "No space left on device")

    with serving(upper) as served:
        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(
            ValueError, match=r"answers\.sqlite: an answer could not be kept \(No space left on device\)"
        ):
            ask(questions(200), Endpoint("m", served.url), PARAMETERS, store, concurrency=4)
        monkeypatch.undo()
        assert 20 < len(store) < 60
        assert (
            ask(questions(200), Endpoint("m", served.url), PARAMETERS, store).total.requests == served.requests == 200
        )
