"""Pretrain an XLNet on your own text, from its start or on from a folder, by any of the objectives."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

NEW_MODEL, NEW_TOKENIZER = "xlnet-1m", "bpe:8192"


class Objective(StrEnum):
    permutation = "permutation"
    masked = "masked"
    autoregressive = "autoregressive"
    mpnet = "mpnet"


class Spans(StrEnum):
    words = "words"
    tokens = "tokens"
    single = "single"


class Segments(StrEnum):
    two = "two"
    one = "one"


class Precision(StrEnum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


_Text = Annotated[
    list[str],
    typer.Argument(help="Files (.txt, .jsonl, .parquet, also .gz), folders, paths with {split}, python, hf:NAME."),
]
_Field = Annotated[str, typer.Option(help="Where the text is, in .jsonl, .parquet and hf:NAME.")]
_Out = Annotated[Path, typer.Option(help="A folder: the model is in model/ within it; the same command goes on.")]
_Model = Annotated[
    str, typer.Option(help="A new one: xlnet-tiny, -1m, -4m, -base, -large; or a folder or Hub name to go on from.")
]
_Tokenizer = Annotated[
    str | None,
    typer.Option(help=f"Of a new model: bytes, bpe:SIZE, a SentencePiece .model, a folder; {NEW_TOKENIZER} if unsaid."),
]
_Objective = Annotated[
    Objective,
    typer.Option(
        help="masked is BERT's with --memory 0 --spans single --one-direction; mpnet adds position compensation."
    ),
]
_Length = Annotated[int, typer.Option(min=10, help="Tokens a sequence.")]
_Reuse = Annotated[int | None, typer.Option(min=1, help="By which a row goes on; half of --length unless said.")]
_Memory = Annotated[int | None, typer.Option(min=0, help="States looked back on; 3/4 of --length unless said.")]
_Predicted = Annotated[
    int | None, typer.Option(min=1, help="Of a sequence; a sixth of --length unless said, 15 % of masked.")
]
_Batch = Annotated[int, typer.Option(min=1, help="Rows a step, half of them read from right to left.")]
_Rate = Annotated[
    float | None, typer.Option(min=0, help="At its peak; 1e-3 of a new model unless said, 1e-4 of a folder's.")
]
_Warmup = Annotated[int | None, typer.Option(min=0, help="Steps; a 20th of --steps unless said. The last half decays.")]
_Spans = Annotated[Spans | None, typer.Option(help="What is predicted: whole words, spans of tokens, single ones.")]
_Segments = Annotated[Segments | None, typer.Option(help="two, with separators and the class token; or one.")]
_OneWay = Annotated[bool, typer.Option("--one-direction", help="Read no row from right to left.")]
_Precision = Annotated[Precision, typer.Option(help="auto measures, and takes the faster.")]
_Checkpointing = Annotated[bool, typer.Option("--checkpointing", help="Compute activations again: less memory.")]
_Accumulate = Annotated[int, typer.Option(min=1, help="Parts of a step, one after the other: less memory.")]


def pretrain(
    text: _Text,
    out: _Out,
    model: _Model = NEW_MODEL,
    tokenizer: _Tokenizer = None,
    objective: _Objective = Objective.permutation,
    length: _Length = 512,
    reuse: _Reuse = None,
    memory: _Memory = None,
    predicted: _Predicted = None,
    batch: _Batch = 16,
    steps: Annotated[int, typer.Option(min=2, help="Of the optimizer.")] = 1000,
    learning_rate: _Rate = None,
    warmup: _Warmup = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and of what is drawn.")] = 0,
    spans: _Spans = None,
    segments: _Segments = None,
    one_direction: _OneWay = False,
    precision: _Precision = Precision.auto,
    checkpointing: _Checkpointing = False,
    accumulate: _Accumulate = 1,
    text_field: _Field = "text",
) -> None:
    """Pretrain on your own text. The same command goes on where it was stopped; at most a minute is done again.

    A document is a row of a table, or of plain text what stands between blank lines, 4 to 64 KB of it. Files named
    after train, dev and test are that, of all that is given; what is not, and train where nothing is dev, is cut by a
    hash of each document: a twentieth is dev, and another is left alone, for a test of your own. Dev is measured
    before, along the way and after: the objective's own loss, in nats per predicted token, which objectives do not
    share. DIR/model is a folder of transformers. For several GPUs: torchrun --standalone --nproc_per_node N -m
    shoestring permutation ...
    """
    given = dict(locals())
    from shoestring.methods.permutation import tools_pretrained
    from shoestring.methods.permutation.tools_pretrain_setting import Setting

    tools_pretrained.carry_out(Setting.of(given), out)
