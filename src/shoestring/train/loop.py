"""The one loop: it moves a run to a step, charges what that took, and calls the hooks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from shoestring import runtime
from shoestring.cost import Ledger
from shoestring.cost.flops import StepFlops
from shoestring.runtime import Runtime
from shoestring.train.optim import Schedule
from shoestring.types import Batch, Hook, Loss, Objective, Run


class DivergedError(ValueError):
    """The loss, or the norm of its gradient, is not finite."""


class _Sums(NamedTuple):
    total: float
    targets: float
    tokens: float
    flops: float


def train(
    run: Run,
    objective: Objective,
    *,
    until: int,
    hooks: Sequence[Hook] = (),
    ledger: Ledger | None = None,
    accumulate: int = 1,
    clip: float | None = 1.0,
    schedule: Schedule | None = None,
    step_flops: StepFlops | None = None,
) -> Run:
    """Take optimizer steps until `run.step` is `until`; a run that is there already is left as it is.

    objective    the summed loss of a micro-batch; gradients are of the mean over all micro-batches and processes
    hooks        called in order after each step
    ledger       charged the tokens and FLOPs of every step, over all processes, under its open phase
    accumulate   micro-batches drawn from `run.batches` for one step
    clip         the largest gradient norm let through; None lets all through
    schedule     factor of each group's learning rate by step, counted from 0
    step_flops   of the model as it is trained, with what earlier calls have counted where no formula fits; for a ledger
    Precision, device and processes are those of `runtime.current()`.
    Raises DivergedError, a ValueError, where the loss or (if clipped) the gradient's norm is not finite, before the
    weights are touched; ValueError where the stream ends or a batch holds no target.
    """
    if accumulate < 1 or until < 0 or (clip is not None and not clip > 0):
        raise ValueError(f"expected until >= 0, accumulate >= 1, clip > 0, got {until}, {accumulate}, {clip}")
    here = runtime.current()
    run.model, run.optimizer = here.prepare(run.model, run.optimizer)
    if ledger is None:
        step_flops = None
    elif step_flops is None:
        step_flops = StepFlops(runtime.unwrap(run.model))
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    for group in run.optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    run.optimizer.zero_grad(set_to_none=True)
    run.model.train()
    batches = iter(run.batches) if run.step < until else iter(())
    while run.step < until:
        if schedule is not None:
            for group in run.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(run.step)
        # the loss is held until the next one is there: with nothing left above it, glibc would hand the whole graph's
        # memory back to the system after each step and fault it in again in the next
        sums, _held = _gradients(run, objective, batches, accumulate, step_flops, here)
        run.loss = _checked_mean(sums, run)
        # DDP and FSDP2 mean the gradients over the processes; these are sums
        norm = _scale_and_clip(parameters, here.processes / sums.targets, clip)
        if not math.isfinite(norm):
            raise _diverged(run, f"the gradient's norm is {norm}")
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.step += 1
        if ledger is not None:
            ledger.charge(tokens=sums.tokens, flops=sums.flops)
        for hook in hooks:
            hook(run)
    return run


def _gradients(
    run: Run,
    objective: Objective,
    batches: Iterator[Batch],
    accumulate: int,
    step_flops: StepFlops | None,
    here: Runtime,
) -> tuple[_Sums, Loss]:
    """Run forward and backward over the micro-batches, leaving summed gradients behind; also returns the last loss."""
    total, count, tokens, flops = 0.0, 0, 0, 0
    for index in range(accumulate):
        batch = _to(next(batches, None), here.device)
        last = index == accumulate - 1
        quiet = nullcontext() if last else here.no_sync(run.model)
        with quiet, step_flops.counting(batch) if step_flops is not None else nullcontext():
            loss = _forward_backward(run, objective, batch, here)
        flops += step_flops(batch) if step_flops is not None else 0
        total += loss.total.item()
        count += loss.count
        tokens += loss.tokens
    return _Sums(*here.sum(total, count, tokens, flops)), loss


def _forward_backward(run: Run, objective: Objective, batch: Batch, here: Runtime) -> Loss:
    with here.autocast():
        loss = objective(run.model, batch)
    loss.total.backward()  # type: ignore[no-untyped-call]
    return loss


def _checked_mean(sums: _Sums, run: Run) -> float:
    if sums.targets == 0:
        raise ValueError(f"step {run.step}: the batch holds no target; every label is ignored")
    mean = sums.total / sums.targets
    if not math.isfinite(mean):
        raise _diverged(run, f"the loss is {mean}")
    return mean


def _diverged(run: Run, what: str) -> DivergedError:
    run.optimizer.zero_grad(set_to_none=True)
    return DivergedError(
        f"step {run.step}: {what}; the weights before this step are kept: "
        "lower the learning rate, or look at the batch that was drawn here"
    )


def _scale_and_clip(parameters: Sequence[Tensor], scale: float, clip: float | None) -> float:
    """Turn summed gradients into clipped means; returns their norm before clipping, 0 where it is not looked at."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if clip is None:
        torch._foreach_mul_(gradients, scale)
        return 0.0
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True) * scale
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    # one pass both turns sums into means and clips
    torch._foreach_mul_(gradients, scale * torch.clamp(clip / (norm + 1e-6), max=1.0))
    return norm.item()


def _to(batch: Batch | None, device: torch.device) -> Batch:
    if batch is None:
        raise ValueError("the stream of batches ended; a stream must be endless")
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
