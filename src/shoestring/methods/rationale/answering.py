"""What a student answers, whatever computes it: labels by likelihood or as it writes them, and reasons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import Taught, source_of

_SHOWN = 60  # characters of an option


class Answer(NamedTuple):
    """What a student says of an example.

    label        one of the example's options where it has any, else what was written
    probability  of the label among the options; None where the label was written
    reason       None where none was asked for
    """

    label: str
    probability: float | None
    reason: str | None


class Codes(Protocol):
    """Texts as ids, as `encode.Coder` makes them."""

    def sources(self, texts: Sequence[str]) -> list[list[int]]: ...

    def targets(self, texts: Sequence[str]) -> list[list[int]]: ...


class Says(Protocol):
    """A student, as far as answers need one: by how it was taught, the log-likelihood of options, and what it writes of
    sources in at most so many tokens."""

    @property
    def taught(self) -> Taught: ...

    @property
    def coder(self) -> Codes: ...

    def likelihoods(
        self, sources: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]: ...

    def write(self, sources: Sequence[Sequence[int]], tokens: int) -> list[str]: ...


def answers(student: Says, examples: Sequence[Example], reasons: bool = False, free: bool = False) -> list[Answer]:
    """Labels, by likelihood among an example's options (the student's own where it has none), else as written.

    free  write the label also where there are options
    A reason is a second pass, save of a student that writes the reason first.
    """
    taught, coder = student.taught, student.coder
    if taught.way == "single-task":
        return _reasoned(student, examples, reasons)
    given = [() if free else example.options or taught.options for example in examples]
    sources = coder.sources([source_of(example, taught.way, taught.wording) for example in examples])
    chosen = [row for row, options in enumerate(given) if options]
    written = [row for row, options in enumerate(given) if not options]
    labels: dict[int, tuple[str, float | None]] = {}
    tokens = {options: _told_apart(student, options) for options in set(given) if options}
    lines = student.likelihoods([sources[row] for row in chosen], [tokens[given[row]] for row in chosen])
    for row, line in zip(chosen, lines, strict=True):
        best = max(range(len(line)), key=line.__getitem__)  # the first of equals
        labels[row] = given[row][best], 1 / math.fsum(math.exp(one - line[best]) for one in line)
    room = _room(student, [examples[row].options or taught.options for row in written])
    texts = student.write([sources[row] for row in written], room)
    labels |= {row: (text, None) for row, text in zip(written, texts, strict=True)}
    said = reasons_of(student, examples) if reasons else [None] * len(examples)
    return [Answer(*labels[row], reason) for row, reason in enumerate(said)]


def reasons_of(student: Says, examples: Sequence[Example]) -> Sequence[str | None]:
    """What the student writes as its reason. Raises ValueError where it was never taught to give one."""
    taught = student.taught
    if taught.way == "single-task":
        return [answer.reason for answer in _reasoned(student, examples, True)]
    if taught.way != "two-task":
        raise ValueError(f"a student taught the way {taught.way!r} gives no reasons: train one by two-task")
    sources = student.coder.sources([taught.wording.rationale + example.text for example in examples])
    return student.write(sources, taught.target_tokens)


def stream(
    student: Says, examples: Iterable[Example], batch_size: int = 64, reasons: bool = False, free: bool = False
) -> Iterator[Answer]:
    """Answers in the order of the examples, which are read only as they are needed."""
    reading = iter(examples)
    while some := list(islice(reading, batch_size)):
        yield from answers(student, some, reasons, free)


def _told_apart(student: Says, options: Sequence[str]) -> list[list[int]]:
    """Options as ids. Raises ValueError where two are the same to the student, which would always take the first."""
    found = student.coder.targets(options)
    seen: dict[tuple[int, ...], str] = {}
    for option, ids in zip(options, found, strict=True):
        other = seen.setdefault(tuple(ids), option)
        if other != option:
            raise ValueError(
                f"the option {_brief(option)} is the same to this student as {_brief(other)}: of each it can write "
                f"{student.taught.target_tokens} tokens at most: shorten the options, or train it to write more"
            )
    return found


def _brief(option: str) -> str:
    return repr(option if len(option) <= _SHOWN else option[: _SHOWN - 1] + "…")


def _room(student: Says, options: Sequence[Sequence[str]]) -> int:
    """How many tokens a label may have: no more than the longest option, where all have some."""
    if not options or not all(options):
        return student.taught.target_tokens
    return max(len(ids) for some in set(map(tuple, options)) for ids in student.coder.targets(some))


def _reasoned(student: Says, examples: Sequence[Example], reasons: bool) -> list[Answer]:
    """Of a student that writes reason and label in one: the label is what stands after the last marker."""
    wording = student.taught.wording
    sources = student.coder.sources([wording.label + example.text for example in examples])
    found = []
    for text in student.write(sources, student.taught.target_tokens):
        reason, marker, label = text.rpartition(wording.answer.strip())
        told = reason.strip() if marker else text
        found.append(Answer(label.strip() if marker else "", None, told if reasons else None))
    return found
