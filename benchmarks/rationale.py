r"""What an answer costs: of a two-task student beside one that was plainly fine-tuned, by torch and by ONNX Runtime.

    python benchmarks/rationale.py --json results/benchmarks/rationale.json

Students of one architecture with the same random weights, so that only the way they were taught tells them apart:
standard (the plain one), two-task (a label, and a label with a reason), and single-task, which has to write its reason
before its label. Texts are made here, of the length of a premise and a hypothesis; there are three labels. What is
written has `--reason` tokens, which random weights do not end by themselves. FLOPs are counted; milliseconds are what
one example takes by the clock, all of them in one call on one thread, the median of interleaved rounds that begin with
another call each; ratios are to the plain student, round by round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shoestring.cost import flops
from shoestring.data.tokenizers import byte_tokenizer
from shoestring.evaluate.facts import gather
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.exported import Exported
from shoestring.methods.rationale.exporting import export
from shoestring.methods.rationale.lessons import Taught, Way
from shoestring.methods.rationale.student import Student
from shoestring.models import presets, seq2seq

OPTIONS = ("entailment", "neutral", "contradiction")
PLAIN = "standard: label"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["t5-3m", "neox-4m"])
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--reason", type=int, default=40, help="tokens that are written")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="keep the rows here")
    arguments = parser.parse_args()
    for option in ("examples", "reason", "rounds"):
        if getattr(arguments, option) < 1:
            parser.error(f"--{option} is {getattr(arguments, option)}: expected one or more")
    torch.set_num_threads(1)
    rows = [row for name in arguments.models for row in measured(name, arguments)]
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    if arguments.json:
        command = " ".join(["python", "benchmarks/rationale.py", *sys.argv[1:]])
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        record = {"benchmark": "rationale", **gather(command), "rows": rows}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    two = {row["student"]: row for row in rows if row["answer"] == "two-task: label"}
    for name, row in two.items():
        print(f"{name}: a two-task label takes {row['FLOPs / plain']} x the FLOPs and {row['ms / plain']} x the time")


def measured(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    examples = texts(arguments.examples)
    with tempfile.TemporaryDirectory() as folder:
        calls = answers(name, examples, arguments.reason, Path(folder))
        spent = {what: flops.count(call) for what, call in calls.items() if "ONNX" not in what}
        times: dict[str, list[float]] = {what: [] for what in calls}
        for call in calls.values():
            call()  # the first call of each makes ready what later ones find
        order = [*calls]
        for _ in range(arguments.rounds):
            for what in order:
                since = time.perf_counter()
                calls[what]()
                times[what].append(1000 * (time.perf_counter() - since) / len(examples))
            order.append(order.pop(0))  # so that none always comes after the same
    return [
        {
            "student": name,
            "answer": what,
            "MFLOP": round(spent[what] / len(examples) / 1e6, 2) if what in spent else None,
            "FLOPs / plain": round(spent[what] / spent[PLAIN], 3) if what in spent else None,
            "ms": round(statistics.median(found), 2),
            "ms / plain": round(
                statistics.median(one / plain for one, plain in zip(found, times[PLAIN], strict=True)), 3
            ),
        }
        for what, found in times.items()
    ]


def answers(name: str, examples: Sequence[Example], reason: int, folder: Path) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    plain, two, single = (student(name, way, reason) for way in ("standard", "two-task", "single-task"))
    calls: dict[str, Callable[[], object]] = {
        PLAIN: lambda: plain.answers(examples),
        "two-task: label": lambda: two.answers(examples),
        "two-task: label and reason": lambda: two.answers(examples, reasons=True),
        "single-task: reason, then label": lambda: single.answers(examples),
    }
    for bits, int8 in (("", False), (", int8", True)):
        path = folder / f"student{len(bits)}.onnx"
        export(two, path, int8=int8)
        loaded = Exported.load(path, threads=1)
        calls[f"two-task: label, ONNX{bits}"] = lambda loaded=loaded: loaded.answers(examples)
        calls[f"two-task: label and reason, ONNX{bits}"] = lambda loaded=loaded: loaded.answers(examples, reasons=True)
    return calls


def student(name: str, way: Way, reason: int) -> Student:
    tokenizer = byte_tokenizer()
    if name in seq2seq.names():
        model = seq2seq.build(seq2seq.configuration(name, len(tokenizer)), 0)
    else:
        model = presets.build(presets.configuration(name, len(tokenizer), 256 + reason), 0)
    return Student.of(model.eval(), tokenizer, Taught(way, options=OPTIONS, source_tokens=256, target_tokens=reason))


def texts(count: int) -> list[Example]:
    random = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz     ")
    return [
        Example("".join(random.choice(letters, int(random.integers(100, 200)))), options=OPTIONS) for _ in range(count)
    ]


if __name__ == "__main__":
    main()
