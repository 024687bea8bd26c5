"""What came of asking: a file of rows, and a table of what went well and what did not."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shoestring.methods.rationale import ask, datasets, labels, rows
from shoestring.methods.rationale.ask import Read
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.parse import PROBLEMS, Parsed
from shoestring.methods.rationale.tools_asked import WRITTEN, Found
from shoestring.models.teacher.words import Reply

UNANSWERED, LEFT = "no answer", "stopped before it was answered"
SHOWN = 3  # examples of a problem
_LENGTH = 100  # characters of one


def leave(found: Found, out: Path, licence: str | None) -> None:
    """Write each row with what was answered, whole or not at all, and say how it went."""
    from rich.console import Console
    from rich.text import Text

    examples = [*answered(found.read, found.samples, licence)]
    datasets.write(out, examples)
    console = Console(highlight=False)
    console.print(table(found))
    for line in shown(found.read, found.samples):
        console.print(Text(line), soft_wrap=True)
    whole = sum(one.rationale is not None and one.teacher_label is not None for one in examples)
    console.print(Text(f"{out}: {rows.counted(len(examples))}, {whole:,} with a reason and a label"), soft_wrap=True)
    if found.read.answered and not whole:
        what = "warning: no answer could be read: make the prompt's `parse` fit what the teacher writes"
        print(what, file=sys.stderr)


def answered(read: Read, samples: int, licence: str | None) -> Iterator[Example]:
    """The examples, their records with who answered, and with what went wrong where something did."""
    reasons = _failures(read)
    for place, (example, parsed, replies) in enumerate(_rows(read, samples)):
        record: dict[str, Any] = {key: value for key, value in example.record.items() if key not in WRITTEN}
        record["teacher"] = next((reply.model for reply in replies if reply is not None), None)
        if licence is not None:
            record["licence"] = licence
        wrong = Counter(one.problem if one is not None else UNANSWERED for one in parsed)
        del wrong[None]
        if wrong:
            record["problem"] = _problem(wrong, samples, reasons.get(place, LEFT))
        completion = next((reply.text for one, reply in _read(parsed, replies) if one.problem is not None), None)
        if completion is not None:
            record["completion"] = completion
        yield replace(example, record=record)


def table(found: Found) -> Any:
    """How many were answered, what went wrong, and what it took."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=False)
    drawn.add_column()
    drawn.add_column(justify="right")
    for name, value in _lines(found):
        drawn.add_row(Text(name), Text(value))
    return drawn


def shown(read: Read, samples: int) -> Iterator[str]:
    """The first few of each problem, and of what was refused, with the answer as it came."""
    by_problem: dict[str, list[str]] = {}
    for place, (_, parsed, replies) in enumerate(_rows(read, samples), start=1):
        for one, reply in _read(parsed, replies):
            if one.problem is not None:
                by_problem.setdefault(one.problem, []).append(f"row {place}: {brief(reply.text)}")
    for problem in PROBLEMS:
        for line in by_problem.get(problem, [])[:SHOWN]:
            yield f"• {problem}, {line}"
    for name, reason in list(read.asked.failed.items())[:SHOWN]:
        yield f"• {UNANSWERED}, {name}: {brief(reason)}"


def brief(text: str) -> str:
    """A text on one line, not too long, whose control characters a terminal does not see."""
    line = " ".join(text.split())
    return repr(line if len(line) <= _LENGTH else line[: _LENGTH - 1] + "…")


def _lines(found: Found) -> Iterator[tuple[str, str]]:
    from shoestring.evaluate.quantities import number

    read, asked = found.read, found.read.asked
    yield "rows", f"{len(read.examples):,}"
    yield "answered", f"{read.answered:,}"
    for problem, count in read.problems.items():
        yield problem, f"{count:,}"
    if asked.failed:
        yield "refused, too large, or no answer after several attempts", f"{len(asked.failed):,}"
    gold = [one for one in read.examples if one.label is not None and one.teacher_label is not None]
    if gold:
        alike = sum(labels.same(str(one.label), str(one.teacher_label), one.options, one.expression) for one in gold)
        yield "agree with the gold label", f"{alike:,} of {len(gold):,} ({alike / len(gold):.1%})"
    voted = [one.agreement for one in read.examples if one.agreement is not None]
    if voted:
        yield "agreement of samples, mean", f"{sum(voted) / len(voted):.1%}"
    total = asked.total
    yield "tokens in this call", f"{found.tokens:,}"
    yield "tokens in all, prompts and answers", f"{total.prompt_tokens:,} + {total.completion_tokens:,}"
    if found.budget.price_in or found.budget.price_out:
        yield "money in this call, in all", f"{number(found.money)}, {number(total.money)}"
    yield "seconds", number(found.seconds)
    if asked.unknown:
        yield "requests of unknown fate, perhaps paid", f"{asked.unknown:,}"
    if asked.uncounted:
        yield "answers whose tokens the server did not say (bounds count)", f"{asked.uncounted:,}"


def _rows(read: Read, samples: int) -> Iterator[tuple[Example, list[Parsed | None], list[Reply | None]]]:
    for place, (example, parsed) in enumerate(zip(read.examples, read.parsed, strict=True)):
        yield example, parsed, read.asked.replies[place * samples : (place + 1) * samples]


def _read(parsed: Sequence[Parsed | None], replies: Sequence[Reply | None]) -> Iterator[tuple[Parsed, Reply]]:
    for one, reply in zip(parsed, replies, strict=True):
        if one is not None and reply is not None:
            yield one, reply


def _failures(read: Read) -> dict[int, str]:
    """Why there is no answer, by the place of the row."""
    names = {ask.named(place, example): place for place, example in enumerate(read.examples)}
    return {names[name]: reason for name, reason in read.asked.failed.items()}


def _problem(wrong: Mapping[str | None, int], samples: int, reason: str) -> str:
    said = []
    for name, count in wrong.items():
        part = f"{name}: {reason}" if name == UNANSWERED else str(name)
        said.append(part if samples == 1 else f"{part} ({count} of {samples} samples)")
    return "; ".join(said)
