"""The tools: ask a teacher for reasons, filter them, teach a student by them, ask the student, and take it along."""

from __future__ import annotations

import typer

from shoestring.methods.rationale.tools_ask import ask
from shoestring.methods.rationale.tools_curve import curve
from shoestring.methods.rationale.tools_export import export
from shoestring.methods.rationale.tools_filter import filter_rows
from shoestring.methods.rationale.tools_predict import predict
from shoestring.methods.rationale.tools_train import train

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(ask)
app.command("filter")(filter_rows)
for command in (train, predict, curve, export):
    app.command()(command)
