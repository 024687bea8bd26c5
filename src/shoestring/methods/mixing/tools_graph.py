"""Learn the graph of your own skills: which text helps which, by short trainings from one start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoestring.methods.mixing.tools_out import check_out

if TYPE_CHECKING:
    from rich.table import Table

    from shoestring.cost import Cost
    from shoestring.methods.mixing.tools_learned import Learned


class How(StrEnum):
    approximate = "approximate"
    brute = "brute"


class Precision(StrEnum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Value(StrEnum):
    gain = "gain"
    relative = "relative"
    constant = "constant"


_Data = Annotated[
    list[str],
    typer.Argument(
        help="One source whose documents carry a domain, or several, each a skill: .txt, .jsonl, .parquet (.gz), "
        "folders, python, hf:NAME; name=path calls one otherwise than its file."
    ),
]
_Out = Annotated[Path, typer.Option(help="The graph, a .json; a picture .svg comes beside it.")]
_Model = Annotated[
    str, typer.Option(help="A preset, trained first on all skills alike, or the folder or Hub name of a trained model.")
]
_Tokenizer = Annotated[
    str | None, typer.Option(help="bytes (unless said), bpe:SIZE, a folder, a Hub name; a trained model has its own.")
]
_How = Annotated[How, typer.Option(help="approximate: each skill alone; brute: pairs too, many more trainings.")]
_Evaluated = Annotated[
    list[str] | None, typer.Option(help="A skill whose loss is measured; may be repeated; all unless said.")
]
_Apart = Annotated[bool, typer.Option("--out-of-domain", help="The evaluated skills are not trained on.")]
_Rate = Annotated[
    float | None, typer.Option(min=1e-12, help="0.001 for a preset, 5e-05 for a trained model, unless said.")
]
_Folder = Annotated[Path | None, typer.Option(help="Keeps each training as it ends; beside --out unless said.")]


def graph(
    data: _Data,
    out: _Out = Path("graph.json"),
    model: _Model = "neox-tiny",
    tokenizer: _Tokenizer = None,
    how: _How = How.approximate,
    steps: Annotated[int, typer.Option(min=1, help="Of each training.")] = 100,
    base_steps: Annotated[int, typer.Option(min=0, help="Of a preset on all skills, before.")] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each mixture; an edge has one sign in all.")] = 3,
    evaluated: _Evaluated = None,
    out_of_domain: _Apart = False,
    held_out: Annotated[int, typer.Option(min=1, help="Windows that each loss is measured on, at most.")] = 128,
    length: Annotated[int, typer.Option(min=2, help="Tokens a window.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Windows a step.")] = 16,
    learning_rate: _Rate = None,
    value: Annotated[Value, typer.Option(help="Of an edge: nats gained, over the loss before, or 0.5.")] = Value.gain,
    signed: Annotated[bool, typer.Option("--signed", help="Keep edges below zero.")] = False,
    precision: Annotated[Precision, typer.Option(help="auto measures, and takes the faster.")] = Precision.auto,
    workers: Annotated[int, typer.Option(min=1, help="Trainings side by side.")] = 1,
    folder: _Folder = None,
    text_field: Annotated[str, typer.Option(help="Where the text is, in .jsonl, .parquet and hf:NAME.")] = "text",
) -> None:
    """Learn which skills help which. The same command again goes on, and pays for no training twice.

    DATA: one source whose documents carry a domain, which are the skills; or several sources, each a skill. A source is
    a file, a folder, python, or hf:NAME; name=path calls a skill otherwise than its file.
    """
    check_out(out, ".json")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("graph runs in one process: start it without torchrun, and say --workers for several")
    from shoestring.methods.mixing.tools_learned import Wanted
    from shoestring.methods.mixing.tools_trainings import Start
    from shoestring.methods.mixing.tools_watch import watching

    wanted = Wanted(
        data=tuple(data),
        base=Start.of(model, base_steps, batch, learning_rate),
        tokenizer=tokenizer,
        how=how.value,
        steps=steps,
        seeds=seeds,
        evaluated=tuple(evaluated or ()),
        out_of_domain=out_of_domain,
        held_out=held_out,
        length=length,
        value=value.value,
        signed=signed,
        precision=precision.value,
        workers=workers,
        folder=folder or out.with_name(f"{out.stem}.trainings"),
        text_field=text_field,
    )
    with watching() as tell:
        found = wanted.learned(tell, lambda sentence: typer.echo(f"warning: {sentence}", err=True))
    _leave(found, out)


def cost_table(costs: Mapping[str, Cost]) -> Table:
    """A row for what was paid for, and one for all of it. seconds: of all processes, added up."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from shoestring.cost import Cost
    from shoestring.evaluate.quantities import number, unit

    rows = {**costs, "in all": sum(costs.values(), Cost())}
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    drawn.add_column("what it cost")
    units = {
        currency: unit(currency, [getattr(cost, currency) for cost in rows.values()])
        for currency in ("flops", "tokens", "seconds")
    }
    for one in units.values():
        drawn.add_column(one.name, justify="right")
    for name, cost in rows.items():
        drawn.add_row(Text(name), *(number(getattr(cost, currency) / one.size) for currency, one in units.items()))
    return drawn


def _leave(found: Learned, out: Path) -> None:
    """Write the graph and its picture, and say what was found."""
    from rich.console import Console

    from shoestring.methods.mixing.picture import draw
    from shoestring.methods.mixing.tools_show import edges_table
    from shoestring.methods.mixing.usefulness import usefulness

    picture = out.with_suffix(".svg")
    found.graph.save(out)
    draw(found.graph, picture)
    console = Console()
    console.print(edges_table(found.graph))
    console.print(cost_table(found.costs))
    paid = f"{found.trained} run now, {found.trainings - found.trained} found in {found.folder}"
    typer.echo(f"{found.trainings} runs, the base of each seed among them: {paid}")
    typer.echo(usefulness(found.graph).sentence)
    typer.echo(f"{out}: a graph of {len(found.graph.skills)} skills; its picture: {picture}")
