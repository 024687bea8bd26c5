"""How often to draw from each skill next, from a graph and the latest losses: for a training loop of any kind."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from shoestring.methods.mixing.graph import Graph


def weights(
    graph: Annotated[Path, typer.Argument(help="A graph of skills, as `shoestring mixing graph` writes it.")],
    losses: Annotated[
        Path, typer.Argument(help='JSON: {"skill": loss, …} of the evaluated skills, or a list of such, oldest first.')
    ],
    rate: Annotated[float, typer.Option(min=0, help="How sharply to prefer: eta.")] = 0.5,
    floor: Annotated[float, typer.Option(min=0, max=1, help="The least weight of any skill.")] = 0.0,
    window: Annotated[int, typer.Option(min=1, help="So many of the latest measurements are looked back on.")] = 3,
    mean: Annotated[bool, typer.Option("--mean", help="Average over the window instead of summing.")] = False,
    normalize: Annotated[
        Path | None, typer.Option(help="JSON of the losses before training, which each loss is divided by.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Of the losses: a fingerprint, bytes, a folder, a Hub name; must be the graph's.")
    ] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Follow a graph that tells next to nothing.")] = False,
) -> None:
    """Print the next weights as JSON on standard output, and as a table on standard error."""
    from rich.console import Console

    from shoestring.methods.mixing.graph import Graph
    from shoestring.methods.mixing.rounds import by_name, one_hot
    from shoestring.methods.mixing.tools_show import weights_table
    from shoestring.methods.mixing.usefulness import usefulness
    from shoestring.methods.mixing.weights import alike, skill_weights, tempered

    found = Graph.load(graph, tokenizer="" if tokenizer is None else fingerprint(tokenizer))
    if tokenizer is not None and not found.tokenizer:
        typer.echo(f"warning: {graph} does not say of which tokenizer it is: nothing was compared", err=True)
    latest_losses = read(losses, found.evaluated)[-window:]
    first = None if normalize is None else _first(normalize, found)
    verdict = usefulness(found)
    given = skill_weights(found.edges, _tensor(latest_losses), rate, mean=mean, normalize_loss=first)
    title = f"weights at --rate {rate:g}, of {len(latest_losses)} measurement{'s' * (len(latest_losses) > 1)}"
    if not verdict.useful:
        given = given if anyway else alike(len(found.skills))
        said = f"{verdict.sentence.split(';')[0]}; followed --anyway" if anyway else f"{verdict.sentence} (or --anyway)"
        typer.echo(f"warning: {said}", err=True)
        title = title if anyway else "weights: all alike"
    named = by_name(found.skills, tempered(given, floor) if floor else given)
    if told := one_hot(named):
        typer.echo(f"warning: {told}: lower --rate, or give a --floor", err=True)
    latest = dict(zip(found.evaluated, latest_losses[-1], strict=True))
    Console(stderr=True).print(weights_table(named, {"latest loss": latest}, title))
    typer.echo(json.dumps(named))


def read(path: Path, evaluated: Sequence[str]) -> list[list[float]]:
    """(window, evaluated): losses in the graph's order. Raises ValueError on a skill too many or few, and on NaN."""
    from shoestring.config import nearest

    rows = _json(path)
    rows = rows if isinstance(rows, list) else [rows]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f'{path}: expected {{"skill": loss}}, or a list of one or more of those')
    for row in rows:
        for name in row:
            if name not in evaluated:
                known = f"expected {', '.join(evaluated)}"
                raise ValueError(
                    f"{path}: the graph has no evaluated skill {name!r}{nearest(name, evaluated)}: {known}"
                )
        for name in evaluated:
            if name not in row:
                raise ValueError(f"{path}: no loss of {name!r}: expected one of each of {', '.join(evaluated)}")
            value = row[name]
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{path}: the loss of {name!r} is {value!r}: expected a number, and finite")
    return [[float(row[name]) for name in evaluated] for row in rows]


def fingerprint(tokenizer: str) -> str:
    """A fingerprint as it is, else that of the tokenizer which is named."""
    from shoestring.data import tokenizers

    if re.fullmatch(r"[0-9a-f]{16}", tokenizer) and not Path(tokenizer).exists():
        return tokenizer
    return tokenizers.fingerprint(tokenizers.resolve(tokenizer, ()))


def _first(path: Path, graph: Graph) -> Any:
    rows = read(path, graph.evaluated)
    if len(rows) != 1:
        raise ValueError(f"--normalize {path}: a list of {len(rows)}: expected one loss of each skill")
    for name, value in zip(graph.evaluated, rows[0], strict=True):
        if value <= 0:
            raise ValueError(f"--normalize {path}: the loss of {name!r} is {value}: expected a number above zero")
    return _tensor(rows)[0]


def _tensor(rows: list[list[float]]) -> Any:
    import torch

    return torch.tensor(rows, dtype=torch.float64)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}): expected losses by skill") from None
