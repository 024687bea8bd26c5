"""Teach a student on your own rows and a teacher's reasons, one way, at one or several settings."""

from __future__ import annotations

from enum import StrEnum
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

MODEL = "neox-1m"  # a decoder: of what the recipe `sizes` measured, encoder-decoders from scratch learnt nothing


class Way(StrEnum):
    two_task = "two-task"
    standard = "standard"
    distilled = "distilled"
    single_task = "single-task"
    informed = "informed"


class Mode(StrEnum):
    mixed = "mixed"
    alternating = "alternating"


class Precision(StrEnum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


Data = Annotated[Path, typer.Argument(help="What `ask` or `filter` wrote, or rows of your own: .jsonl or .jsonl.gz.")]
Tokenizer = Annotated[str, typer.Option(help="Of a preset: bytes, bpe:SIZE, a folder, a Hub name; others have theirs.")]
Weights = Annotated[
    list[float] | None,
    typer.Option(min=0, help="Lambda, of the reason's loss beside the label's, 1 unless said; of several dev chooses."),
]
ModeOption = Annotated[Mode, typer.Option(help="Both tasks each step, or one a step in turn.")]
Steps = Annotated[int, typer.Option(min=1, help="Of the optimizer, at most.")]
Batch = Annotated[int, typer.Option(min=1, help="Examples of each task a step.")]
Rates = Annotated[
    list[float] | None,
    typer.Option(min=0, help="Several are tried, and dev chooses; 1e-3 of a preset unless said, 1e-4 of others."),
]
Every = Annotated[int | None, typer.Option(min=1, help="Steps between looks at dev; a 20th of --steps unless said.")]
Patience = Annotated[int, typer.Option(min=1, help="Looks at dev without a better one, after which training ends.")]
Dev = Annotated[Path | None, typer.Option(help="Rows to choose by; a tenth of DATA, by hash, unless said.")]
Test = Annotated[Path | None, typer.Option(help="Rows to report on; another tenth of DATA unless said.")]
HeldOut = Annotated[str, typer.Option(metavar="DEV,TEST", help="Rows of each that are looked at, at most.")]
Tokens = Annotated[str, typer.Option(metavar="S,T", help="Read and written at most; of longer texts the middle goes.")]
Lora = Annotated[int | None, typer.Option(min=1, help="Train adapters of this rank in a trained model; merged after.")]
PrecisionOption = Annotated[Precision, typer.Option(help="auto measures, and takes the faster.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Runs side by side; as many as fit unless said.")]


def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="The student's folder, which `from_pretrained` loads too.")],
    model: Annotated[
        str, typer.Option(help="A preset (neox-tiny … neox-12m, t5-tiny … t5-8m), a folder, a Hub name, or a .gguf.")
    ] = MODEL,
    way: Annotated[Way, typer.Option(help="What is taught; two-task is the paper's.")] = Way.two_task,
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
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="DATA has no gold labels to learn from; --dev and --test have.")
    ] = False,
    lora: Lora = None,
    tokens: Tokens = "256,96",
    tokenizer: Tokenizer = "bytes",
    parts: Annotated[
        int, typer.Option(min=1, help="Micro-batches a step's task is cut into, to need less memory.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights, the order and the adapters.")] = 0,
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
    """Teach a student. The same command goes on where it was stopped; at most a minute's training is done again.

    The step at which it is taken, the learning rate and --weight are chosen on dev, of all that are given; test is for
    the report alone. What was measured, and a picture of it, is in the folder training within --out.
    """
    given = dict(locals())
    check_folder(out)
    from shoestring.methods.rationale import tools_trained, tools_trained_report

    with leaving_no_folder(out / "training"):
        tools_trained_report.show(tools_trained.Training.of(given).done(out), out)
