"""From rows of a table to examples: the four data sets of the paper, and any of the user's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from shoestring import files
from shoestring.methods.rationale import arithmetic, labels, rows
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.rows import Row

Reasons = Literal["teacher", "human", "none"]
KEPT = ("rationale", "teacher_label", "agreement", "told")  # what `write` adds to a record
FILTERED = "filtered_by"  # and `shoestring rationale filter`: the filters that its reason went through


@dataclass(frozen=True)
class Form:
    """Which columns of a table hold what.

    columns        make the text: one as it stands, several each on a line of its own behind its name
    label          the gold label; None where nobody gave any
    options        the labels there are, or the column that lists those of each row, which then stand below its text
    expression     whether labels are arithmetic: they are kept as `arithmetic.normalised` writes them
    rationale, teacher_label, agreement, told  what a teacher gave; None where it gave none
    human          a person's reason for the gold label
    """

    columns: tuple[str, ...] = ("text",)
    label: str | None = "label"
    options: tuple[str, ...] | str = ()
    expression: bool = False
    rationale: str | None = None
    teacher_label: str | None = None
    human: str | None = None
    agreement: str | None = None
    told: str | None = None

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("columns: none, expected the names of one or more that make the text")
        if self.expression and self.options:
            raise ValueError(f"options: {self.options!r} of labels that are expressions: give one or the other")
        if isinstance(self.options, tuple) and labels.distinct(self.options) != self.options:
            raise ValueError(
                f"options: {list(self.options)}, of which two differ by no more than case, spaces or a full stop"
            )


_ENTAILMENT = Form(
    ("premise", "hypothesis"),
    options=("entailment", "neutral", "contradiction"),
    rationale="llm_rationale",
    teacher_label="llm_label",
    human="human_rationale",
)
FORMS = {
    "cqa": replace(_ENTAILMENT, columns=("question",), label="answer", options="choices"),
    "svamp": Form(("question",), "equation", (), True, "llm_rationale", "llm_equation"),
    "esnli": _ENTAILMENT,
    "anli": _ENTAILMENT,
}


def form(name: str) -> Form:
    """The form of a data set by name. Raises ValueError, with the nearest, where there is none."""
    if name not in FORMS:
        raise ValueError(f"{name!r}: expected one of {', '.join(FORMS)}{rows.nearest(name, FORMS)}")
    return FORMS[name]


def is_kept(source: str | Path) -> bool:
    """Whether the rows of a file are such as `write` writes, by the first of them.

    Raises ValueError where there is no such file, or its first line is no row.
    """
    return any(set(KEPT) <= set(row.cells) for row in islice(rows.read(source), 1))


def kept(form: Form) -> Form:
    """The form of what `write` writes of examples that came in another form."""
    return replace(form, rationale="rationale", teacher_label="teacher_label", agreement="agreement", told="told")


def text(columns: Mapping[str, str], options: Sequence[str] = ()) -> str:
    """The student's text: one column as it stands, several by name, and below them what may be chosen from."""
    if len(columns) == 1:
        lines = list(columns.values())
    else:
        lines = [f"{name.replace('_', ' ').capitalize()}: {value}" for name, value in columns.items()]
    return "\n".join([*lines, *(["Answer Choices:", lettered(options)] if options else [])])


def lettered(options: Sequence[str]) -> str:
    """`(a) first`, `(b) second`, each on a line."""
    return "\n".join(f"({letter(place)}) {option}" for place, option in enumerate(options))


def letter(place: int) -> str:
    """a to z, then the number: 27, 28 …"""
    return chr(ord("a") + place) if place < 26 else str(place + 1)


def read(source: str | Path | Iterable[Mapping[str, Any]], form: Form, reasons: Reasons = "teacher") -> list[Example]:
    """The examples of a file (.jsonl, .jsonl.gz) or of rows, in their order.

    reasons  "teacher", what the teacher wrote; "human", what people wrote, who were told the gold label, so that it is
             theirs too; "none", neither
    A teacher's blank reason or label is None, and its label may be none of the options. Raises ValueError, naming file
    and line, where a row lacks a column or the gold label is none of the options.
    """
    if reasons not in ("teacher", "human", "none"):
        raise ValueError(f"reasons: {reasons!r}, expected 'teacher', 'human' or 'none'")
    if reasons == "human" and form.human is None:
        raise ValueError("reasons: 'human', but the form names no column of people's reasons: name it, or take others")
    found = [example(row, form, reasons) for row in rows.read(source)]
    if not found:
        named = source if isinstance(source, str | Path) else "the rows"
        raise ValueError(f"{named}: nothing in it, expected at least one row")
    return found


def example(row: Row, form: Form, reasons: Reasons = "teacher") -> Example:
    """One row, as `read` reads it."""
    fixed = isinstance(form.options, tuple)
    options = form.options if isinstance(form.options, tuple) else row.listed(form.options)
    body = text({name: row.filled(name) for name in form.columns}, () if fixed else options)
    label = None if form.label is None else _gold(row, form.label, options, form.expression)
    found = Example(body, label, options, record=dict(row.cells), expression=form.expression)
    if reasons == "human" and form.human is not None:
        return replace(found, rationale=row.said(form.human), teacher_label=label, told=True)
    if reasons == "none":
        return found
    given = None if form.teacher_label is None else row.said(form.teacher_label)
    if given is not None:
        given = (_canonical(given) if form.expression else labels.match(given, options)) or given
    return replace(
        found,
        rationale=None if form.rationale is None else row.said(form.rationale),
        teacher_label=given,
        agreement=None if form.agreement is None else row.share(form.agreement),
        told=form.told is not None and row.truth(form.told),
    )


def write(path: str | Path, examples: Iterable[Example]) -> None:
    """Write examples as JSON lines, whole or not at all: each record, and beside it what the teacher gave.

    Read them again in the form `kept`. Raises ValueError where the name does not end in .jsonl.
    """
    path = Path(path)
    if path.suffix != ".jsonl":
        raise ValueError(f"{path}: expected a name that ends in .jsonl")
    lines = []
    for number, example in enumerate(examples, start=1):
        record = example.record or {"text": example.text, "label": example.label, "options": list(example.options)}
        row = {**record, **{name: getattr(example, name) for name in KEPT}}
        try:
            line = json.dumps(row, ensure_ascii=False)
            whole = line.encode(errors="replace").decode() == line
            lines.append(line if whole else json.dumps(row))  # half a surrogate pair is written by its number
        except TypeError as error:
            raise ValueError(f"{path}: example {number} has a record that JSON cannot hold ({error})") from None
    files.replace(path, "".join(line + "\n" for line in lines))


def _gold(row: Row, name: str, options: Sequence[str], expression: bool) -> str | None:
    """The gold label as the options write it; None where the row has null."""
    if row.cell(name) is None:
        return None
    written = row.filled(name)
    if expression:
        try:
            return arithmetic.normalised(written)
        except ValueError as error:
            raise ValueError(f"{row.place}: column {name!r}: {error}") from None
    found = labels.match(written, options) if options else written.strip()
    if found is None:
        expected = rows.shown(list(options))
        raise ValueError(f"{row.place}: column {name!r} holds {rows.shown(written)}, expected one of {expected}")
    return found


def _canonical(written: str) -> str | None:
    try:
        return arithmetic.normalised(written)
    except ValueError:
        return None
