"""Sort a heap of samples into skills that nobody named, by how a small model's loss on each moves while it learns."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from shoestring.methods.mixing.tools_out import check_out
from shoestring.methods.mixing.tools_sort_training import By, Progress, Training

if TYPE_CHECKING:
    from shoestring.methods.mixing.clusters import Recovered
    from shoestring.methods.mixing.documents import Sample

KNOWN = ("domain", "skill", "task")
SHOWN = 2  # samples of a skill in the table


def sort(
    data: Annotated[Path, typer.Argument(help="A .jsonl, .parquet or .txt (cut at blank lines), or a folder of such.")],
    skills: Annotated[int, typer.Option(min=2, help="How many to find.")],
    out: Annotated[Path, typer.Option(help="JSON lines: each record, and the number of its skill.")] = Path(
        "sorted.jsonl"
    ),
    by: Annotated[By, typer.Option(help="Losses, how they fall, hidden states, or counts of tokens.")] = By.losses,
    model: Annotated[str, typer.Option(help="A preset, or the folder or Hub name of a trained model.")] = "neox-tiny",
    tokenizer: Annotated[
        str | None,
        typer.Option(help="bytes (unless said), bpe:SIZE, a folder, a Hub name; a trained model has its own."),
    ] = None,
    text_field: Annotated[
        list[str] | None, typer.Option(help="Where the text is; repeated for a question and its answer.")
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="At most so many, drawn by seed; the rest is left out.")] = 2000,
    length: Annotated[int, typer.Option(min=2, help="Tokens of each sample, from its start.")] = 128,
    runs: Annotated[int, typer.Option(min=1, help="Trainings, each from another seed.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Of each training.")] = 300,
    checkpoints: Annotated[int, typer.Option(min=1, help="How often in a training the losses are taken.")] = 20,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-12, help="0.001 for a preset, 5e-05 for a trained model, unless said.")
    ] = None,
    known: Annotated[
        str | None, typer.Option(help="A field to compare with, never to sort by: domain, skill or task unless said.")
    ] = None,
    field: Annotated[str, typer.Option(help="What the number of the skill is called in --out.")] = "skill",
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of the draw, the weights and the groups.")] = 0,
) -> None:
    """Find skills in unsorted samples, and write each record with the number of its skill.

    Until it has ended, what was trained lies in a folder beside --out, and the same command goes on from there.
    """
    from rich.console import Console

    from shoestring.methods.mixing.documents import read
    from shoestring.methods.mixing.tools_sorted import recovered_table, skills_table
    from shoestring.methods.mixing.tools_watch import watching

    kept = out.with_name(f"{out.name}.trainings")
    training = Training(model, tokenizer, length, runs, steps, checkpoints, learning_rate, seed, kept)
    training.check()
    if out.resolve().is_relative_to(data.resolve()):
        raise ValueError(
            f"--out {out}: it is the data, or in its folder, where it would be read as data: write elsewhere"
        )
    check_out(out, ".jsonl")
    drawn, total = read(data, text_field or ["text"], samples, seed)
    if any(field in sample.record for sample in drawn):
        raise ValueError(f"{data}: its records have a field {field!r} already: give another --field")
    truth = told(drawn, known)
    with watching() as tell:
        found = find(drawn, skills, by, training, truth, lambda done, total: tell("steps", done, total))
    write(out, drawn, found, field)
    console = Console()
    console.print(skills_table(drawn, found, truth))
    if truth is not None:
        console.print(recovered_table(found, truth, by))
    rest = f"; --samples {total} sorts all {total:,}" if total > len(drawn) else ""
    typer.echo(f"{out}: {len(drawn):,} samples in {skills} skills by {by}{rest}")


class Truth(NamedTuple):
    """What somebody else calls the skill of each sample."""

    field: str
    values: list[str]


class Found(NamedTuple):
    """The skill of each sample, samples near the middle of each skill, and what each way recovers of a truth.

    kept  the folder of the trainings, where there were any
    """

    skills: list[int]
    typical: list[list[int]]
    recovered: dict[str, Recovered | str]
    kept: Path | None = None


def write(out: Path, samples: Sequence[Sample], found: Found, field: str) -> None:
    """Write each record with the number of its skill; the trainings it came of are needed no more."""
    from shoestring import files

    records = ({**sample.record, field: skill} for sample, skill in zip(samples, found.skills, strict=True))
    files.replace(out, "".join(json.dumps(record, default=str) + "\n" for record in records))
    if found.kept is not None:
        shutil.rmtree(found.kept, ignore_errors=True)
        with suppress(OSError):  # there may be others' trainings
            found.kept.parent.rmdir()


def find(
    samples: Sequence[Sample], skills: int, by: By, training: Training, truth: Truth | None, progress: Progress
) -> Found:
    """Group samples by one way; where a truth is known, by every way, to compare."""
    from shoestring.methods.mixing import clusters

    if len(samples) < skills:
        raise ValueError(
            f"--skills {skills} of {len(samples)} samples: ask for fewer, or give more (in a .txt: paragraphs)"
        )
    clusters.needed()
    wanted = [by] if truth is None else list(By)
    features, kept = training.features([sample.text for sample in samples], wanted, progress)
    labels = clusters.cluster(features[by], skills, training.seed)
    typical = clusters.typical(features[by], labels, SHOWN)
    found: dict[str, Recovered | str] = {}
    if truth is not None:
        for way, of_way in features.items():
            try:
                groups = labels if way is by else clusters.cluster(of_way, skills, training.seed)
            except ValueError as error:  # such as counts that are all alike: the others are still to be compared
                found[way] = str(error)
            else:
                found[way] = clusters.recovered(groups, truth.values, training.seed)
    return Found(labels.tolist(), typical, found, kept)


def told(samples: Sequence[Sample], known: str | None) -> Truth | None:
    """What the samples' own records, else their files' names, say of their skills; None where they tell none apart."""
    for field in [known] if known is not None else KNOWN:
        values = [str(sample.record[field]) for sample in samples if sample.record.get(field) is not None]
        if len(values) == len(samples) and len(set(values)) > 1:
            return Truth(field, values)
    if known is not None:
        raise ValueError(
            f"--known {known}: expected it in every record, with two values or more; {len(values)} have it"
        )
    domains = [sample.domain for sample in samples]
    return Truth("file", domains) if len(set(domains)) > 1 else None
