"""Fine-tune a pretrained XLNet on your own rows: to classify, to find answers, to choose among options."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Task(StrEnum):
    classification = "classification"
    spans = "spans"
    choices = "choices"


_Model = Annotated[str, typer.Argument(help="An XLNet: the folder of `pretrain`, of transformers, or a Hub name.")]
_Task = Annotated[Task, typer.Option(help="The kind of rows: what each has, is said above.")]
_Train = Annotated[str, typer.Option(help="JSON lines, also .gz: a path, or a name in SHOESTRING_DATA.")]
_Out = Annotated[Path, typer.Option(help="A folder: the model is in model/ within it; the same command goes on.")]
_Dev = Annotated[str | None, typer.Option(help="Rows to choose the epoch by; a tenth of --train by hash unless said.")]
_Test = Annotated[str | None, typer.Option(help="Rows to report on, which no choice sees.")]
_Columns = Annotated[
    str | None,
    typer.Option(help="Other names for them: of the one or two texts, or of all three: article,question,options."),
]
_Label = Annotated[str, typer.Option(help="The column of what is right, of classification and choices.")]
_Rate = Annotated[
    float | None, typer.Option(min=0, help="At its peak; 3e-4 unless said, 3e-5 of a model 512 wide or more.")
]
_Decay = Annotated[float, typer.Option(min=0, max=1, help="Each layer's rate over that of the one above it.")]
_Length = Annotated[
    int | None, typer.Option(min=8, help="Tokens read at once; 128 unless said, 512 of spans and choices.")
]
_Memory = Annotated[
    int, typer.Option(min=0, help="Longer texts are read in windows, through so many remembered states; 0 cuts them.")
]


def finetune(
    model: _Model,
    task: _Task,
    train: _Train,
    out: _Out,
    dev: _Dev = None,
    test: _Test = None,
    columns: _Columns = None,
    label: _Label = "label",
    epochs: Annotated[int, typer.Option(min=1, help="Times through --train; the best on dev is taken.")] = 3,
    learning_rate: _Rate = None,
    layer_decay: _Decay = 1.0,
    batch: Annotated[int, typer.Option(min=1, help="Rows a step; of spans, windows.")] = 32,
    length: _Length = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the head and the order.")] = 0,
    memory: _Memory = 0,
) -> None:
    """Fine-tune on your own rows. The same command goes on where it was stopped; at most a minute is done again.

    classification: {text, label}, or two texts by --columns premise,hypothesis. spans: {context, question, answers:
    [{start, text}]}, or SQuAD's {text: [...], answer_start: [...]}; no answers where there is none to be found.
    choices: {context, question, options: [...], label}, by place from 0 or by letter; RACE's rows by --columns
    article,question,options --label answer.
    """
    given = dict(locals())
    from shoestring.methods.permutation import tools_finetuned
    from shoestring.methods.permutation.tools_finetune_setting import Setting

    tools_finetuned.carry_out(Setting.of(given), out)
