r"""Untrained networks scored a second: ours, the published procedure, the forward pass alone. Ratios come last.

    python benchmarks/search.py --json results/benchmarks/search.json

The same NAS-Bench-201 cells, drawn at random, as networks of 16 channels and 5 cells a stage, on the same random images
of CIFAR's size. Each contender has its own copy of a network, from the same seed; on each network they take turns, in
an order that goes round. Building is not clocked. A ratio is the median over the networks; so are the seconds.

`published` is the procedure of the paper's code, written anew and plainly: a forward and a backward pass of ones marks
the rectifiers that a gradient reached, a second forward pass adds their kernels in NumPy, layer by layer. Its images
are laid out as PyTorch's are by default, and once more with their channels last, as ours lays them out. `forward` is
the pass alone, without gradients, with batch statistics, in the memory layout that ours takes: the limit.

Where both count the same units their kernels must be the same: on images in one layout to the integer, but for
pre-activations that rounding puts on another side of zero, of which at most one unit in 100,000 is borne. Else the
comparison is void and this script fails. They do not in cells that are cut off from their input: no gradient reaches
the rectifier behind them, though its output is part of the network's.

Memory is the resident set of a fresh process that scores small networks one after the other: how far it ever rose above
where it stood after the first tenth. The kernel alone is that of one layer's codes, ours in integers, theirs in floats.

Of a table of trained cells both procedures also tell how well they order it, on real images, on the same cells: each
with one seed of weights for all, as the recipe does, and with a seed a cell, as the paper's code does. The published
one does so once more on cells as the paper's code has them: edges on no way from input to output are computed, and what
carries nothing is a product with zero, through which its backward pass reaches their rectifiers.

    python benchmarks/search.py --order 200 --table search/nasbench201_dev12500.csv.gz \
        --images search/cifar10_train6000_jpeg.npz --json results/benchmarks/search-order.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shoestring.evaluate.facts import gather
from shoestring.methods.search.cells201 import EDGES, Cell, Cells201, stripped
from shoestring.methods.search.images import images as real_images
from shoestring.methods.search.kernel import agreements, kernel, together
from shoestring.methods.search.parallel import scores
from shoestring.methods.search.ranks import kendall_interval
from shoestring.methods.search.score import score
from shoestring.methods.search.table import Table
from shoestring.models import surgery

MB = 1_000_000
SIDE, MEMORY_SIDE = 32, 16
TOLERANCE = 1e-5  # of the units


def main() -> None:
    cores = len(os.sched_getaffinity(0)) if "sched_getaffinity" in dir(os) else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=24, help="networks, each scored by all contenders")
    parser.add_argument("--samples", type=int, default=128, help="images in the batch")
    parser.add_argument("--stage", type=int, default=5, help="cells a stage")
    parser.add_argument("--channels", type=int, default=16, help="of the first stage")
    parser.add_argument("--memory", type=int, default=2000, help="small networks scored for the memory")
    parser.add_argument("--repeats", type=int, default=200, help="of the kernel alone")
    parser.add_argument("--threads", type=int, default=cores)
    parser.add_argument("--quick", action="store_true", help="at toy size: whether it runs, not what it measures")
    parser.add_argument("--order", type=int, default=0, help="cells of a table that both procedures order instead")
    parser.add_argument("--table", type=Path, help="a CSV file of trained cells, by its path or in SHOESTRING_DATA")
    parser.add_argument("--images", type=Path, help="images to score them on, likewise")
    parser.add_argument("--json", type=Path, help="keep the rows here")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        toy = {"cells": 2, "samples": 8, "stage": 1, "channels": 4, "memory": 20, "repeats": 3, "threads": 1}
        vars(arguments).update(toy)
    for name, least in (("cells", 1), ("samples", 2), ("stage", 1), ("channels", 1), ("memory", 10)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name} is {getattr(arguments, name)}: expected {least} or more")
    for name in ("repeats", "threads"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} is {getattr(arguments, name)}: expected 1 or more")
    torch.set_num_threads(arguments.threads)
    if arguments.child:
        print(json.dumps(list(resident(arguments.memory, arguments.workers))), flush=True)
        return
    if arguments.order < 0:
        parser.error(f"--order is {arguments.order}: expected 0 or more")
    if arguments.order:
        if arguments.table is None or arguments.images is None:
            parser.error("--order needs --table and --images")
        rows = orders(arguments)
        print("\n".join(", ".join(f"{key} {value}" for key, value in row.items()) for row in rows))
        if arguments.json:
            keep(arguments.json, rows)
        return
    rows = [*compare(arguments), *kernels(arguments), *(memory(arguments, workers) for workers in (1, 2))]
    show(rows)
    if arguments.json:
        keep(arguments.json, rows)


# scored a second


def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a contender. Raises RuntimeError where the kernels are not the same."""
    space = Cells201(arguments.channels, arguments.stage)
    images = torch.randn(arguments.samples, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    draws = Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    alike: list[bool] = []
    for number in range(arguments.cells + 1):  # the first is a warm-up
        cell = space.draw(draws)
        for name, taken in turns(space, cell, images, number).items():
            if number:
                seconds[name].append(taken)
        alike.append(check(space, cell, images))
        took = ", ".join(f"{name} {times[-1]:.3f}" for name, times in seconds.items() if times)
        print(f"{number} of {arguments.cells}: {took}", file=sys.stderr, flush=True)
    rows = []
    for name, times in seconds.items():
        ratios = [other / own for other, own in zip(times, seconds["ours"], strict=True)]
        row = {"measured": name, "images": arguments.samples, "networks": len(times), "threads": arguments.threads}
        row["networks/s"] = round(1 / statistics.median(times), 3)
        row["ours / it"] = round(statistics.median(ratios), 3)
        if name == "published":
            row["same kernel"] = f"{sum(alike)} of {len(alike)}"
        rows.append(row)
    return rows


def turns(space: Cells201, cell: Cell, images: Tensor, number: int) -> dict[str, float]:
    """Seconds of each contender on one network, the first another each time."""
    names = list(CONTENDERS)
    found = {}
    for name in names[number % len(names) :] + names[: number % len(names)]:
        model = space.build(cell, 0)
        given = images.contiguous(memory_format=torch.channels_last) if name in CHANNELS_LAST else images
        started = time.perf_counter()
        CONTENDERS[name](model, given)
        found[name] = time.perf_counter() - started
    return found


def check(space: Cells201, cell: Cell, images: Tensor) -> bool:
    """Whether both count the same units; if so, their kernels are compared."""
    own = kernel(space.build(cell, 0), images)
    theirs = published_kernel(space.build(cell, 0), images.contiguous(memory_format=torch.channels_last))
    if theirs[0, 0] != own.units:
        return False
    apart = float(np.abs(theirs - own.agreements.numpy()).max())
    if apart > TOLERANCE * own.units:
        raise RuntimeError(
            f"void: the kernels of {space.encode(cell)} are {apart:g} of {own.units} units apart: expected at most "
            f"{TOLERANCE * own.units:g}"
        )
    return True


def published(model: nn.Module, images: Tensor) -> float:
    return float(np.linalg.slogdet(published_kernel(model, images))[1])


def published_kernel(model: nn.Module, images: Tensor) -> NDArray[np.float64]:
    """Two passes over a network, which is left with gradients and other statistics."""
    model.train()
    rectifiers = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    reached: set[nn.Module] = set()
    hooks = [one.register_full_backward_hook(lambda module, *_: reached.add(module)) for one in rectifiers]
    with warnings.catch_warnings():
        # a rectifier that is given constants, in cells that are cut: its result has no gradient that could reach it
        warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed")
        logits = model(images)
        logits.backward(torch.ones_like(logits))
    for hook in hooks:
        hook.remove()
    total = np.zeros((len(images), len(images)))

    def add(module: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> None:
        codes = (given[0].flatten(1) > 0).float()
        rest = 1 - codes
        np.add(total, (codes @ codes.T).cpu().numpy() + (rest @ rest.T).cpu().numpy(), out=total)

    hooks = [one.register_forward_hook(add) for one in rectifiers if one in reached]
    model(images)
    for hook in hooks:
        hook.remove()
    return total


def forward(model: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        model.train()(images)


CONTENDERS: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "ours": score,
    "published": published,
    "published, channels last": published,
    "forward": forward,
}
CHANNELS_LAST = ("published, channels last", "forward")


# the kernel alone


def kernels(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Ours and theirs on the codes of one layer of the first stage."""
    units = arguments.channels * SIDE**2
    before = torch.randn(arguments.samples, units, generator=torch.Generator().manual_seed(1))
    codes = before > 0
    if not torch.equal(in_integers(codes), in_floats(codes).long()):
        raise RuntimeError("void: the two kernels of the same codes differ")
    seconds: dict[str, list[float]] = {"kernel in integers": [], "kernel in floats": []}
    for _ in range(arguments.repeats):
        for times, function in zip(seconds.values(), (in_integers, in_floats), strict=True):
            started = time.perf_counter()
            function(codes)
            times.append(time.perf_counter() - started)
    own = statistics.median(seconds["kernel in integers"])
    rows = []
    for name, times in seconds.items():
        row = {"measured": name, "images": arguments.samples, "threads": arguments.threads, "units": units}
        row["milliseconds"] = round(1e3 * statistics.median(times), 3)
        row["ours / it"] = round(statistics.median(times) / own, 3)
        rows.append(row)
    return rows


def in_integers(codes: Tensor) -> Tensor:
    return agreements(together(codes), codes.shape[1])


def in_floats(codes: Tensor) -> Tensor:
    active = codes.float()
    rest = 1 - active
    return active @ active.T + rest @ rest.T


# memory


def memory(arguments: argparse.Namespace, workers: int) -> dict[str, Any]:
    """How far a fresh process, and its workers, rose above where it stood after the first tenth of its networks."""
    words = [str(Path(__file__).resolve()), "--child", "--memory", str(arguments.memory), "--threads", "1"]
    words += ["--workers", str(workers)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the process that scores for its memory failed:\n{done.stderr[-4000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    settled = found[: len(found) // 10][-1]
    return {
        "measured": "memory" if workers == 1 else f"memory, {workers} workers",
        "networks": len(found),
        "threads": 1,
        "MB after a tenth": round(settled / MB, 1),
        "MB more at most": round((max(found[len(found) // 10 :]) - settled) / MB, 1),
    }


def resident(count: int, workers: int) -> Iterator[int]:
    """The resident set of this process and its workers, in bytes, after each of so many small networks."""
    space, draws, process = Cells201(channels=4, cells=1), Random(0), psutil.Process()
    images = torch.randn(32, 3, MEMORY_SIDE, MEMORY_SIDE, generator=torch.Generator().manual_seed(0))
    jobs = ((number, partial(space.build, space.draw(draws), number)) for number in range(count))
    for _ in scores(jobs, {"naswot": score}, images, workers):
        yield sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))


# how well they order


def orders(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Kendall's tau of each procedure with each accuracy of a table, and its interval, on the same cells."""
    space = Cells201(arguments.channels, arguments.stage)
    table = Table.read(found_at(arguments.table), space)
    if not 3 <= arguments.order <= len(table):
        raise SystemExit(f"--order is {arguments.order}: expected 3 up to the {len(table)} cells of the table")
    drawn = Random(0).sample([text for text, _ in table], arguments.order)
    images = real_images(found_at(arguments.images), arguments.samples)
    found: dict[str, list[float]] = {}
    for number, text in enumerate(drawn, start=1):
        cell = space.decode(text)
        for seeds, seed in (("one seed for all", 0), ("a seed a cell", number)):
            found.setdefault(f"ours, {seeds}", []).append(score(space.build(stripped(cell), seed), images).value)
            found.setdefault(f"published, {seeds}", []).append(published(space.build(stripped(cell), seed), images))
        found.setdefault("published, a seed a cell, idle edges too", []).append(
            published(whole(space.build(cell, number), cell), images)
        )
        print(f"{number} of {len(drawn)}", file=sys.stderr, flush=True)
    rows = []
    for name, values in found.items():
        row: dict[str, Any] = {"measured": name, "cells": len(values)}
        for column in [name for name in table.columns if name.endswith("test_200ep")] or table.columns:
            tau = kendall_interval(values, [table.value(text, column) for text in drawn])
            row[f"τ, {column}"] = f"{tau.value:.3f} [{tau.low:.3f}, {tau.high:.3f}]"
        rows.append(row)
    return rows


def found_at(path: Path) -> Path:
    """A file by its path, else in the folder of data sets."""
    shelf = Path(os.environ.get("SHOESTRING_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    return path if path.exists() else shelf / path


class Whole(nn.Module):
    """A cell as the paper's code has it: every edge is computed."""

    def __init__(self, edges: nn.ModuleList, cell: Cell) -> None:
        super().__init__()
        self.edges, self.cell = edges, cell

    def forward(self, images: Tensor) -> Tensor:
        nodes = [images]
        for node in (1, 2, 3):
            into = [edge for edge, (_, end) in enumerate(EDGES) if end == node]
            nodes.append(torch.stack([self._carried(edge, nodes[EDGES[edge][0]]) for edge in into]).sum(0))
        return nodes[3]

    def _carried(self, edge: int, source: Tensor) -> Tensor:
        found: Tensor = source * 0.0 if self.cell[edge] == "none" else self.edges[edge](source)
        return found


def whole(model: nn.Module, cell: Cell) -> nn.Module:
    """The network with its cells so."""
    surgery.replace(model, lambda _, module: type(module).__name__ == "_Cell", lambda _, old: Whole(old.edges, cell))
    return model


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    of = {row["measured"]: row for row in rows}
    print("\nratios")
    more = of["memory"]["MB more at most"]
    print(
        f"ours: {of['published']['ours / it']:.2f}x as fast as the published procedure "
        f"({of['published, channels last']['ours / it']:.2f}x with channels last), "
        f"{of['forward']['ours / it']:.2f} of the speed of the forward pass; its kernel "
        f"{of['kernel in floats']['ours / it']:.1f}x as fast as in floats; at most {more} MB more after the first "
        f"tenth of {of['memory']['networks']} networks"
    )


def keep(file: Path, rows: list[dict[str, Any]]) -> None:
    told = gather(" ".join(["python", "benchmarks/search.py", *sys.argv[1:]]))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"benchmark": "search", **told, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
