r"""How many samples the ways of `shoestring mixing sort` put into their true skill, which none of them is told.

    SHOESTRING_DATA=FOLDER python benchmarks/mixing_sort.py --json results/benchmarks/mixing_sort.json

`made` are generated lines of the same sixteen letters: random ones, sorted ones, and a random half said twice. The
others are tasks of instruction induction and the 15 genres of the Brown corpus, left out where SHOESTRING_DATA does not
hold them. Each is sorted from several seeds (of the draw, the trainings and the groups); `shuffled` is what the same
groups give when their labels are shuffled.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shoestring.evaluate.facts import gather
from shoestring.methods.mixing.documents import read
from shoestring.methods.mixing.tools_sort import find, told
from shoestring.methods.mixing.tools_sort_training import By, Training

LETTERS = list("abcdefghijklmnop")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=600, help="of each data set, at most")
    parser.add_argument("--runs", type=int, default=3, help="trainings, of whose losses trajectories are made")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--json", type=Path, help="keep the rows here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, path, fields, length in sources(Path(folder)):
            rows += sorted_by_all(name, path, fields, length, arguments)
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    if arguments.json:
        command = " ".join(["python", "benchmarks/mixing_sort.py", *sys.argv[1:]])
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        record = {"benchmark": "mixing_sort", **gather(command), "rows": rows}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def sources(folder: Path) -> Iterator[tuple[str, Path, list[str], int]]:
    """Name, file, fields of the text, and tokens that are looked at."""
    made = folder / "made.jsonl"
    made.write_text("".join(json.dumps(record) + "\n" for record in lines(1000)))
    yield "made", made, ["text"], 64
    shelf = Path(os.environ.get("SHOESTRING_DATA", ""))
    tasks = shelf / "mixing" / "instruction_induction_train.jsonl.gz"
    if tasks.is_file():
        whole = folder / "tasks.jsonl"
        with gzip.open(tasks, "rt", encoding="utf-8") as stream:
            records = [json.loads(line) for line in stream]
        counts = {name: sum(one["task"] == name for one in records) for name in {one["task"] for one in records}}
        kept = [
            one for one in records if one.get("input") and isinstance(one["output"], str) and counts[one["task"]] > 100
        ]
        whole.write_text("".join(json.dumps(one) + "\n" for one in kept))
        yield "instruction induction", whole, ["input", "output"], 64
    genres = shelf / "text" / "brown_by_genre.jsonl.gz"
    if genres.is_file():
        yield "Brown genres", genres, ["text"], 128


def lines(count: int) -> Iterator[dict[str, str]]:
    chance = np.random.default_rng(0)
    for number in range(count):
        letters = chance.choice(LETTERS, 24)
        skill = ("random", "sorted", "twice")[number % 3]
        shown = {"random": letters, "sorted": np.sort(letters), "twice": np.tile(letters[:12], 2)}[skill]
        yield {"text": "".join(shown), "skill": skill}


def sorted_by_all(
    name: str, path: Path, fields: list[str], length: int, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    shares: dict[str, list[float]] = {}
    shuffled: list[float] = []
    skills = 0
    for seed in range(arguments.seeds):
        drawn, _ = read(path, fields, arguments.samples, seed)
        truth = told(drawn, None)
        if truth is None:
            raise RuntimeError(f"void: {name} names no skills")
        skills = len(set(truth.values))
        looks = min(20, arguments.steps)
        with tempfile.TemporaryDirectory() as kept:
            training = Training(
                "neox-tiny", None, length, arguments.runs, arguments.steps, looks, None, seed, Path(kept)
            )
            found = find(drawn, skills, By.losses, training, truth, lambda done, of: None)
        for way, one in found.recovered.items():
            if not isinstance(one, str):
                shares.setdefault(way, []).append(one.share)
                shuffled.append(one.chance.mean)
        print(f"{name}: seed {seed} of {arguments.seeds}", file=sys.stderr, flush=True)
    return [
        {
            "sorted": name,
            "skills": skills,
            "by": way,
            "seeds": len(values),
            "recovered %": round(100 * statistics.fmean(values), 1),
            "sd": round(100 * statistics.stdev(values), 1) if len(values) > 1 else 0.0,
            "shuffled %": round(100 * statistics.fmean(shuffled), 1),
        }
        for way, values in shares.items()
    ]


if __name__ == "__main__":
    main()
