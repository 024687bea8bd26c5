"""Any folder of an XLNet as one that both bodies load, once they are seen to give the same numbers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Dtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


_Model = Annotated[
    str, typer.Argument(help="An XLNet's folder, of any head: ours, a checkpoint's, transformers', .bin; a Hub name.")
]
_Out = Annotated[Path, typer.Option(help="The folder to write; it must not exist yet.")]
_Dtype = Annotated[Dtype | None, typer.Option(help="Type of the weights written; as they are stored unless said.")]


def convert(model: _Model, out: _Out, dtype: _Dtype = None) -> None:
    """Compare our two-stream body with transformers' own on the same weights, and write them as safetensors.

    Both read random batches in fp32, one after the other through the memory, each with a random order and targets. A
    difference above 1e-4 is refused, and nothing is written. The folder is of transformers; `from_transformers` gives
    what is loaded from it our body. A tokenizer comes along where there is one.
    """
    if out.exists():
        raise ValueError(f"--out {out}: it exists already: give the name of a new folder")
    from shoestring.methods.permutation import tools_converted

    found = tools_converted.converted(model, out, None if dtype is None else dtype.value)
    typer.echo(f"largest difference: {found.difference:.2g} in {found.what}, of magnitudes up to {found.largest:.2g}")
    typer.echo(f"{out}: {found.kind}, {found.parameters:,} parameters in {found.dtype}{found.left_out}")
    if found.dtype != "float32":
        typer.echo(
            "transformers loads some weights of any XLNet as float32, and its own body then fails: load with "
            f"dtype=torch.float32, or say .to(torch.{found.dtype}) of what is loaded"
        )
