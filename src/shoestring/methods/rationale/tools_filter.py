"""Take out reasons that a student should not learn, and say how many each filter took, and which."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoestring.methods.rationale.tools_form import (
    Column,
    Expression,
    FormName,
    Label,
    Option,
    Options,
    Rationale,
    Said,
    TeacherLabel,
    check_reasons,
)
from shoestring.methods.rationale.tools_out import check_file, check_own

if TYPE_CHECKING:
    from shoestring.methods.rationale.examples import Example


class Drop(StrEnum):
    rationale = "rationale"
    example = "example"


_Agrees = Annotated[bool, typer.Option("--agrees", help="Out: reasons for another label than the gold one.")]
_Consistent = Annotated[
    float | None, typer.Option(min=0, max=1, help="Out: a label that less than this part of the samples gave.")
]
_Leak = Annotated[bool, typer.Option("--leak", help="Cut: sentences such as 'So the answer is …'.")]
_LeakRemove = Annotated[bool, typer.Option("--leak-remove", help="The same; out: reasons that name the label still.")]
_Length = Annotated[str | None, typer.Option(metavar="LEAST:MOST", help="Out: reasons of fewer or more words.")]
_Duplicates = Annotated[
    bool, typer.Option("--duplicates", help="Out: repeated examples; reasons of more than 3 texts.")
]


def filter_rows(
    data: Annotated[Path, typer.Argument(help="What `ask` wrote, or rows with reasons of your own: .jsonl (.gz).")],
    out: Annotated[Path, typer.Option(help="A .jsonl: the rows that are left.")],
    agrees: _Agrees = False,
    consistent: _Consistent = None,
    leak: _Leak = False,
    leak_remove: _LeakRemove = False,
    length: _Length = None,
    duplicates: _Duplicates = False,
    drop: Annotated[
        Drop, typer.Option(help="Of an example whose reason is out: the reason alone, or all of it.")
    ] = Drop.rationale,
    form: FormName = None,
    column: Column = None,
    label: Label = None,
    option: Option = None,
    options: Options = None,
    expression: Expression = False,
    rationale: Rationale = None,
    teacher_label: TeacherLabel = None,
) -> None:
    """Filter a teacher's reasons: by --agrees, --consistent, --leak, --length and --duplicates, in this order.

    What each took out is shown with examples.
    """
    from shoestring.methods.rationale import datasets, filters, rows

    check_file(out, ".jsonl", data)
    check_own(out, (*datasets.KEPT, datasets.FILTERED), "filter")
    chosen = _chosen(agrees, consistent, leak or leak_remove, leak_remove, length, duplicates)
    said = Said(form, column, label, option, options, expression, rationale, teacher_label)
    found = said.form_of(data)
    check_reasons(found, data)
    examples = datasets.read(data, found)
    _check_not_lost(data, examples, "rationale", found.rationale)
    _check_not_lost(data, examples, "teacher_label", found.teacher_label)
    if agrees:
        _check_labels(data, examples)
    done = filters.apply(examples, list(chosen), drop.value, chosen)
    datasets.write(out, [_rewritten(example, found.rationale, chosen) for example in done.examples])
    typer.echo(done.table())
    left = sum(example.rationale is not None for example in done.examples)
    typer.echo(f"{out}: {len(done.examples):,} of {rows.counted(len(examples))}, {left:,} with a reason")
    if not left:
        typer.echo("warning: no reason is left: loosen a filter", err=True)


def _rewritten(example: Example, column: str | None, chosen: Collection[str]) -> Example:
    """With what is left of its reason in the column that it came from too, so that who names it again reads the same;
    and with the filters that it went through, now and before."""
    from shoestring.methods.rationale.datasets import FILTERED

    record = {name: example.rationale if name == column else value for name, value in example.record.items()}
    before = record.get(FILTERED)
    return replace(example, record={**record, FILTERED: [*(before if isinstance(before, list) else []), *chosen]})


def _check_not_lost(data: Path, examples: Sequence[Example], name: str, column: str | None) -> None:
    """Raises ValueError where rows hold something else under a name that is written than in the column that is read."""
    for number, one in enumerate(examples, start=1):
        if column is not None and one.record.get(name) not in (None, one.record.get(column), getattr(one, name)):
            raise ValueError(
                f"{data}, row {number}: its {name!r} is not what {column!r} holds, and would be written over: rename it"
            )


def _check_labels(data: Path, examples: Sequence[Example]) -> None:
    """Raises ValueError where nobody gave a teacher's label, that of no row would agree, or no gold one to compare."""
    reasons = [one for one in examples if one.rationale is not None]
    if reasons and all(one.teacher_label is None for one in reasons):
        raise ValueError(f"{data}: no row has a teacher's label, which --agrees compares: name it by --teacher-label")
    if reasons and all(one.label is None for one in reasons):
        raise ValueError(f"{data}: no row has a gold label, which --agrees compares: name its column by --label")


def _chosen(
    agrees: bool, consistent: float | None, leak: bool, remove: bool, length: str | None, duplicates: bool
) -> dict[str, dict[str, float]]:
    """The filters that are asked for, in order, with their options."""
    found: dict[str, dict[str, float]] = {}
    if agrees:
        found["agrees"] = {}
    if consistent is not None:
        found["consistent"] = {"threshold": consistent}
    if leak:
        found["leak"] = {"remove": remove}
    if length is not None:
        least, _, most = length.partition(":")
        if not least.isdecimal() or not most.isdecimal():
            raise ValueError(f"--length {length!r}: expected two numbers of words, such as 3:256")
        found["length"] = {"least": int(least), "most": int(most)}
    if duplicates:
        found["duplicates"] = {}
    if not found:
        raise ValueError("no filter: give one or more of --agrees, --consistent, --leak, --length, --duplicates")
    return found
