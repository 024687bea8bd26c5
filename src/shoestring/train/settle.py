"""Precision and compilation, chosen by measuring, once for a run and all that resume it."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from shoestring import files, runtime
from shoestring.runtime import Precision
from shoestring.types import Batch, Objective


@dataclass(frozen=True)
class Settled:
    """How a run computes. Another choice gives other bits, so a resumed run keeps it.

    threads   of each process: sums are cut by them
    why       what was measured
    """

    precision: Precision
    compiled: bool
    threads: int
    why: str


def settle(
    model: nn.Module,
    objective: Objective,
    batch: Batch,
    steps: int,
    kept: Path,
    threads: int,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    one_shape: bool = True,
) -> Settled:
    """Choose precision and compilation for `steps` steps; the choice is kept in a file and read from there next time.

    threads     of this process from now on, also where the choice is read
    precision   "auto" takes bf16 where forward and backward are measured faster in it
    one_shape   whether all batches are of this shape: else nothing is compiled, since it would be for each shape anew
    Compilation is tried where it can be had and the run is long: it is kept where the steps saved outweigh the time it
    took. The model given is not changed.
    """
    if kept.exists():
        settled = _read(kept)
        torch.set_num_threads(settled.threads)
        return settled
    trial = copy.deepcopy(model).to(torch.accelerator.current_accelerator() or torch.device("cpu"))
    batch = {name: tensor.to(next(trial.parameters()).device) for name, tensor in batch.items()}

    def step() -> Tensor:
        loss = objective(trial, batch)
        loss.total.backward()  # type: ignore[no-untyped-call]
        trial.zero_grad()
        return loss.total

    torch.set_num_threads(threads)
    chosen = runtime.faster_precision(step) if precision == "auto" else precision
    with torch.autocast(next(trial.parameters()).device.type, torch.bfloat16, enabled=chosen == "bf16"):
        eager = min(_seconds(lambda: step().item()) for _ in range(3))
        compiled, why = False, "not compiled: its batches have many shapes"
        if one_shape:
            compiled, why = _compilation(trial, lambda: step().item(), eager, steps)
    measured = f"{precision} precision: {chosen}, {eager:.3g} s a forward and backward on {threads} threads"
    settled = Settled(chosen, compiled, threads, f"{measured}; {why}")
    files.replace(kept, json.dumps(asdict(settled)))
    return settled


def _read(kept: Path) -> Settled:
    try:
        settled = Settled(**json.loads(kept.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{kept}: torn ({error}); start with another --out") from None
    if settled.precision not in ("fp32", "bf16"):
        raise ValueError(f"{kept}: precision {settled.precision!r}, expected fp32 or bf16: start with another --out")
    return settled


_SHORT_SECONDS = 300.0


def _compilation(trial: nn.Module, step: Callable[[], object], eager: float, steps: int) -> tuple[bool, str]:
    missing = runtime.compiler()
    if missing is not None:
        return False, f"not compiled: {missing}"
    if eager * steps < _SHORT_SECONDS:
        return False, f"not compiled: the run is shorter than {_SHORT_SECONDS:.0f} s"
    trial.compile(dynamic=False)
    first = _seconds(step)
    later = min(_seconds(step) for _ in range(3))
    pays = first + later * steps < eager * steps
    return pays, f"{'compiled' if pays else 'not compiled'}: {later:.3g} s a step after {first:.0f} s of compiling"


def _seconds(step: Callable[[], object]) -> float:
    since = time.perf_counter()
    step()
    return time.perf_counter() - since
