"""The tools: score a network of your own, rank a table of trained ones, find one for your budget."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoestring.methods.search.tools_find import find

if TYPE_CHECKING:
    from rich.table import Table

    from shoestring.methods.search.tools_score import Said

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(find)


@app.command()
def score(
    model: Annotated[
        str, typer.Argument(help="module:function, which returns the network, or a folder with a config.json.")
    ],
    batch: Annotated[str, typer.Option(help="Its shape: 128x3x32x32 for images, 8x128 for texts by length.")],
    images: Annotated[
        Path | None, typer.Option(help="A folder of pictures, an .npz, an .npy; noise unless said.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=2, help="Random tokens below this, given as input_ids.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Text for a folder with its tokenizer: a file, python, hf:NAME.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and of the batch.")] = 0,
) -> None:
    """Score an untrained network on a batch, every baseline beside it."""
    from rich.console import Console

    from shoestring.methods.search import tools_score

    if sum(given is not None for given in (images, tokens, data)) > 1:
        raise ValueError("--images, --tokens and --data are three kinds of batches: give one of them")
    sizes = tools_score.shape(batch)
    network = tools_score.network(model, seed)
    if images is not None:
        inputs = tools_score.pictures(network, images, sizes, seed)
    elif data is not None:
        inputs = tools_score.text(model, data, sizes, seed)
    else:
        inputs = tools_score.noise(sizes, tokens, seed)
    found = tools_score.said(network, inputs)
    console = Console()
    console.print(_table(found))
    for one in found:
        if one.score is not None and one.score.value == -math.inf:
            console.print(f"• {one.proxy}: {tools_score.SINGULAR}", highlight=False, markup=False)
        if one.score is None:
            console.print(f"• {one.proxy}: {one.refused}", highlight=False, markup=False)


@app.command()
def rank(
    table: Annotated[Path, typer.Argument(help="A CSV file, gzipped or not: an architecture a row, then numbers.")],
    images: Annotated[Path, typer.Option(help="A folder of pictures, an .npz, an .npy.")],
    space: Annotated[str, typer.Option(help="Whose architectures they are.")] = "nas-bench-201",
    column: Annotated[
        list[str] | None, typer.Option(help="Accuracies to compare with; all columns unless said.")
    ] = None,
    count: Annotated[int, typer.Option(min=2, help="Images a batch.")] = 128,
    side: Annotated[int, typer.Option(min=1, help="Pixels a side.")] = 32,
    rows: Annotated[int | None, typer.Option(min=1, help="So many rows, drawn by seed; all unless said.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that score side by side.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the rows drawn, the weights and the images.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder for the report; the same command again goes on.")] = Path(
        "out/rank"
    ),
) -> None:
    """Score every architecture of a table untrained: how well each proxy orders what training gave."""
    from rich.console import Console
    from rich.progress import Progress

    from shoestring.evaluate import facts, report
    from shoestring.methods.search import tools_ranked
    from shoestring.methods.search.tools_rank import Ranking

    told = facts.gather(f"shoestring {shlex.join(sys.argv[1:])}")
    ranking = Ranking(table, images, space, tuple(column or ()), rows, count, side, seed, workers, out)
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("scoring", total=None)
        ranked = ranking.found(lambda done, total: bar.update(task, completed=done, total=total))
    found = tools_ranked.report(ranked, told)
    report.write(found, out)
    console = Console(width=report.terminal_width())
    for group in found.groups():
        console.print(report.table(found, group))
    for sentence in found.notes:
        console.print(f"• {sentence}", highlight=False, markup=False)
    console.print(f"\nThe report: {out / 'report.html'}", highlight=False, soft_wrap=True)


def _table(found: list[Said]) -> Table:
    from rich import box
    from rich.table import Table

    from shoestring.evaluate.quantities import number

    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    drawn.add_column("proxy")
    for name in ("value", "size term", "shape term", "units", "seconds"):
        drawn.add_column(name, justify="right")
    for one in found:
        if one.score is not None:
            value, size, shape, units = one.score
            parts = (f"{size:.2f}", f"{shape:.2f}", f"{units:,}") if units else ("", "", "")
            drawn.add_row(one.proxy, f"{value:,.0f}" if value > 1e6 else f"{value:.6g}", *parts, number(one.seconds))
    return drawn
