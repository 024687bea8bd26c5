"""Average weights: plain functions on state dicts, and what batch normalisation needs after it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from shoestring.methods.averaging.weights import check_same, local_shard

Shape = Literal["linear", "cosine", "1-sqrt"]


def average(
    states: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float] | None = None,
    accumulate: torch.dtype = torch.float32,
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """The weighted mean of state dicts of one model, oldest first.

    weights     one a state, divided by their sum; alike where None
    accumulate  float32 or float64: what the sum is held in; it is cast once, at the end
    dtype       of the averaged tensors; that of the newest state where None
    Floats are averaged. Integers, booleans, and masks (tensors with infinities, or complex ones, that are the same in
    all states) come from the newest. Tensors that share memory in every state are averaged once and share it in the
    result. Sharded tensors (DTensor) are averaged shard by shard, without communication, and are sharded alike in the
    result. It lies on the newest state's devices and shares no memory with the states.
    Raises ValueError where the states differ in names, shapes or kinds, or where one holds NaN or an infinity.

    Sanyal et al. 2023 (LAWA) for weights that are all alike; for others see `decay_weights`.
    """
    if not states:
        raise ValueError("there are no states to average: give at least one")
    if accumulate not in (torch.float32, torch.float64):
        raise ValueError(f"accumulate is {accumulate}: expected torch.float32 or torch.float64")
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype is {dtype}: expected a floating-point one, such as torch.float32")
    parts = shares(weights, len(states))
    newest = states[-1]
    for index, state in enumerate(states):
        for name, tensor in state.items():
            if not isinstance(tensor, Tensor):
                raise ValueError(
                    f"{name} of state {index} is a {type(tensor).__name__}: expected a tensor, leave it out"
                )
        check_same(newest, state, "the newest state", f"state {index}")
    result: dict[str, Tensor] = {}
    done: dict[tuple[Any, ...], Tensor] = {}
    for name in newest:
        tensors = [state[name] for state in states]
        memory = tuple(_memory(tensor) for tensor in tensors)
        if None in memory or memory not in done:
            done[memory] = _mean(name, tensors, parts, accumulate, dtype)
        result[name] = done[memory]
    return result


def shares(weights: Sequence[float] | None, count: int) -> list[float]:
    """The weights over their sum. Raises ValueError where they are not `count` numbers with a positive sum."""
    if weights is None:
        return [1.0 / count] * count
    if len(weights) != count:
        raise ValueError(f"there are {len(weights)} weights for {count} states: give one a state")
    values = [float(weight) for weight in weights]
    total = sum(values)
    if not all(math.isfinite(value) for value in values) or not math.isfinite(total) or total <= 0:
        raise ValueError(f"the weights {values} sum to {total}: expected finite numbers with a sum above zero")
    return [value / total for value in values]


def decay_weights(count: int, shape: Shape) -> list[float]:
    """Weights of `count` checkpoints, oldest first, that imitate a cool-down of the learning rate over their window.

    A run at a constant learning rate is a sum of updates, and the average scales the updates before checkpoint j by the
    weights of j and all after it. So weights w(j) - w(j + 1) scale them as a learning rate falling along
    1 = w(0) >= w(1) >= … >= w(count) = 0 would. A linear fall gives weights that are all alike, which is LAWA.
    It is a proxy: the gradients were taken where the run was, not where a cooled-down one would have been.
    """
    if count < 1:
        raise ValueError(f"count is {count}: expected at least 1 checkpoint")
    if shape == "linear":
        return [1.0 / count] * count
    if shape == "cosine":
        rates = [(1 + math.cos(math.pi * j / count)) / 2 for j in range(count + 1)]
    elif shape == "1-sqrt":
        rates = [1 - math.sqrt(j / count) for j in range(count + 1)]
    else:
        raise ValueError(f"shape is {shape!r}: expected 'linear', 'cosine' or '1-sqrt'")
    return [rates[j] - rates[j + 1] for j in range(count)]


def recompute_batchnorm(model: nn.Module, batches: Iterable[Any]) -> None:
    """Measure the statistics of batch normalisation anew, which the mean of weights does not bring along.

    batches  a finite pass: dicts are given to the model by keyword, tuples and lists by their first member, tensors as
             they are; dict members are moved to the model's device. Not read where the model has no such layer.
    Each module is afterwards in the mode, training or evaluation, it was in, also after an error.
    """
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return
    with _modes_kept(model):
        update_bn(batches, _TakesBatches(model))


class _TakesBatches(nn.Module):
    """Lets `update_bn`, which passes one positional argument, feed a model that takes keywords."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))

    def forward(self, batch: Tensor | Mapping[str, Tensor]) -> None:
        if isinstance(batch, Tensor):
            self.model(batch.to(self.device))
        else:
            self.model(**{name: tensor.to(self.device) for name, tensor in batch.items()})


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    momenta = {module: module.momentum for module in model.modules() if isinstance(module, _BatchNorm)}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for normalisation, momentum in momenta.items():
            normalisation.momentum = momentum


def _mean(
    name: str, tensors: list[Tensor], parts: list[float], accumulate: torch.dtype, dtype: torch.dtype | None
) -> Tensor:
    shards = [local_shard(tensor.detach()) for tensor in tensors]
    newest = shards[-1]
    for index, shard in enumerate(shards):
        if shard.is_floating_point() != newest.is_floating_point():
            kinds = f"{shard.dtype} in state {index} and {newest.dtype} in the newest"
            raise ValueError(f"{name} is {kinds}: expected floats in all states or in none")
    if not newest.is_floating_point():
        if newest.is_complex() and not _all_equal(shards):
            raise ValueError(f"{name} is {newest.dtype} and differs between the states: only real weights are averaged")
        return _like(tensors[-1], newest.clone())
    total = torch.zeros(newest.shape, dtype=accumulate, device=newest.device)
    for shard, part in zip(shards, parts, strict=True):
        total.add_(shard.to(total.device, total.dtype), alpha=part)
    result = total.to(dtype or newest.dtype)
    if not _finite(result):
        if _finite(newest) or not _all_equal(shards):
            _refuse(name, shards, result.dtype)
        result = newest.to(result.dtype, copy=True)
    return _like(tensors[-1], result)


def _refuse(name: str, shards: list[Tensor], dtype: torch.dtype) -> NoReturn:
    for index, shard in enumerate(shards):
        if not _finite(shard):
            raise ValueError(f"{name} of state {index} holds NaN or an infinity: leave that state out")
    raise ValueError(f"the mean of {name} is beyond what {dtype} can hold: choose a wider dtype")


def _finite(tensor: Tensor) -> bool:
    wide = tensor if tensor.element_size() > 1 else tensor.to(torch.float32)
    return bool(torch.isfinite(wide).all())


def _all_equal(shards: list[Tensor]) -> bool:
    """True of a mask or a table: the same in more than one state, and without NaN, which equals nothing."""
    return len(shards) > 1 and all(torch.equal(shard.to(shards[-1]), shards[-1]) for shard in shards[:-1])


def _memory(tensor: Tensor) -> tuple[Any, ...] | None:
    """Where a tensor lies; tied tensors agree in it. None for one that holds nothing."""
    shard = local_shard(tensor.detach())
    if shard.numel() == 0:
        return None
    return shard.device, shard.data_ptr(), shard.shape, shard.stride(), shard.dtype


def _like(tensor: Tensor, shard: Tensor) -> Tensor:
    """The shard, put back into the sharded tensor it is part of where there is one."""
    if local_shard(tensor) is tensor:
        return shard
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    whole: Tensor = DTensor.from_local(
        shard, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )
    return whole
