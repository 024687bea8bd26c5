"""The tools: pretrain on your own text, fine-tune on your own rows, score spans of a text, and convert a folder."""

from __future__ import annotations

import typer

from shoestring.methods.permutation.tools_convert import convert
from shoestring.methods.permutation.tools_finetune import finetune
from shoestring.methods.permutation.tools_pretrain import pretrain
from shoestring.methods.permutation.tools_score import score

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (pretrain, finetune, score, convert):
    app.command()(command)
