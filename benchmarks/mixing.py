r"""Samples a second from mixed sources: ours, and `datasets.interleave_datasets`. Ratios come last.

    python benchmarks/mixing.py --json results/benchmarks/mixing.json

Four Hugging Face data sets of the same made rows, 128 token ids each, mixed by the same weights into batches of 32.
`rows` are data sets that are fetched by number, in torch's format, which is the fastest for the peer. `streams` are
iterable ones of four shards: the peer with the format that ours reads (`torch format`), with lists that one call makes
a tensor of, and without a loader, by its own batches of arrays; ours is held to the fastest. The peer is read by a
torch `DataLoader` in this process, ours as it is, both without workers. They take turns, the first another each
round; what is made once (the peer's table of indices, the data sets themselves) is not clocked. The peer draws at
random and gives rows in their order, or `shuffled`, as one would train on them; ours keeps to the weights, and shuffles
each epoch of rows. A ratio is the median over the rounds; so are the rates.

Further: ours where weights change every tenth batch; microseconds a draw, and a change of weights, by the number of
sources; microseconds of re-weighing by a graph (`skill_weights`), of a whole round of the hook `SkillIt` on a mixture,
but for the measurement, and what the next batch takes more than others, by the number of skills.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import interleave_datasets
from torch.utils.data import DataLoader

from shoestring.evaluate.facts import gather
from shoestring.methods.mixing import Graph, Mixture, SkillIt, skill_weights
from shoestring.methods.mixing.draws import Draws
from shoestring.types import Run

WEIGHTS = {"code": 0.1, "books": 0.2, "web": 0.3, "papers": 0.4}
LENGTH, BATCH, SHARDS = 128, 32, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="each reads the batches once by every contender")
    parser.add_argument("--rows", type=int, default=5000, help="of each source")
    parser.add_argument("--batches", type=int, default=200, help="read a round, of 32 samples")
    parser.add_argument("--draws", type=int, default=100_000, help="clocked for each number of sources")
    parser.add_argument("--json", type=Path, help="keep the rows here")
    arguments = parser.parse_args()
    for name in ("rounds", "rows", "batches", "draws"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} is {getattr(arguments, name)}: expected one or more")
    if arguments.rows < SHARDS:
        parser.error(f"--rows is {arguments.rows}: expected {SHARDS} or more, one for each shard")
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    rows = [*rates(arguments), *draws(arguments), *reweighing(arguments)]
    show(rows)
    if arguments.json:
        keep(arguments.json, rows)


# samples a second


def rates(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each contender of each kind of source."""
    made = sources(arguments.rows)
    streams = {name: one.to_iterable_dataset(num_shards=SHARDS) for name, one in made.items()}
    weights = list(WEIGHTS.values())
    whole = interleave_datasets(list(made.values()), probabilities=weights, seed=0, stopping_strategy="all_exhausted")
    endless = interleave_datasets(
        list(streams.values()), probabilities=weights, seed=0, stopping_strategy="all_exhausted"
    )
    formatted = endless.with_format("torch")  # it loses that of its sources
    arrays = endless.with_format("numpy")
    kinds: dict[str, dict[str, Callable[[], Iterable[Any]]]] = {
        "rows": {
            "ours": lambda: Mixture(made, WEIGHTS, batch_size=BATCH),
            "interleave_datasets": lambda: over(lambda: DataLoader(whole, batch_size=BATCH)),
            "interleave_datasets, shuffled": lambda: over(lambda: DataLoader(whole, batch_size=BATCH, shuffle=True)),
            "ours, weights change": lambda: changing(made),
        },
        "streams": {
            "ours": lambda: Mixture(streams, WEIGHTS, batch_size=BATCH),
            "interleave_datasets": lambda: over(lambda: DataLoader(endless, batch_size=BATCH, collate_fn=together)),
            "interleave_datasets, torch format": lambda: over(lambda: DataLoader(formatted, batch_size=BATCH)),
            "interleave_datasets, its own batches": lambda: over(lambda: map(tensors, arrays.iter(BATCH))),
        },
    }
    return [row for kind, contenders in kinds.items() for row in compare(kind, contenders, arguments)]


def sources(rows: int) -> dict[str, Any]:
    numbers = np.random.default_rng(0)
    return {
        name: datasets.Dataset.from_dict(
            {"input_ids": numbers.integers(0, 50_000, (rows, LENGTH)).tolist()}
        ).with_format("torch")
        for name in WEIGHTS
    }


