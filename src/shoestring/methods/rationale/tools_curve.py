"""How good students become with how many labels, and of what size: every way beside its twin, on your own rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoestring.methods.rationale.tools_form import (
    Column,
    Expression,
    FormName,
    Label,
    Option,
    Options,
    Rationale,
    TeacherLabel,
)
from shoestring.methods.rationale.tools_out import check_folder, leaving_no_folder
from shoestring.methods.rationale.tools_train import (
    Batch,
    Data,
    Dev,
    Every,
    HeldOut,
    Lora,
    Mode,
    ModeOption,
    Patience,
    Precision,
    PrecisionOption,
    Rates,
    Steps,
    Test,
    Tokenizer,
    Tokens,
    Weights,
    Workers,
)

ARMS = "standard, distilled, matched, single-task, informed, shuffled, two-task, human, agreeing"

_Fractions = Annotated[str, typer.Option(help="Of the rows to train on, with commas between.")]
_Models = Annotated[list[str] | None, typer.Option("--model", help="Repeated, for accuracy against size; as in train.")]
_Arms = Annotated[
    str, typer.Option(help=f"With commas between: {ARMS}. matched: the standard way with two-task's compute.")
]
_Seeds = Annotated[int, typer.Option(min=1, help="Runs of each.")]


def curve(
    data: Data,
    out: Annotated[Path, typer.Option(help="The folder for the report; the same command again goes on.")],
    fractions: _Fractions = "0.125,0.25,0.5,1",
    model: _Models = None,
    arms: _Arms = "standard,matched,two-task",
    seeds: _Seeds = 3,
    weight: Weights = None,
    mode: ModeOption = Mode.mixed,
    steps: Steps = 1000,
    batch: Batch = 32,
    learning_rate: Rates = None,
    every: Every = None,
    patience: Patience = 10,
    dev: Dev = None,
    test: Test = None,
    held_out: HeldOut = "1000,2000",
    lora: Lora = None,
    tokens: Tokens = "256,96",
    tokenizer: Tokenizer = "bytes",
    precision: PrecisionOption = Precision.auto,
    workers: Workers = None,
    form: FormName = None,
    column: Column = None,
    label: Label = None,
    option: Option = None,
    options: Options = None,
    expression: Expression = False,
    rationale: Rationale = None,
    teacher_label: TeacherLabel = None,
) -> None:
    """Accuracy against the number of labels and against size, as in the paper's figures, with what it all cost.

    Of several learning rates, and of several of --weight, each arm gets its own, chosen on dev by seeds that no row is
    of.
    """
    given = dict(locals())
    check_folder(out)
    from shoestring.methods.rationale import tools_curved

    with leaving_no_folder(out / "runs"):
        tools_curved.run(tools_curved.recipe(given), out)
