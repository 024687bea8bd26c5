r"""Our attention beside torch's own, fed the scores of distances and segments as a bias, in one two-stream XLNet.

    python benchmarks/permutation_attention.py --json results/benchmarks/permutation-attention.json

A training step, forward and backward, of the same weights and batch as `permutation.py` makes, memory of three quarters
of the length, in one run: with `attend`, and with `torch.nn.functional.scaled_dot_product_attention` in its place. Both
leave the content stream as it is and have query rows for predicted positions alone. Losses and gradients are compared
before anything is timed, and a difference voids the run. Tokens a second are of the input, from the median of
interleaved rounds; the ratio is round by round. Activations are what autograd keeps for backward, weights left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from permutation import TOLERANCE, activations, inputs, options, ratio
from shoestring.evaluate.facts import gather
from shoestring.methods.permutation import backbone
from shoestring.methods.permutation.attention import View
from shoestring.methods.permutation.configurations import build, configuration

OURS, TORCHS = "attend", "torch's"


def main() -> None:
    arguments = options(__doc__, ["xlnet-4m"]).parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [
        row for name in arguments.models for length in arguments.lengths for row in measured(name, length, arguments)
    ]
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    if arguments.json:
        command = " ".join(["python", "benchmarks/permutation_attention.py", *sys.argv[1:]])
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        record = {"benchmark": "permutation_attention", **gather(command), "threads": arguments.threads, "rows": rows}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def fused(
    content: Tensor,
    position: Tensor,
    segment: Tensor | None,
    keys: Tensor,
    values: Tensor,
    distances: Tensor,
    view: View,
    dropout: float = 0.0,
) -> Tensor:
    """As `attend`, of rows in one direction: (B, N, Q, D)."""
    rows, seen = slice(0, view.sees.shape[1]), slice(0, keys.shape[2])
    at = torch.arange(seen.stop) - torch.arange(view.ordered)[:, None] + view.ordered
    columns = at.expand(len(keys), -1, -1)
    if view.columns is not None:
        columns = torch.cat([columns, view.columns], 1)
    raw = position @ distances[0].transpose(-1, -2)
    bias = raw.gather(-1, columns[:, None].expand(-1, raw.shape[1], -1, -1))
    elsewhere = view.elsewhere(rows, seen)
    if segment is not None and elsewhere is not None:
        bias = bias + segment[..., None] * elsewhere.to(bias.dtype)
    bias = bias.masked_fill(view.blocked(rows, seen), torch.finfo(bias.dtype).min)
    read = torch.nn.functional.scaled_dot_product_attention(content, keys, values, bias, dropout, scale=1.0)
    return read.masked_fill(view.blind[:, None, :, None], 0.0)


def measured(name: str, length: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    memory, batch = 3 * length // 4, max(1, arguments.tokens // length)
    config = configuration(name, arguments.vocabulary, mem_len=memory, reuse_len=length // 2)
    model: Any = build(config, seed=0)
    given = inputs(config, batch, length, memory, length // arguments.part)
    del given["read"]

    def step(attend: Callable[..., Tensor], precision: str) -> Tensor:
        with patch.object(backbone, "attend", attend):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss: Tensor = model(**given, use_mems=True).loss
            loss.backward()  # type: ignore[no-untyped-call]
        return loss

    ways = {OURS: backbone.attend, TORCHS: fused}
    agree(model, ways, step)
    rows = []
    for precision in arguments.precisions:
        for dropout in arguments.dropouts:
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = dropout
            times: dict[str, list[float]] = {way: [] for way in ways}
            order = [*ways]
            for way in order:
                step(ways[way], precision)  # the first call of each makes ready what later ones find
            for _ in range(arguments.rounds):
                for way in order:
                    since = time.perf_counter()
                    step(ways[way], precision)
                    times[way].append(time.perf_counter() - since)
                order.reverse()
            kept = {way: activations(partial(step, ways[way], precision), (model, model)) for way in ways}
            row = {"model": name, "length": length, "memory": memory, "rows": batch, "precision": precision}
            row |= {"dropout": dropout, "speed": ratio(times[TORCHS], times[OURS])}
            for way in ways:
                row[f"{way}, tokens/s"] = round(batch * length / statistics.median(times[way]))
                row[f"{way}, activation MB"] = round(kept[way] / 1e6, 1)
            row["activations"] = round(kept[OURS] / kept[TORCHS], 3)
            rows.append(row)
    return rows


def agree(model: Any, ways: dict[str, Callable[..., Tensor]], step: Callable[..., Tensor]) -> None:
    """Raise RuntimeError where the losses or the gradients differ: nothing then is to be compared."""
    found = []
    for attend in ways.values():
        model.zero_grad()
        loss = step(attend, "fp32").item()
        found.append((loss, [one.grad.clone() for one in model.parameters() if one.grad is not None]))
    (loss, grads), (other, others) = found
    apart = max(
        float((one - two).abs().max() / (one.abs().max() + 1e-6)) for one, two in zip(grads, others, strict=True)
    )
    if abs(loss - other) > 1e-4 or apart > TOLERANCE:
        raise RuntimeError(f"void: losses {loss} and {other}, gradients differ by {apart:.1e} of the largest")


if __name__ == "__main__":
    main()