def compare(
    kind: str, contenders: dict[str, Callable[[], Iterable[Any]]], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """The contenders in turns. Raises RuntimeError where one gives another shape of batch."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(arguments.rounds + 1):  # the first is a warm-up
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken = clocked(contenders[name], arguments.batches)
            if number:
                seconds[name].append(taken)
        print(f"{kind}: {number} of {arguments.rounds}", file=sys.stderr, flush=True)
    found = []
    for name, times in seconds.items():
        ratios = [other / own for other, own in zip(times, seconds["ours"], strict=True)]
        row = {"measured": f"{kind}, {name}", "rounds": len(times), "samples": arguments.batches * BATCH}
        row["samples/s"] = round(arguments.batches * BATCH / statistics.median(times))
        row["ours / it"] = round(statistics.median(ratios), 3)
        found.append(row)
    return found


def clocked(contender: Callable[[], Iterable[Any]], batches: int) -> float:
    started = time.perf_counter()
    shapes = {tuple(batch["input_ids"].shape) for batch in islice(contender(), batches)}
    taken = time.perf_counter() - started
    if shapes != {(BATCH, LENGTH)}:
        raise RuntimeError(f"void: batches of {sorted(shapes)}: expected all ({BATCH}, {LENGTH})")
    return taken


def over(start: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """Whole batches over and over: the peer ends with its table."""
    while True:
        for batch in start():
            if len(batch["input_ids"]) == BATCH:
                yield batch


def together(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch of samples that are lists, in one call: `default_collate` makes a tensor of each place instead."""
    return {"input_ids": torch.tensor([sample["input_ids"] for sample in samples])}


def tensors(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(values)) for name, values in batch.items()}


def changing(made: dict[str, Any]) -> Iterator[Any]:
    mixture = Mixture(made, WEIGHTS, batch_size=BATCH)
    turned = dict(zip(WEIGHTS, reversed(WEIGHTS.values()), strict=True))
    for number, batch in enumerate(mixture, 1):
        if not number % 10:
            mixture.set_weights(turned if number % 20 else WEIGHTS)
        yield batch


# draws


def draws(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Microseconds of a draw and of a change of weights."""
    found = []
    for count in (2, 10, 100, 1000):
        raw = np.random.default_rng(count).random(count)
        weights = (raw / raw.sum()).tolist()
        drawn = Draws(weights)
        each, change = [], []
        for _ in range(arguments.rounds):
            started = time.perf_counter()
            drawn.take(arguments.draws)
            each.append((time.perf_counter() - started) / arguments.draws)
            started = time.perf_counter()
            drawn.set_weights(weights)
            change.append(time.perf_counter() - started)
        row = {"measured": f"draws from {count}", "rounds": arguments.rounds}
        row["us/draw"] = round(1e6 * statistics.median(each), 2)
        row["us/Draws.set_weights"] = round(1e6 * statistics.median(change), 1)
        found.append(row)
    return found


def reweighing(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Microseconds of new weights from a graph, of the hook that sets them, and of the draw that is planned anew."""
    found = []
    for count in (10, 100, 1000):
        numbers = np.random.default_rng(count)
        names = [f"skill {number}" for number in range(count)]
        edges = numbers.random((count, count)) * (numbers.random((count, count)) < 0.5) / count
        graph = Graph.of(edges, names)
        losses = dict(zip(names, numbers.random(count).tolist(), strict=True))
        run = Run(torch.nn.Linear(1, 1), torch.optim.SGD([torch.zeros(1)]), iter(()))  # type: ignore[arg-type]
        mixture = Mixture({name: [torch.zeros(1)] * 4 for name in names}, batch_size=BATCH)
        batches = iter(mixture)
        hook = SkillIt(mixture, graph, lambda _, losses=losses: losses, rate=0.5, round_steps=1, until=10**9)
        hook.begin(run)
        window = torch.rand(3, count, dtype=torch.float64)
        alone, whole, after, still = [], [], [], []
        for _ in range(max(20, arguments.rounds)):
            run.step += 1
            alone.append(seconds(lambda graph=graph, window=window: skill_weights(graph.edges, window, 0.5)))
            still.append(seconds(lambda batches=batches: next(batches)))
            whole.append(seconds(lambda hook=hook, run=run: hook(run)))
            after.append(seconds(lambda batches=batches: next(batches)))
        row = {"measured": f"re-weighing {count} skills", "rounds": len(alone)}
        row["us/skill_weights"] = round(1e6 * statistics.median(alone), 1)
        row["us/SkillIt"] = round(1e6 * statistics.median(whole), 1)
        row["us more for the next batch"] = round(1e6 * (statistics.median(after) - statistics.median(still)), 1)
        found.append(row)
    return found


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    of = {row["measured"]: row for row in rows}
    plain, shuffled = (of[f"rows, interleave_datasets{more}"]["ours / it"] for more in ("", ", shuffled"))
    streams = min(row["ours / it"] for name, row in of.items() if name.startswith("streams, interleave"))
    few, many = (of[f"draws from {count}"]["us/draw"] for count in (10, 1000))
    print("\nratios")
    print(
        f"ours: {plain:.2f}x as fast as interleave_datasets from rows ({shuffled:.2f}x where it is shuffled too), "
        f"{streams:.2f}x from streams at its fastest; {few} us a draw from 10 sources, {many} "
        f"from 1000; {of['re-weighing 1000 skills']['us/SkillIt']} us to re-weigh 1000 skills"
    )


def keep(file: Path, rows: list[dict[str, Any]]) -> None:
    told = gather(" ".join(["python", "benchmarks/mixing.py", *sys.argv[1:]]))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"benchmark": "mixing", **told, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
