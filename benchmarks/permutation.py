r"""A training step of two streams beside transformers' own XLNet: the same weights, the same batch, in one run.

    python benchmarks/permutation.py --json results/benchmarks/permutation.json

Forward and backward of a batch whose rows are predicted in part (1 / `--part` of the tokens, in two blocks, two
segments, all of the memory seen), by three ways:

    transformers   its XLNet, with the mask and the one-hot mapping that it wants
    two streams    ours
    one stream     ours without the query stream, in the same two blocks: what two streams are to be held against; the
                   ideal is 1 + 1 / part, were its last layer whole
and of the content stream alone, as in fine-tuning, by transformers and by ours. Outputs and gradients are compared
before anything is timed, and a difference voids the run. Tokens a second are of the input, from the median of
interleaved rounds that begin with another way each; ratios are round by round. Activations are what autograd keeps for
backward, each storage once, weights left out; the peak is that of the process over what it held before the step.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import XLNetLMHeadModel

from shoestring.cost.ledger import peak_bytes, reset_peak_bytes
from shoestring.evaluate.facts import gather
from shoestring.methods.permutation.configurations import configuration
from shoestring.methods.permutation.convert import from_transformers
from shoestring.methods.permutation.layout import blockwise
from shoestring.methods.permutation.orders import perm_mask, permuted

THEIRS, OURS, ONE = "transformers", "two streams", "one stream"
CONTENT_THEIRS, CONTENT_OURS = "transformers, content", "content"
TOLERANCE = 1e-3  # of gradients in fp32, relative to the largest


def main() -> None:
    parser = options(__doc__, ["xlnet-4m", "xlnet-base"])
    arguments = parser.parse_args()
    for option in ("tokens", "part", "rounds", "threads"):
        if getattr(arguments, option) < 1:
            parser.error(f"--{option} is {getattr(arguments, option)}: expected one or more")
    torch.set_num_threads(arguments.threads)
    rows = []
    for name in arguments.models:
        for length in arguments.lengths:
            for row in measured(name, length, arguments):
                print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                rows.append(row)
    if arguments.json:
        command = " ".join(["python", "benchmarks/permutation.py", *sys.argv[1:]])
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        record = {"benchmark": "permutation", **gather(command), "threads": arguments.threads, "rows": rows}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    for row in rows:
        if row["step"] == OURS:
            setting = f"{row['model']}, {row['length']} tokens, {row['precision']}, dropout {row['dropout']}"
            print(
                f"{setting}: {row['speed']} x the tokens a second of transformers, {row['activations']} x its "
                f"activations, {row['time / one stream']} x one stream's time"
            )


def options(description: str | None, models: list[str]) -> argparse.ArgumentParser:
    """What is measured, how often, and where it is kept."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=models)
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 256, 512])
    parser.add_argument("--tokens", type=int, default=1024, help="of a batch: its rows follow from the length")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--part", type=int, default=6, help="one in so many tokens is predicted: the paper's K")
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--dropouts", nargs="+", type=float, default=[0.0, 0.1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="keep the rows here")
    return parser


