"""Ask a student: a label for each row, and its reason where one is wanted, as soon as a batch of them is done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoestring.methods.rationale.tools_form import Column, Expression, FormName, Option, Options, Said
from shoestring.methods.rationale.tools_out import check_file, check_own, leaving_no_folder

_Student = Annotated[
    Path, typer.Argument(help="The folder of a student, or of a finished run; or the .onnx that export wrote.")
]
_Data = Annotated[str, typer.Argument(help="Rows: .jsonl or .jsonl.gz; - reads JSON lines from standard input.")]
_Out = Annotated[Path | None, typer.Option(help="A .jsonl; standard output unless said.")]
_Reasons = Annotated[bool, typer.Option("--reasons", help="Also why: a second pass, of a student that learnt it.")]
_Batch = Annotated[int, typer.Option(min=1, help="Rows at once; from standard input no more than have come.")]
_Free = Annotated[bool, typer.Option("--free", help="Let it write the label, also where there are options.")]
_Label = Annotated[str | None, typer.Option(help="The column of gold labels: to say how often the student is right.")]


def predict(
    student: _Student,
    data: _Data,
    out: _Out = None,
    reasons: _Reasons = False,
    batch: _Batch = 64,
    free: _Free = False,
    label: _Label = None,
    form: FormName = None,
    column: Column = None,
    option: Option = None,
    options: Options = None,
    expression: Expression = False,
) -> None:
    """Label rows by a student: each comes back with student_label, probability (among options) and, if asked, reason.

    The columns are those that the student was trained on, unless said. A file is read through once before, so that a
    row that cannot be read is named before anything is answered.
    """
    if out is not None:
        check_file(out, ".jsonl", *([Path(data)] if data != "-" else []))
    from shoestring.methods.rationale import tools_predicted

    if out is not None:
        check_own(out, tools_predicted.written(reasons=False), "prediction")
    said = Said(form, column, label, option, options, expression)
    with leaving_no_folder(out or Path("-")):
        asking = tools_predicted.Asking(student, said, batch, reasons, free)
        counts = asking.from_input(out) if data == "-" else asking.from_file(Path(data), out)
    typer.echo(counts.sentence(asking.room), err=True)
