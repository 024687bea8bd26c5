"""The tools: merge checkpoints, sweep a run's windows, and draw what averaging would give along a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from shoestring.methods.averaging.stream import Progress

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


class Shape(StrEnum):
    linear = "linear"
    cosine = "cosine"
    sqrt = "1-sqrt"


class Dtype(StrEnum):
    float64 = "float64"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


_Run = Annotated[Path, typer.Argument(help="A run's folder with checkpoints in it: ours, the HF Trainer's, step1000 …")]
_As = Annotated[Dtype | None, typer.Option(help="Type of the averaged floats; float64 also sums in it.")]


@app.command()
def merge(
    checkpoints: Annotated[
        list[str], typer.Argument(help="Oldest first: folders, files, Hub names (name@step1000), or one run.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not exist yet.")],
    last: Annotated[int | None, typer.Option(min=1, help="Only the last so many.")] = None,
    shape: Annotated[Shape, typer.Option(help="The cool-down to imitate; linear weighs all alike.")] = Shape.linear,
    weights: Annotated[str | None, typer.Option(help="One a checkpoint instead, such as 1,2,4.")] = None,
    dtype: _As = None,
) -> None:
    """Average checkpoints on disk into a folder that `from_pretrained` loads, in the memory of a few blocks."""
    from shoestring.methods.averaging import decay_weights
    from shoestring.methods.averaging import merge as merge_files
    from shoestring.methods.averaging.doubts import doubts

    sources = _sources(checkpoints)[-last if last else None :]
    if len(sources) < 2 and Path(sources[0]).exists():
        raise ValueError(f"{sources[0]}: the only checkpoint; an average takes two or more")
    shares = _numbers(weights) if weights else decay_weights(len(sources), shape.value)
    for sentence in doubts(sources):
        typer.echo(f"warning: {sentence}", err=True)
    with _progress("merging") as progress:
        merge_files(sources, out, shares, _torch(dtype), progress=progress)
    names = f"{Path(sources[0]).name} to {Path(sources[-1]).name}"
    typer.echo(f"{out}: the mean of {len(sources)} checkpoints, {names}, for evaluation or a fresh optimizer")
    if not (out / "config.json").exists():
        typer.echo(f"{out}: weights alone; put the model's config.json beside them to load it by name", err=True)


@app.command()
def sweep(
    run: _Run,
    out: Annotated[Path, typer.Option(help="The folder to write the averages into, one folder a window.")],
    count: Annotated[int, typer.Option(min=1, help="Checkpoints a window.")] = 5,
    stride: Annotated[int, typer.Option(min=1, help="Checkpoints from one member of a window to the next.")] = 1,
    dtype: _As = None,
) -> None:
    """Average every window of a run, reading each checkpoint once."""
    from shoestring.methods.averaging import sweep as sweep_files

    with _progress("sweeping") as progress:
        folders = sweep_files(run, out, count, stride, _torch(dtype), progress=progress)
    typer.echo(f"{out}: {len(folders)} averages, {folders[0].name} to {folders[-1].name}")


@app.command()
def curve(
    run: _Run,
    data: Annotated[
        str, typer.Option(help="Held-out text: a file, scored whole; or a folder, python, hf:NAME: the dev part.")
    ],
    out: Annotated[Path, typer.Option(help="The folder for the report; the same command again goes on.")] = Path(
        "out/curve"
    ),
    count: Annotated[int, typer.Option(min=2, help="Checkpoints a window.")] = 5,
    stride: Annotated[int, typer.Option(min=1, help="Checkpoints from one member of a window to the next.")] = 1,
    shape: Annotated[Shape, typer.Option(help="The cool-down to imitate.")] = Shape.linear,
    tokens: Annotated[int, typer.Option(min=1, help="At most so many tokens are scored.")] = 65536,
    length: Annotated[
        int | None, typer.Option(min=2, help="Tokens a window of text; the model's context, to 1024, unless said.")
    ] = None,
) -> None:
    """What if I cooled down now: the loss of each checkpoint beside that of the average that ends with it."""
    from rich.console import Console

    from shoestring.evaluate import report
    from shoestring.evaluate.savings import savings
    from shoestring.methods.averaging.tools_curve import Curve

    found = Curve(run, data, out, count, stride, shape.value, tokens, length).report()
    report.write(found, out)
    console = Console(width=report.terminal_width())
    console.print(report.table(found))
    for sentence in (*savings(found), *found.notes):
        console.print(f"• {sentence}", highlight=False)
    console.print(f"\nThe report: {out / 'report.html'}", highlight=False, soft_wrap=True)


def _sources(named: list[str]) -> list[str]:
    """One folder that is no checkpoint itself is a run, whose checkpoints are meant."""
    from shoestring.methods.averaging.checkpoints import find, holds_weights

    if len(named) == 1 and Path(named[0]).is_dir() and not holds_weights(Path(named[0])):
        return [str(path) for path in find(named[0])]
    return named


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--weights {text!r}: expected numbers with commas between, such as 1,2,4") from None


def _torch(dtype: Dtype | None) -> torch.dtype | None:
    import torch

    types = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return None if dtype is None else types[dtype.value]


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Bar(*columns, console=Console(stderr=True))
    task = bar.add_task(what, total=None)

    def show(done: int, total: int) -> None:
        bar.start()  # only now: what is refused at once shows no bar
        bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        bar.stop()
