"""What the columns of a user's data hold, as the options of every command say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from shoestring.methods.rationale.datasets import Form

FormName = Annotated[str | None, typer.Option("--form", help="The columns of a known set: cqa, svamp, esnli, anli.")]
Column = Annotated[
    list[str] | None,
    typer.Option(help="A column of the text, text unless said; repeated, each on a line behind its name."),
]
Label = Annotated[str | None, typer.Option(help="The column of gold labels; label unless said, where it is there.")]
Option = Annotated[list[str] | None, typer.Option(help="A label that an example may have; repeated for each.")]
Options = Annotated[str | None, typer.Option(help="The column that lists each example's own options.")]
Expression = Annotated[bool, typer.Option("--expression", help="Labels are arithmetic, and alike by their value.")]
Rationale = Annotated[
    str | None, typer.Option(help="The column of the teacher's reasons; rationale unless said, as `ask` writes it.")
]
TeacherLabel = Annotated[
    str | None, typer.Option(help="The column of the teacher's labels; teacher_label unless said, as `ask` writes it.")
]


@dataclass(frozen=True)
class Said:
    """What the options say; nothing where they are None, empty or false."""

    form: str | None = None
    column: Sequence[str] | None = None
    label: str | None = None
    option: Sequence[str] | None = None
    options: str | None = None
    expression: bool = False
    rationale: str | None = None
    teacher_label: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Said:
        """Of all of a command's options, by their names."""
        return cls(**{field.name: given[field.name] for field in fields(cls)})

    def form_of(self, data: Path) -> Form:
        """The form of a file's rows, by the options and by what its first row has. Raises ValueError as `fitting`
        does, and where the file holds no row."""
        return self.fitting(first_row(data))

    def of_parts(self, data: Path, dev: Path | None, unlabelled: bool) -> Form:
        """The form of rows to learn from; where these have no gold labels, the column of those of dev."""
        found = self.form_of(data)
        return replace(found, label=self.form_of(dev).label) if unlabelled and dev is not None else found

    def fitting(self, row: Mapping[str, Any], before: Form | None = None) -> Form:
        """The form of rows of which this is the first.

        before  what is known where the options say nothing; else a `text` column and any label
        A label, a reason and a teacher's label that nobody named are taken where they are. Raises ValueError where the
        options contradict each other.
        """
        from shoestring.methods.rationale import datasets

        option = tuple(one.strip() for one in self.option or ())
        if option and self.options:
            raise ValueError(f"--option {option[0]} and --options {self.options}: give one or the other")
        found = datasets.form(self.form) if self.form is not None else before or datasets.Form()
        if self.column:
            found = replace(found, columns=tuple(self.column))
        if option or self.options:
            found = replace(found, options=self.options or option, expression=False)
        if self.expression:
            found = replace(found, expression=True, options=self.options or option)
        return self._fitted(found, row)

    def _fitted(self, form: Form, row: Mapping[str, Any]) -> Form:
        """The columns that nobody named, where they are; what `ask` wrote before what came with the data."""

        def column(said: str | None, *usual: str | None) -> str | None:
            return said or next((name for name in usual if name is not None and name in row), None)

        return replace(
            form,
            label=column(self.label, form.label),
            rationale=column(self.rationale, "rationale", form.rationale),
            teacher_label=column(self.teacher_label, "teacher_label", form.teacher_label),
            agreement=column(None, "agreement"),
            told=column(None, "told"),
            human=column(None, form.human),
        )


def check_reasons(form: Form, data: Path) -> None:
    """Raises ValueError where no column holds reasons."""
    if form.rationale is None:
        raise ValueError(f"{data}: no column of reasons: name it by --rationale, or let `ask` write them")


def check_gold(form: Form, data: Path) -> None:
    """Raises ValueError where no column holds gold labels."""
    if form.label is None:
        raise ValueError(
            f"{data}: no column of gold labels: name it by --label; train --unlabelled learns from the teacher's"
        )


def first_row(data: Path) -> Mapping[str, Any]:
    """The first row of a file. Raises ValueError where there is none."""
    from shoestring.methods.rationale import rows

    for row in rows.read(data):
        return row.cells
    raise ValueError(f"{data}: nothing in it, expected at least one row")