def measured(name: str, length: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    memory, batch = 3 * length // 4, max(1, arguments.tokens // length)
    config = configuration(name, arguments.vocabulary, mem_len=memory, reuse_len=length // 2)
    torch.manual_seed(0)
    theirs = XLNetLMHeadModel(config)
    ours = from_transformers(copy.deepcopy(theirs))
    ways = calls(theirs, ours, inputs(config, batch, length, memory, length // arguments.part))
    agree(theirs, ours, ways)
    rows = []
    for precision in arguments.precisions:
        for dropout in arguments.dropouts:
            for model in (theirs, ours):
                model.train()
                for module in model.modules():
                    if isinstance(module, torch.nn.Dropout):
                        module.p = dropout
            setting = {"model": name, "length": length, "memory": memory, "rows": batch}
            setting |= {"precision": precision, "dropout": dropout}
            rows += timed(ways, setting, arguments.rounds, (theirs, ours))
    return rows


def inputs(config: Any, batch: int, length: int, memory: int, predicted: int) -> dict[str, Any]:
    """A batch as the stream makes them: two blocks, predicted places in both."""
    generator = np.random.default_rng(0)
    half = length // 2
    chosen = np.zeros((batch, length), dtype=bool)
    for row in chosen:
        for first, count in ((0, predicted // 2), (half, predicted - predicted // 2)):
            row[first + generator.permutation(half)[:count]] = True
    order = [permuted(row, np.zeros(length, dtype=bool), half, generator) for row in chosen]
    targets = torch.from_numpy(np.stack([np.flatnonzero(row) for row in chosen]))
    ids = torch.from_numpy(generator.integers(config.vocab_size, size=(batch, length)))
    return {
        "input_ids": ids,
        "token_type_ids": (torch.arange(length) >= 3 * length // 4).long().expand(batch, -1),
        "rank": torch.from_numpy(np.stack([one.rank for one in order])),
        "sees": torch.from_numpy(np.stack([one.sees for one in order])),
        "targets": targets,
        "labels": ids.gather(1, targets),
        "read": torch.randn(length, config.d_model),  # in the place of a head
        "mems": [torch.randn(memory, batch, config.d_model) for _ in range(config.n_layer)],
    }


def calls(theirs: Any, ours: Any, given: dict[str, Any]) -> dict[str, Callable[[], Tensor]]:
    """Each way's loss, from the same weights and batch."""
    shared = {key: given[key] for key in ("input_ids", "token_type_ids", "mems")} | {"use_mems": True}
    mapping = torch.nn.functional.one_hot(given["targets"], given["input_ids"].shape[1]).float()
    dense = {"perm_mask": perm_mask(given["rank"], given["sees"]), "target_mapping": mapping}
    order = {key: given[key] for key in ("rank", "sees", "targets")}
    labels, read = given["labels"], given["read"]
    rank, sees = blockwise(given["input_ids"], given["input_ids"].shape[1] // 2)
    return {
        THEIRS: lambda: theirs(**shared, **dense, labels=labels).loss,
        OURS: lambda: ours(**shared, **order, labels=labels).loss,
        ONE: lambda: (
            ours(**shared, rank=rank, sees=sees, targets=given["targets"], stream="content", labels=labels).loss
        ),
        CONTENT_THEIRS: lambda: (theirs.transformer(**shared)[0] * read).mean(),
        CONTENT_OURS: lambda: (ours.transformer(**shared)[0] * read).mean(),
    }


def agree(theirs: Any, ours: Any, ways: dict[str, Callable[[], Tensor]]) -> None:
    """Raise RuntimeError where the losses or the gradients differ: nothing then is to be compared."""
    for model in (theirs, ours):
        model.eval()
    for their_way, our_way in ((THEIRS, OURS), (CONTENT_THEIRS, CONTENT_OURS)):
        for model in (theirs, ours):
            model.zero_grad()
        losses = []
        for way in (their_way, our_way):
            loss = ways[way]()
            loss.backward()
            losses.append(loss.item())
        pairs = zip(theirs.parameters(), ours.parameters(), strict=True)
        both = [(one.grad, two.grad) for one, two in pairs]
        if any((one is None) != (two is None) for one, two in both):
            raise RuntimeError(f"void: a weight has a gradient in {their_way} or in {our_way} alone")
        grads = [(one, two) for one, two in both if one is not None]
        apart = max(float((one - two).abs().max() / (one.abs().max() + 1e-6)) for one, two in grads)
        if abs(losses[0] - losses[1]) > 1e-4 or apart > TOLERANCE:
            raise RuntimeError(f"void: losses {losses}, gradients differ by {apart:.1e} of the largest")


def timed(
    ways: dict[str, Callable[[], Tensor]], setting: dict[str, Any], rounds: int, models: tuple[Any, Any]
) -> list[dict[str, Any]]:
    def step(way: str) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=setting["precision"] == "bf16"):
            loss = ways[way]()
        loss.backward()

    times: dict[str, list[float]] = {way: [] for way in ways}
    for way in ways:
        step(way)  # the first call of each makes ready what later ones find
    order = [*ways]
    for _ in range(rounds):
        for way in order:
            since = time.perf_counter()
            step(way)
            times[way].append(time.perf_counter() - since)
        order.append(order.pop(0))  # so that none always comes after the same
    kept = {way: activations(lambda way=way: step(way), models) for way in ways}
    peaks = {way: peak(lambda way=way: step(way)) for way in ways}
    tokens = setting["rows"] * setting["length"]
    rows = []
    for what, theirs, ours in ((OURS, THEIRS, OURS), (CONTENT_OURS, CONTENT_THEIRS, CONTENT_OURS)):
        row = {**setting, "step": what}
        for who, way in (("transformers", theirs), ("ours", ours)):
            row[f"{who}, tokens/s"] = round(tokens / statistics.median(times[way]))
        row["speed"] = ratio(times[theirs], times[ours])
        for who, way in (("transformers", theirs), ("ours", ours)):
            row[f"{who}, activation MB"] = round(kept[way] / 1e6, 1)
        row["activations"] = round(kept[ours] / kept[theirs], 3)
        for who, way in (("transformers", theirs), ("ours", ours)):
            row[f"{who}, peak MB"] = round(peaks[way] / 1e6)
        row["time / one stream"] = ratio(times[ours], times[ONE]) if what == OURS else None
        rows.append(row)
    return rows


def ratio(above: list[float], below: list[float]) -> float:
    return round(statistics.median(one / two for one, two in zip(above, below, strict=True)), 2)


def activations(call: Callable[[], None], models: tuple[Any, Any]) -> int:
    """Bytes that autograd keeps for backward, each storage once, without weights."""
    weights = {tensor.untyped_storage().data_ptr() for model in models for tensor in model.parameters()}
    seen: dict[int, int] = {}
    held = []  # so that no address is given to another; a tensor in the place of its storage would hold its graph

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
            held.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sum(seen.values())


def peak(call: Callable[[], None]) -> int:
    """The most resident memory during a step over what there was before it."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or a step would find it again
    reset_peak_bytes()
    before = peak_bytes()
    call()
    return peak_bytes() - before


if __name__ == "__main__":
    main()
