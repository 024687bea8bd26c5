"""The answers that a command wants of a student, streamed, with what is to be said of them at the end."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from shoestring.data import formats
from shoestring.methods.rationale import datasets, filters, labels, rows
from shoestring.methods.rationale.answering import Answer
from shoestring.methods.rationale.datasets import Form
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import source_of
from shoestring.methods.rationale.rows import Row
from shoestring.methods.rationale.tools_form import Said, first_row
from shoestring.methods.rationale.tools_student import opened

INPUT = "standard input"
_UNCUT = 10**9


@dataclass
class Counts:
    """How many rows were answered, how many of their texts were cut, and how often the gold label was given."""

    since: float = field(default_factory=time.monotonic)
    answered: int = 0
    cut: int = 0
    judged: int = 0
    right: int = 0

    def sentence(self, room: int) -> str:
        seconds = max(time.monotonic() - self.since, 1e-9)
        parts = [f"{rows.counted(self.answered)} in {seconds:.3g} s ({self.answered / seconds:.3g} a second)"]
        if self.cut:
            parts.append(f"{self.cut:,} longer than {room} tokens, their middle left out")
        if self.judged:
            parts.append(f"{self.right:,} of {self.judged:,} as the gold label ({self.right / self.judged:.1%})")
        return "; ".join(parts)


class Asking:
    """A student that was opened, and how its rows are read."""

    def __init__(self, named: Path, said: Said, batch: int, reasons: bool, free: bool) -> None:
        self._student, self._before = opened(named)
        self._said, self._batch, self._reasons, self._free = said, batch, reasons, free
        taught, coder = self._student.taught, self._student.coder
        if reasons and taught.way not in ("two-task", "single-task"):
            raise ValueError(
                f"--reasons: the student in {named} was taught the way {taught.way!r} and gives none: "
                "train one by two-task"
            )
        self.room = coder.source_tokens
        self._uncut = replace(coder, source_tokens=_UNCUT)

    def from_file(self, data: Path, out: Path | None) -> Counts:
        form = self._form(first_row(data))
        total = sum(1 for _ in self._examples(rows.read(data), form))  # what cannot be read is named here
        counts = Counts()
        with _writing(out) as stream, _progress(total, out) as tell:
            reading = self._examples(rows.read(data), form)
            while some := [*islice(reading, self._batch)]:
                self._write(some, stream, counts)
                tell(counts.answered)
        return counts

    def from_input(self, out: Path | None) -> Counts:
        counts, form = Counts(), None
        with _writing(out) as stream:
            for some in _as_they_come(_lines(sys.stdin.buffer), self._batch):
                form = form or self._form(some[0].cells)
                examples: list[Example] = []
                try:
                    examples.extend(self._examples(some, form))
                finally:  # those before one that cannot be read are answered
                    if examples:
                        self._write(examples, stream, counts)
        return counts

    def _form(self, row: Mapping[str, Any]) -> Form:
        """How rows are read of which this is the first: by the options, else as the student's own were."""
        found = self._said.fitting(row, self._before)
        informed = self._student.taught.way == "informed"
        if informed and found.rationale is None:
            raise ValueError(
                "the student reads the teacher's reason beside the text: the rows have no column rationale"
            )
        plain = replace(
            found, rationale=found.rationale if informed else None, teacher_label=None, agreement=None, told=None
        )
        return replace(plain, label=self._said.label)

    def _examples(self, read: Iterable[Row], form: Form) -> Iterator[Example]:
        for row in read:
            for name in written(self._reasons):
                if name in row.cells:
                    raise ValueError(f"{row.place}: column {name!r} would be written over: rename it, or leave it out")
            found = datasets.example(row, form)
            yield filters.unanswered(found)  # it learnt from reasons that do not tell the answer

    def _write(self, examples: list[Example], stream: TextIO, counts: Counts) -> None:
        answers = self._student.answers(examples, self._reasons, self._free)
        for example, answer in zip(examples, answers, strict=True):
            row = {**example.record, **_told(answer, self._reasons)}
            stream.write(_line(row, ascii_only=(stream.encoding or "").lower() not in ("utf-8", "utf8")) + "\n")
            if example.label is not None:
                counts.judged += 1
                counts.right += labels.same(example.label, answer.label, example.options, example.expression)
        stream.flush()
        counts.answered += len(examples)
        taught = self._student.taught
        whole = self._uncut.sources([source_of(example, taught.way, taught.wording) for example in examples])
        counts.cut += sum(len(ids) > self.room for ids in whole)


def written(reasons: bool) -> tuple[str, ...]:
    """The columns that a student's answer adds to a row."""
    return ("student_label", "probability", *(["reason"] if reasons else []))


def _told(answer: Answer, reasons: bool) -> dict[str, str | float | None]:
    probability = None if answer.probability is None else round(answer.probability, 6)
    return dict(zip(written(reasons), (answer.label, probability, answer.reason), strict=False))


def _lines(stream: Iterable[bytes]) -> Iterator[Row]:
    """The rows of JSON lines as they come. Raises ValueError naming the line."""
    for number, line in enumerate(stream, start=1):
        place = f"{INPUT}:{number}"
        if not line.strip():
            continue
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{place}: not UTF-8 ({error.reason}): convert it") from None
        yield Row(formats.json_object(text, place), place)


def _as_they_come(reading: Iterable[Row], most: int) -> Iterator[list[Row]]:
    """Rows that have come together, at most so many; of what waits for nobody, a few batches are read ahead.

    Where reading fails, what came before is given out first.
    """
    waiting: queue.Queue[Row | BaseException | None] = queue.Queue(maxsize=4 * most)

    def read() -> None:
        try:
            for row in reading:
                waiting.put(row)
        except (ValueError, OSError) as error:
            waiting.put(error)
        waiting.put(None)

    threading.Thread(target=read, name="reading", daemon=True).start()
    last: Row | BaseException | None = None
    while True:
        some: list[Row] = []
        last = waiting.get()
        while isinstance(last, Row):
            some.append(last)
            if len(some) == most or waiting.empty():
                break
            last = waiting.get()
        if some:
            yield some
        if isinstance(last, BaseException):
            raise last
        if last is None:
            return


def _line(row: dict[str, object], ascii_only: bool) -> str:
    """A row as JSON; half a surrogate pair, which UTF-8 cannot hold, is written by its number."""
    line = json.dumps(row, ensure_ascii=ascii_only)
    return line if line.encode(errors="replace").decode() == line else json.dumps(row)


@contextmanager
def _writing(out: Path | None) -> Iterator[TextIO]:
    """A file that is whole or not there, or standard output."""
    if out is None:
        yield sys.stdout
        return
    beside = out.with_name(f".{out.name}.partial-{os.getpid()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside.open("w", encoding="utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _progress(total: int, out: Path | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal that shows nothing else."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=out is None or not console.is_terminal) as bar:
        task = bar.add_task("predicting", total=total)
        yield lambda done: bar.update(task, completed=done)
