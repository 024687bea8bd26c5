"""The weights of a model in place: by plain names, unwrapped, and on this process alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of `torch.compile`, DDP and data parallelism."""
    while True:
        if isinstance(model, DistributedDataParallel | DataParallel):
            model = model.module
        elif "_orig_mod" in model._modules:
            model = model.get_submodule("_orig_mod")
        else:
            return model


def weights_in_place(model: nn.Module) -> dict[str, Tensor]:
    """What a snapshot holds: trainable parameters, and the float buffers that a state dict keeps.

    Names are those of the unwrapped model, also where only some of its blocks are compiled. A tied parameter comes
    once, under its first name. The tensors are the model's own memory, so writing to them changes the model; of a
    parameter sharded by FSDP2 it is the shard of this process. Raises ValueError where nothing trains, or under FSDP1.
    """
    model = unwrap(model)
    _reshard(model)
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[_plain(name)] = local_shard(parameter.detach())
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no trainable parameter, expected at least one: unfreeze what trains"
        )
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                found[_plain(f"{prefix}.{name}" if prefix else name)] = local_shard(buffer.detach())
    return found


def local_shard(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that this process holds, sharing its memory; any other tensor as it is."""
    if dist.is_available() and dist.is_initialized():
        from torch.distributed.tensor import DTensor

        if isinstance(tensor, DTensor):
            with torch.no_grad():
                shard: Tensor = tensor.to_local()
            return shard
    return tensor


@contextmanager
def replaced(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with other weights inside the block; the live ones are back after it, bit for bit, also after an error.

    values  by the names and shapes of `weights_in_place`; ValueError where they differ
    While the block runs the live weights wait in host memory. Nothing is sent between processes.
    """
    own = weights_in_place(model)
    check_same(own, values, "the model", "the weights to put in")
    live = {name: tensor.to("cpu", copy=True) for name, tensor in own.items()}
    try:
        _write(own, values)
        yield
    finally:
        _reshard(unwrap(model))
        _write(own, live)


def check_same(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], whose: str, others: str) -> None:
    """Raise ValueError, in one line, where two sets of weights differ in names or shapes."""
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or extra:
        said = [f"no {_first(missing)} in {others}"] * bool(missing) + [f"no {_first(extra)} in {whose}"] * bool(extra)
        raise ValueError(f"{' and '.join(said)}: both must come from the same model")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            shapes = f"{tuple(tensor.shape)} in {whose} and {tuple(found[name].shape)} in {others}"
            raise ValueError(f"{name} has shape {shapes}: both must come from the same model")


def _first(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _plain(name: str) -> str:
    return name.replace("_orig_mod.", "")


@torch.no_grad()
def _write(own: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in own.items():
        tensor.copy_(values[name])


def _reshard(model: nn.Module) -> None:
    """Bring FSDP2 parameters back to their shards.

    After a forward pass without a backward one, FSDP2 leaves the root's parameters gathered, and the next pass would
    use that copy whatever is written to the shards.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    for module in model.modules():
        if isinstance(module, FullyShardedDataParallel):
            raise ValueError("FSDP1 flattens the parameters and cannot be averaged by name: use FSDP2 (fully_shard)")
        if isinstance(module, FSDPModule):
            module.reshard()
