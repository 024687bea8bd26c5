"""Look at a graph of skills: its edges, whether it is of use, and the weights that it gives at first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Group

    from shoestring.methods.mixing.graph import Graph

LARGEST = 20  # edges listed of a graph that does not fit
ROWS, COLUMNS = 20, 8  # that fit


def show(
    graph: Annotated[Path, typer.Argument(help="A graph of skills, or a matrix: .npy, or JSON (.gz) with --matrix.")],
    picture: Annotated[Path | None, typer.Option(help="Draw it there: .svg, .png, .pdf.")] = None,
    rate: Annotated[float, typer.Option(min=0, help="How sharply to prefer: eta of the first round.")] = 0.5,
    matrix: Annotated[
        str | None, typer.Option(help="The name of a matrix (rows train, columns are evaluated) in a JSON file.")
    ] = None,
) -> None:
    """Show a graph's edges, whether it is of use, and the weights of its first round."""
    from rich.console import Console

    from shoestring.methods.mixing.picture import draw
    from shoestring.methods.mixing.usefulness import usefulness
    from shoestring.methods.mixing.weights import first_weights

    found = opened(graph, matrix)
    verdict = usefulness(found)
    first = first_weights(found.edges, rate)
    console = Console()
    console.print(edges_table(found))
    sums = dict(zip(found.skills, found.edges.sum(1).tolist(), strict=True))
    title = f"first round at --rate {rate:g}" + ("" if verdict.useful else ", were it followed")
    console.print(weights_table(dict(zip(found.skills, first.tolist(), strict=True)), {"gives in sum": sums}, title))
    typer.echo(verdict.sentence)
    if found.tokenizer:
        typer.echo(f"tokenizer: {found.tokenizer}")
    for name, fact in found.learned.items():
        typer.echo(f"{name}: {_said(name, fact)}")
    if picture is not None:
        draw(found, picture)
        typer.echo(f"{picture}: the picture")


def opened(path: Path, matrix: str | None) -> Graph:
    """A graph, or a bare matrix whose skills are numbered. Raises ValueError, naming the file, where it is neither."""
    import numpy as np

    from shoestring.methods.mixing.graph import Graph, NotAGraphError

    if matrix is None and path.suffix != ".npy":
        try:
            return Graph.load(path)
        except NotAGraphError as error:
            raise ValueError(f"{error}; of a matrix in a JSON file, say --matrix NAME") from None
    edges = _matrix(path, matrix)
    if isinstance(edges, np.ndarray) and edges.ndim != 2:
        raise ValueError(f"{path}: an array of {edges.ndim} dimensions: expected (skills, evaluated)")
    try:
        rows, columns = len(edges), len(edges[0])
        skills = [str(row) for row in range(1, rows + 1)]
        evaluated = skills if rows == columns else [f"target {column}" for column in range(1, columns + 1)]
        return Graph.of(edges, skills, evaluated)
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: no matrix of numbers ({error})") from None


def _matrix(path: Path, name: str | None) -> Any:
    """Rows of numbers from an array's file, or those under a name in a JSON file."""
    import gzip
    import json
    import zlib

    import numpy as np

    try:
        if name is None:
            return np.load(path, allow_pickle=False)
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            told = json.load(stream)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: torn, or no such file as its name says ({error})") from None
    if not isinstance(told, dict) or name not in told:
        known = ", ".join(map(str, told)) if isinstance(told, dict) else "a list"
        raise ValueError(f"{path}: no matrix {name!r}: it holds {known}")
    return told[name]


def edges_table(graph: Graph) -> Group:
    """All edges, a row a skill that is trained on, where they fit; else the largest, signs aside."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    if len(graph.skills) <= ROWS and len(graph.evaluated) <= COLUMNS:
        title = "how much training on a row lowers the loss on a column"
        drawn.add_column("trained on")
        for name in graph.evaluated:
            drawn.add_column(Text(name), justify="right")
        for skill, row in zip(graph.skills, graph.edges.tolist(), strict=True):
            drawn.add_row(Text(skill), *(f"{edge:.3g}" if edge else "·" for edge in row))
        return Group(Text(title), drawn)
    edges = [
        (value, skill, name)
        for skill, row in zip(graph.skills, graph.edges.tolist(), strict=True)
        for name, value in zip(graph.evaluated, row, strict=True)
        if value
    ]
    edges.sort(key=lambda edge: -abs(edge[0]))
    title = f"the largest {min(LARGEST, len(edges))} of {len(edges):,} edges"
    for column in ("trained on", "lowers the loss on"):
        drawn.add_column(column)
    drawn.add_column("by", justify="right")
    for value, skill, name in edges[:LARGEST]:
        drawn.add_row(Text(skill), Text(name), f"{value:.3g}")
    return Group(Text(title), drawn)


def weights_table(weights: Mapping[str, float], beside: Mapping[str, Mapping[str, float]], title: str) -> Group:
    """A row a skill, the heaviest first; beside its weight, numbers by name, where there are some of it."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    drawn.add_column("skill")
    for column in ("weight", *beside):
        drawn.add_column(column, justify="right")
    for skill in sorted(weights, key=lambda skill: -weights[skill]):
        rest = (f"{found[skill]:.4g}" if skill in found else "" for found in beside.values())
        drawn.add_row(Text(skill), f"{weights[skill]:.4f}", *rest)
    return Group(Text(title), drawn)


def _said(name: str, fact: Any) -> str:
    """What a graph says of how it was learned; costs in a fitting unit."""
    from shoestring.cost.ledger import CURRENCIES
    from shoestring.evaluate.quantities import number, unit

    if name not in CURRENCIES or not isinstance(fact, int | float):
        return str(fact)
    suits = unit(name, [fact])
    return f"{number(fact / suits.size)} {suits.name}"
