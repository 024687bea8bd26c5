"""How likely spans of a text are, each as a whole, by a model pretrained by permutation or on masks."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Order(StrEnum):
    left_to_right = "left-to-right"
    right_to_left = "right-to-left"


_Model = Annotated[str, typer.Argument(help="A language model: the folder of `pretrain`, of transformers, a Hub name.")]
_Text = Annotated[str | None, typer.Option(help="A text, with --span.")]
_Span = Annotated[
    list[str] | None,
    typer.Option(metavar="FROM:TO", help="Characters of --text, from 0 to before TO; may be repeated."),
]
_File = Annotated[
    Path | None, typer.Option(help="Instead: JSON lines (also .gz) of {text, spans: \\[\\[from, to], ...]}.")
]
_Order = Annotated[Order, typer.Option(help="In which a span's tokens are told, each knowing those before it.")]
_Out = Annotated[
    Path | None, typer.Option(help="A new .jsonl; what --file asks for goes to standard output unless said.")
]


def score(
    model: _Model,
    text: _Text = None,
    span: _Span = None,
    file: _File = None,
    order: _Order = Order.left_to_right,
    out: _Out = None,
) -> None:
    """The joint log-probability of each span given all the rest of its text, token by token, in nats.

    Whole tokens are scored: those that overlap the span. A folder of `pretrain` says by which objective; of any other,
    permutation is taken for granted. A model of masks is told a span token by token, in as many passes.
    """
    from shoestring.methods.permutation import tools_scored

    asked = tools_scored.asked(text, span or [], file)
    tools_scored.tell(tools_scored.scored(model, asked, order.value), out, table=file is None)
