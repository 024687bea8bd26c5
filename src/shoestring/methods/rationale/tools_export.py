"""Take a student along: as ONNX graphs that onnxruntime computes on a CPU, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoestring.methods.rationale.tools_out import check_file, leaving_no_folder


def export(
    student: Annotated[Path, typer.Argument(help="The folder of a student, or of a finished run.")],
    onnx: Annotated[
        Path, typer.Option(help="The file to write, an .onnx; of an encoder-decoder two: FILE.decoder.onnx.")
    ],
    int8: Annotated[
        bool, typer.Option("--int8", help="Weights in eight bits: smaller, and a little different.")
    ] = False,
) -> None:
    """Write a student as ONNX graphs with its tokenizer and its words in them: `predict FILE.onnx` answers by them.

    Labels by likelihood and as written, reasons, any number of rows, any length. What the graphs compute is compared
    with torch before they are put in place.
    """
    check_file(onnx, ".onnx", option="--onnx")
    from shoestring.methods.rationale.exported import decoder_of
    from shoestring.methods.rationale.exporting import export as export_graphs
    from shoestring.methods.rationale.exporting import wrote
    from shoestring.methods.rationale.remembered import noted, remembered
    from shoestring.methods.rationale.student import Student
    from shoestring.methods.rationale.tools_student import folder_of

    folder = folder_of(student)
    form, loaded = remembered(folder), Student.load(folder)
    for path in (onnx, decoder_of(onnx)) if loaded.coder.family == "encoder-decoder" else (onnx,):
        if path.exists() and not wrote(path):
            raise ValueError(f"--onnx {onnx}: {path} holds what no export wrote: give another name, or delete it")
    with leaving_no_folder(onnx):
        written = export_graphs(loaded, onnx, {"form": None if form is None else noted(form)}, int8)
    for path in written.files:
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.3g} MB")
    typer.echo(f"log-likelihoods differ from torch's by a part of {written.difference:.1g} at most, on two texts")
