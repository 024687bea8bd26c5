"""Find an architecture: draw, score, rank, and write the best as what a run takes."""

from __future__ import annotations

import math
import re
import shlex
import shutil
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from shoestring.methods.search.score import Score

SHOWN = 10


class SpaceName(StrEnum):
    decoder = "decoder"
    nas_bench_201 = "nas-bench-201"
    nas_bench_101 = "nas-bench-101"
    nas_bench_macro = "nas-bench-macro"
    sizes = "sizes"
    darts = "darts"


def find(
    space: Annotated[SpaceName, typer.Option(help="What to draw from: language models, or networks for images.")] = (
        SpaceName.decoder
    ),
    max_params: Annotated[
        str | None, typer.Option(help="At most so many parameters, embedding included: 500k, 5M, 1.5B. Decoders only.")
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(help="At most so long for a forward pass here over one text or image: 500us, 20ms, 1s."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Text for decoders: a file, a folder, python, hf:NAME.")] = None,
    tokenizer: Annotated[str, typer.Option(help="bytes, bpe:SIZE (trained on the text), a folder, a Hub name.")] = (
        "bytes"
    ),
    length: Annotated[int, typer.Option(min=2, help="Tokens of the model's context and of each scored text.")] = 128,
    images: Annotated[
        Path | None, typer.Option(help="Images for the other spaces: a folder, an .npz, an .npy.")
    ] = None,
    draws: Annotated[
        int, typer.Option(min=1, help="Architectures to score; the same command with more goes on.")
    ] = 200,
    proxy: Annotated[str | None, typer.Option(help="What to rank by; the room's choice for the space unless said.")] = (
        None
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the draws, the weights and the batch.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that score side by side.")] = 1,
    out: Annotated[Path, typer.Option(help="The folder to write; the same command again goes on.")] = Path("out/find"),
) -> None:
    """Draw untrained networks, score them on your data, and write the best as a configuration to train."""
    from rich.console import Console

    from shoestring.methods.search.tools_draws import Wanted, best, write

    wanted = Wanted(
        space=space.value,
        max_parameters=None if max_params is None else count(max_params),
        max_seconds=None if max_latency is None else seconds(max_latency),
        data=data,
        tokenizer=tokenizer,
        length=length,
        images=images,
        draws=draws,
        proxy=proxy,
        seed=seed,
        workers=workers,
        out=out,
    )
    found = best(wanted, lambda sentence: typer.echo(sentence, err=True))
    console = Console(width=shutil.get_terminal_size((120, 24)).columns)
    console.print(table(found.ranked, found.proxy))
    write(wanted, found)
    text = next(iter(found.ranked))
    typer.echo(f"{out}: {text}, the best of {len(found.ranked)} by {found.proxy}")
    if space is SpaceName.decoder:
        assert data is not None
        typer.echo(f"train it: {training(out, data, length)}")
    else:
        typer.echo(f"build it: `space.build(space.decode(text), seed)` with the text of {out / 'architecture.txt'}")


def count(text: str) -> int:
    """A number of parameters. Raises ValueError on what is none, or is not positive."""
    powers = {"": 0, "k": 3, "m": 6, "b": 9, "g": 9}
    number, power = _quantity(text, powers, f"--max-params {text!r}: expected a number such as 500k, 5M or 1.5B")
    return round(number * 10.0**power)


def seconds(text: str) -> float:
    """A duration. Raises ValueError on what is none, has no unit, or is not positive."""
    powers = {"s": 0, "ms": -3, "us": -6}
    number, power = _quantity(text, powers, f"--max-latency {text!r}: expected a duration such as 500us, 20ms or 1s")
    return float(f"{number}e{power}")


def _quantity(text: str, powers: dict[str, int], refusal: str) -> tuple[float, int]:
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower(), flags=re.ASCII)
    if parts is None or parts[2] not in powers or not float(parts[1]) > 0:
        raise ValueError(refusal)
    return float(parts[1]), powers[parts[2]]


def training(out: Path, data: str, length: int) -> str:
    """A command that trains what was found, on the text it was found with."""
    folder = shlex.quote(str(out))
    text = f"text.source={shlex.quote(data)} text.tokenizer={folder} text.length={length}"
    return f"shoestring run averaging cpu model={folder} {text}"


def table(ranked: dict[str, dict[str, Score]], proxy: str) -> Table:
    """The best ten and all their values; what they are ranked by comes first."""
    from rich import box
    from rich.table import Table

    names = [proxy, *(name for name in next(iter(ranked.values())) if name != proxy)]
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    drawn.add_column("", justify="right")
    drawn.add_column("architecture", overflow="fold")
    for name in names:
        drawn.add_column(name.replace("_", " "), justify="right", overflow="fold")
    for place, (text, values) in enumerate(list(ranked.items())[:SHOWN], start=1):
        words = text.replace(",", ", ")  # where a narrow terminal may break it; decoding takes it so too
        drawn.add_row(str(place), words, *(shown(values[name].value) for name in names))
    return drawn


def shown(value: float) -> str:
    """Four digits; from ten thousand on with k, M, G, T in the place of more."""
    if not math.isfinite(value) or abs(value) < 1e4:
        return f"{value:.4g}"
    power = min(math.floor(math.log10(abs(value)) / 3), 4)
    return f"{value / 1000**power:.4g}{'kMGT'[power - 1]}"
