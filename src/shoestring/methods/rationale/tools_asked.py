"""The asking that a command wants: its rows, its prompt, its teacher and its budget, and what came of it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from shoestring.methods.rationale import datasets, prompts_reading
from shoestring.methods.rationale.ask import Read, ask_about
from shoestring.methods.rationale.datasets import FILTERED, KEPT, Form
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.prompts import Prompt
from shoestring.methods.rationale.tools_out import leaving_no_folder
from shoestring.models.teacher import database
from shoestring.models.teacher.answers import Answers
from shoestring.models.teacher.attempts import Standing
from shoestring.models.teacher.budget import Budget
from shoestring.models.teacher.endpoint import Endpoint
from shoestring.models.teacher.limits import Limits
from shoestring.models.teacher.local import Local
from shoestring.models.teacher.progress import watching
from shoestring.models.teacher.words import Teacher

WRITTEN = ("teacher", "licence", "problem", "completion", *KEPT, FILTERED)  # what `ask` writes anew, or takes away
LOCAL = "local:"
_AT_ONCE, _AT_ONCE_HERE = 32, 8


class Source(NamedTuple):
    """Who is asked, as the options say it."""

    teacher: str
    model: str | None
    length_field: str

    def opened(self, concurrency: int | None) -> tuple[Teacher, int]:
        """The teacher, and how many questions at once."""
        if self.teacher.startswith(LOCAL):
            if self.model is not None:
                raise ValueError(f"--model {self.model}: {self.teacher} names the model already: leave it out")
            at_once = concurrency or _AT_ONCE_HERE
            return Local.load(self.teacher.removeprefix(LOCAL), batch_size=at_once), at_once
        if self.model is None:
            raise ValueError("--model: expected the name by which the server knows the model")
        return Endpoint(self.model, self.teacher, length_field=self.length_field), concurrency or _AT_ONCE


class Pace(NamedTuple):
    """How fast, and how much at most, as the options say it."""

    concurrency: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    budget_tokens: int | None = None
    budget_money: float | None = None
    price: str | None = None

    @property
    def limits(self) -> Limits:
        return Limits(self.requests_per_minute, self.tokens_per_minute)

    @property
    def budget(self) -> Budget:
        if self.price is None:
            if self.budget_money is not None:
                raise ValueError(f"--budget-money {self.budget_money:g}: give --price IN,OUT too, per million tokens")
            return Budget(self.budget_tokens)
        try:
            price_in, price_out = (float(part) for part in self.price.split(","))
        except ValueError:
            raise ValueError(f"--price {self.price!r}: expected two numbers, such as 0.15,0.60") from None
        return Budget(self.budget_tokens, self.budget_money, price_in, price_out)


class Found(NamedTuple):
    """What came of asking.

    tokens, money, seconds  of this call
    left                    why rows were left without an answer, where some were
    """

    read: Read
    samples: int
    budget: Budget
    tokens: int
    money: float
    seconds: float
    left: str | None
    interrupted: bool


@dataclass(frozen=True)
class Wanted:
    """What is asked, as the options say it."""

    data: Path
    form: Form
    prompt: Prompt
    samples: int = 1
    temperature: float | None = None
    told: bool = False
    seed: int | None = None
    limit: int | None = None

    def asked(self, source: Source, pace: Pace, kept: Path) -> Found:
        """Ask what is not answered yet. Where Ctrl-C ends it, what is there is read all the same.

        Raises ValueError where nothing can be asked, or nothing was answered; a store that is new and holds nothing is
        then taken away.
        """
        examples, budget, limits = self.examples(), pace.budget, pace.limits
        teacher, at_once = source.opened(pace.concurrency)
        since, paid, interrupted = time.monotonic(), (0, 0.0), False
        failed: Mapping[str, str] = {}
        with leaving_no_folder(kept), _store(kept) as store, watching() as shown:

            def tell(standing: Standing) -> None:
                nonlocal paid, failed
                paid, failed = (standing.tokens, standing.money), standing.failed
                shown(standing)

            try:
                read = self._ask(examples, teacher, store, concurrency=at_once, limits=limits, budget=budget, tell=tell)
            except KeyboardInterrupt:
                interrupted = True
                read = self._ask(examples, teacher, store, budget=replace(budget, tokens=0))  # asks nothing more
                asked = replace(read.asked, stopped="by Ctrl-C", failed=dict(failed))
                read = replace(read, asked=asked)
            if not read.answered:
                reason = next(iter(read.asked.failed.values()), None) or read.asked.stopped
                spent = f" ({paid[0]:,} tokens were paid)" if paid[0] else ""
                what = "stopped before an answer came" if interrupted else f"nothing was answered: {reason}"
                raise ValueError(f"{what}{spent}")
        return Found(read, self.samples, budget, *paid, time.monotonic() - since, _left(read, interrupted), interrupted)

    def examples(self) -> list[Example]:
        """The rows to ask about. Raises ValueError where what `ask` writes would take the place of what they hold."""
        used = (*self.form.columns, self.form.label, self.form.options)
        for name in WRITTEN:
            if name in used:
                raise ValueError(f"{self.data}: the column {name!r} is one that ask writes: rename it in the data")
        found = datasets.read(self.data, self.form, "none")[: self.limit]
        for number, example in enumerate(found, start=1):
            taken = [name for name in WRITTEN if name in example.record]
            if taken and not set(KEPT) <= set(example.record):  # else an earlier answer is asked for anew
                raise ValueError(
                    f"{self.data}, row {number}: has a column {taken[0]!r}, which ask writes: rename it in the data"
                )
        return found

    def _ask(self, examples: list[Example], teacher: Teacher, store: Answers, **options: object) -> Read:
        return ask_about(
            examples,
            self.prompt,
            teacher,
            store,
            samples=self.samples,
            temperature=self.temperature,
            told=self.told,
            seed=self.seed,
            **options,
        )


def prompt_of(name: str | None, max_tokens: int | None) -> Prompt:
    """A prompt by its name or path, with another length of answers where one is given."""
    if name is None:
        raise ValueError(f"--prompt: expected {', '.join(prompts_reading.SHIPPED)}, or a YAML file of your own")
    found = prompts_reading.load(name)
    return replace(found, parameters=replace(found.parameters, max_tokens=max_tokens)) if max_tokens else found


def _left(read: Read, interrupted: bool) -> str | None:
    missing = sum(reply is None for reply in read.asked.replies)
    if not missing:
        return None
    count = f"{missing:,} of {len(read.asked.replies):,} questions are left without an answer"
    if interrupted:
        return f"stopped: {count}; the same command goes on"
    if read.asked.stopped:
        return f"{read.asked.stopped}; the same command goes on"
    return f"{next(iter(read.asked.failed.values()))}: {count}; the same command asks them again"


@contextmanager
def _store(path: Path) -> Iterator[Answers]:
    """The store of a file; one that is new is taken away again where nothing was paid for."""
    new = not path.exists()
    with Answers(path) as store:
        try:
            yield store
        except BaseException:
            store.close()
            if new:
                _take_away(path)
            raise


def _take_away(path: Path) -> None:
    """Remove a store that holds nothing, unless another process has just taken it up."""
    with suppress(ValueError), database.hold(path):
        with closing(sqlite3.connect(path)) as connection:
            counts = "SELECT (SELECT count(*) FROM answers) + (SELECT count(*) FROM attempts)"
            (count,) = connection.execute(counts).fetchone()
        if not count:
            for name in (path.name, f"{path.name}.lock"):
                path.with_name(name).unlink(missing_ok=True)
