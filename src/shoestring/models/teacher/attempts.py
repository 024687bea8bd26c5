"""The loop: questions are sent, sent again where that may help, and left where the budget or the user ends it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import NamedTuple, TypeAlias

from shoestring.models.teacher.answers import Answers
from shoestring.models.teacher.bounds import Bounds
from shoestring.models.teacher.budget import Budget, Purse, Taken
from shoestring.models.teacher.limits import Gate, Limits
from shoestring.models.teacher.patience import Open, Patience
from shoestring.models.teacher.sending import Sending
from shoestring.models.teacher.words import Forbidden, Parameters, Question, Refused, Reply, Teacher, Unanswered

# seconds between two requests at first, and at most: those sent together come back together, each time, and wait for
# each other. Later it is half of what would spread all in flight evenly over the time of an answer
_APART, _FARTHEST = 0.001, 0.002
_REFUSED = 100  # questions refused, and none answered at all, or forbidden one after the other: it is none of theirs


class Standing(NamedTuple):
    """How far asking is.

    done           questions answered, now or before, and given up, of `total`
    failed         why questions were given up, by their names
    tokens, money  paid in this call
    """

    done: int
    total: int
    failed: Mapping[str, str]
    tokens: int
    money: float


Tell: TypeAlias = Callable[[Standing], None]


class Attempts:
    """Ask what is not answered yet.

    answers  by key, those that were kept before among them
    failed   by key, why there is none
    stopped  why questions were left, where they were
    """

    def __init__(
        self,
        questions: Mapping[str, Question],
        answers: Mapping[str, Reply],
        teacher: Teacher,
        parameters: Parameters,
        store: Answers,
        limits: Limits,
        budget: Budget | None,
        tell: Tell | None,
    ) -> None:
        self.answers, self.failed = dict(answers), dict[str, str]()
        self.stopped: str | None = None
        self.purse = Purse(budget or Budget(), store.wasted(questions))
        self._sending = Sending(teacher, parameters, store, self.purse)
        self._budgeted = budget is not None and (budget.tokens, budget.money) != (None, None)
        self._longest = parameters.max_tokens
        self._bounded = budget is not None or limits.tokens_per_minute is not None
        self._limits, self._bounds, self._gate, self._turns = limits, Bounds(), Gate(limits), asyncio.Lock()
        self._left = deque(Open(key, question) for key, question in questions.items() if key not in answers)
        self._count, self._say = len(questions), tell
        for key in list(answers)[-8:]:
            self._bounds.learn(questions[key], answers[key].prompt_tokens)
        self._workers: list[asyncio.Task[None]] = []
        self._keeping: set[asyncio.Task[None]] = set()
        self._stopping, self._patience, self._forbidden = False, Patience(limits), 0
        self._reasons: dict[str, str] = {}
        self._lost = ""  # how the last attempt of unknown fate ended
        self._grace: asyncio.TimerHandle | None = None
        self._error: BaseException | None = None
        self._why = ""
        self._concurrency = 1
        self._seconds: float | None = None  # that an answer takes

    async def run(self, concurrency: int) -> None:
        """Return when all is answered or failed, or asking was stopped. Where this is cancelled, what is in flight is
        waited for and kept before the cancellation goes on; a second one drops it."""
        self._tell()
        self._concurrency = concurrency
        self._gate.spread(_APART)
        for _ in range(min(concurrency, len(self._left))):
            self._workers.append(asyncio.create_task(self._guarded(self._work)))
        cancelled = False
        while waiting := {task for task in self._workers if not task.done()} | self._keeping:
            try:
                await asyncio.wait(waiting)
            except asyncio.CancelledError:
                if cancelled:
                    self._drop()
                cancelled = True
                self._stop()
        if self._grace is not None:
            self._grace.cancel()
        if self._why:
            left = self._count - len(self.answers)
            standing = [*self.purse.standing(), f"{left:,} of {self._count:,} questions are left without an answer"]
            self.stopped = self._why + ", ".join(standing)
        if self._error is not None:
            raise self._error
        if cancelled:
            raise asyncio.CancelledError

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do a part of the work; what goes wrong with it ends all."""
        try:
            await work()
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self._stopping:
                return
            self._error = self._error or error
            self._stop()
            if not isinstance(error, Exception):
                raise

    async def _work(self) -> None:
        while self._left and not self._stopping:
            # after one that was given up the next comes from the other end: neighbours may be as hard
            item = self._left.pop() if self._patience.given_up else self._left.popleft()
            try:
                await self._one(item)
            except Refused as refused:
                self._fails(item, str(refused))
                self._forbidden = self._forbidden + 1 if isinstance(refused, Forbidden) else 0
                if self._forbidden >= _REFUSED or (len(self.failed) >= _REFUSED and not self.answers):
                    raise ValueError(
                        f"{refused}: none of {_REFUSED} questions, one after the other, was answered: is it the key, "
                        "the model, or a parameter of the request, that the server does not take?"
                    ) from None

    async def _one(self, item: Open) -> None:
        """Ask until it is answered, has failed, or all is stopped."""
        while not self._stopping:
            turn = await self._turn(item)
            if turn is None:
                return
            most, correct = turn
            sent = time.monotonic()
            item.began = min(item.began, sent)
            try:
                reply, kept = await self._sending.attempt(item.key, item.question, most, correct)
            except Unanswered as unanswered:
                failure = unanswered
                self._lost = str(failure) if failure.maybe else self._lost
                if failure.paid is not None:
                    self._tell()
            else:
                self._arrives(item, reply, most, time.monotonic() - sent)
                keeping = asyncio.create_task(self._guarded(partial(self._keeps, kept, item, reply)))
                self._keeping.add(keeping)
                keeping.add_done_callback(self._keeping.discard)
                return
            finally:
                self.purse.release(most)
            if self._stopping or self._gives_up(item, failure):
                return
            await asyncio.sleep(self._limits.wait(item.attempts))

    async def _turn(self, item: Open) -> tuple[Taken, Callable[[float], None]] | None:
        """Wait until budget and rates let this one be sent; the most it may take. None where they never will."""

        def most() -> Taken:
            return Taken(self._bounds.most(item.question) if self._bounded else 0, self._longest)

        def alone() -> bool:
            # nothing is known of what the server writes around a prompt: one may take more than was thought, not all
            return self._budgeted and not self._bounds.known

        async with self._turns:
            held = await self.purse.hold(most, alone)
            if held is None:
                needed = most()
                if not self.purse.budget.never_fits(needed):
                    lost = f"; the last that was lost: {self._lost}" if self._lost else ""
                    need = f"the next question {self.purse.need(needed)}{lost}"
                    self._why = self._why or f"the budget is spent ({need}): "
                    self._stop()
                elif self._left and not self._bounds.known and not item.later:
                    item.later = True  # when more is known of what prompts take, it may fit
                    self._left.append(item)
                else:
                    need = self.purse.need(needed)
                    self._fails(item, f"{item.question.name} {need}, more than the whole budget: give a larger one")
                return None
            try:
                return held, await self._gate.passed(held.tokens)
            except BaseException:
                self.purse.release(held)
                raise

    def _arrives(self, item: Open, reply: Reply, most: Taken, seconds: float) -> None:
        """What an answer tells about those to come."""
        self._seconds = seconds if self._seconds is None else 0.95 * self._seconds + 0.05 * seconds
        self._gate.spread(min(_FARTHEST, self._seconds / self._concurrency / 2))
        if self._bounded and (reply.counted or not self._bounds.known):
            self._bounds.learn(item.question, reply.prompt_tokens)
        over = reply.prompt_tokens > most.prompt or reply.completion_tokens > most.completion
        if over and self._budgeted and not self._why:
            self._why = (
                f"{item.question.name}: the server counted {reply.prompt_tokens:,} tokens of prompt and "
                f"{reply.completion_tokens:,} of answer, where at most {most.prompt:,} and {most.completion:,} were "
                "expected, so that the budget cannot be kept to: "
            )
            self._stop()

    async def _keeps(self, kept: asyncio.Future[None], item: Open, reply: Reply) -> None:
        await kept
        self.answers[item.key] = reply
        self._patience.answered()
        self._forbidden = 0
        self._tell()

    def _fails(self, item: Open, reason: str) -> None:
        self.failed[item.key] = self._reasons[item.question.name] = reason
        self._tell()

    def _gives_up(self, item: Open, failure: Unanswered) -> bool:
        """Count a failure; whether it was the last there may be."""
        if failure.wait is not None:
            if failure.wait > self._limits.longest_pause:
                raise ValueError(f"{failure}: it asks to wait {failure.wait:,.0f} s, then the same command goes on")
            self._gate.pause(failure.wait)
        if not self._patience.ends(item, failure):
            return False
        reason = f"{failure} ({item.attempts} attempts)"
        if not self._patience.server_is_down(item, failure):
            self._fails(item, reason)
            return True
        down = f"{reason}, and nothing was answered while it was tried: is the server up?"
        if not self.answers:
            raise ValueError(f"{down} The same command goes on")
        self._why = self._why or f"{down} "
        self._stop()
        return True

    def _stop(self) -> None:
        """Send nothing more, and wait for what is in flight, but not for ever."""
        if self._stopping:
            return
        self._stopping = True
        for worker in self._workers:
            if worker not in self._sending.flying and worker is not asyncio.current_task():
                worker.cancel()
        self._grace = asyncio.get_running_loop().call_later(self._limits.grace, self._drop)

    def _drop(self) -> None:
        for worker in self._workers:
            worker.cancel()

    def _tell(self) -> None:
        if self._say is not None:
            spent, done = self.purse.spent, len(self.answers) + len(self.failed)
            money = self.purse.budget.cost(spent)
            self._say(Standing(done, self._count, self._reasons, spent.tokens, money))
