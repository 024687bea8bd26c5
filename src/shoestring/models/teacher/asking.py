"""Ask a teacher many questions: each answer kept the moment it arrives, none paid for twice, within a budget."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from shoestring.cost import Ledger
from shoestring.models.teacher.answers import Answers
from shoestring.models.teacher.attempts import Attempts, Tell
from shoestring.models.teacher.budget import Budget, Taken
from shoestring.models.teacher.limits import Limits
from shoestring.models.teacher.words import Parameters, Question, Reply, Teacher, key

_NO_LIMITS = Limits()
_STOPPING = b"\nstopping: what is on its way is waited for and kept; Ctrl-C again drops it\n"


@dataclass(frozen=True)
class Paid:
    """What was paid: requests, tokens, and money by the budget's prices (0 where it names none)."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    money: float

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Asked:
    """What came of asking.

    replies    one for each question, in their order; None where there is none
    paid       in this call
    total      for these questions, in this call and before: for the answers, and for what came and could not be used
    failed     why there is no reply, by the question's name; of several samples, the last one's
    stopped    why questions were left, in a sentence; None where none were
    unknown    requests for these questions, in this call or in one that was killed, of which nobody knows whether they
               were paid for: they are not in `paid` and `total`
    uncounted  replies whose server does not say how many tokens they took: an upper bound stands for them
    """

    replies: list[Reply | None]
    paid: Paid
    total: Paid
    failed: dict[str, str]
    stopped: str | None
    unknown: int
    uncounted: int


async def ask_all(
    questions: Sequence[Question],
    teacher: Teacher,
    parameters: Parameters,
    store: Answers,
    *,
    concurrency: int = 32,
    limits: Limits = _NO_LIMITS,
    budget: Budget | None = None,
    ledger: Ledger | None = None,
    tell: Tell | None = None,
) -> Asked:
    """The teacher's reply to each question, from the store where it is there.

    concurrency  requests in flight at most
    budget       of this call; what is in the store was paid before
    ledger       is charged the teacher's tokens that were paid in this call, however it ends
    tell         is called after each answer with how far it is
    Cancelled, it sends nothing more, keeps what is in flight (for `limits.grace` seconds), and then is cancelled.
    Raises ValueError where nothing can be answered (a wrong key, URL or model, a server that is down) or kept.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}: expected one or more")
    keys = [key(question, teacher.model, parameters) for question in questions]
    distinct = dict(zip(keys, questions, strict=True))
    attempts = Attempts(distinct, store.get(distinct), teacher, parameters, store, limits, budget, tell)
    try:
        await attempts.run(concurrency)
    finally:
        if ledger is not None:
            ledger.charge(teacher_tokens=attempts.purse.spent.tokens)
        await teacher.close()
    return _asked(questions, keys, attempts, store)


def ask(
    questions: Sequence[Question],
    teacher: Teacher,
    parameters: Parameters,
    store: Answers,
    *,
    concurrency: int = 32,
    limits: Limits = _NO_LIMITS,
    budget: Budget | None = None,
    ledger: Ledger | None = None,
    tell: Tell | None = None,
) -> Asked:
    """`ask_all` for code that is not asynchronous, also where an event loop runs already (a notebook).

    Ctrl-C stops sending and keeps what is in flight before KeyboardInterrupt is raised; a second one drops it.
    """
    interrupts = _Interrupts()

    async def asked() -> Asked:
        interrupts.reach(asyncio.get_running_loop(), asyncio.current_task())
        options = {"concurrency": concurrency, "limits": limits, "budget": budget, "ledger": ledger, "tell": tell}
        return await ask_all(questions, teacher, parameters, store, **options)  # type: ignore[arg-type]

    try:
        # in a thread of its own: an event loop may run in this one, and Ctrl-C is not to tear the asking apart
        with interrupts, ThreadPoolExecutor(1, "asking") as pool:
            asking = pool.submit(asyncio.run, asked())
            while not wait([asking], timeout=0.1).done:  # a signal that another thread took is seen when this one wakes
                continue
            found = asking.result()
    except asyncio.CancelledError:
        if not interrupts.count:
            raise
    if interrupts.count:
        raise KeyboardInterrupt
    return found


class _Interrupts:
    """Ctrl-C while questions are asked in another thread: each cancels the asking once."""

    def __init__(self) -> None:
        self.count = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._before: Any = None

    def reach(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> None:
        """To be called where the asking runs, when it begins."""
        self._loop, self._task = loop, task
        if self.count:
            self._cancel()

    def __enter__(self) -> None:
        ours = threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT))
        self._before = signal.signal(signal.SIGINT, self._interrupted) if ours else None

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _interrupted(self, *_: object) -> None:
        self.count += 1
        if self.count == 1:
            with suppress(OSError):  # standard error may be closed
                os.write(2, _STOPPING)
        self._cancel()

    def _cancel(self) -> None:
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._task.cancel)


def _asked(questions: Sequence[Question], keys: Sequence[str], attempts: Attempts, store: Answers) -> Asked:
    budget, distinct = attempts.purse.budget, dict.fromkeys(keys)
    replies = [attempts.answers[one] for one in distinct if one in attempts.answers]
    lost = store.lost(distinct)
    prompt = sum(reply.prompt_tokens for reply in replies) + lost.prompt_tokens
    completion = sum(reply.completion_tokens for reply in replies) + lost.completion_tokens
    return Asked(
        replies=[attempts.answers.get(one) for one in keys],
        paid=_paid(attempts.purse.requests, attempts.purse.spent, budget),
        total=_paid(len(replies) + lost.paid, Taken(prompt, completion), budget),
        failed={
            question.name: attempts.failed[one]
            for question, one in zip(questions, keys, strict=True)
            if one in attempts.failed
        },
        stopped=attempts.stopped,
        unknown=lost.unknown,
        uncounted=sum(not reply.counted for reply in replies),
    )


def _paid(requests: int, taken: Taken, budget: Budget) -> Paid:
    return Paid(requests, taken.prompt, taken.completion, budget.cost(taken))
