"""Where and how to compute: device, precision, seeds, processes."""

from __future__ import annotations

import gc
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from transformers import PreTrainedModel

Precision = Literal["fp32", "bf16"]
Sharding = Literal["ddp", "fsdp2"]


@dataclass(frozen=True)
class Runtime:
    """The processes and the device of this run, and the precision of its matrix products."""

    accelerator: Accelerator
    precision: Precision
    sharding: Sharding

    @property
    def device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def processes(self) -> int:
        return int(self.accelerator.num_processes)

    def autocast(self) -> AbstractContextManager[Any]:
        """Matrix products in the run's precision; the weights stay as they are."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Place the model, and across processes wrap or shard it. What is prepared already comes back as it is."""
        if self.processes == 1:
            return model.to(self.device), optimizer
        if isinstance(model, DistributedDataParallel | FSDPModule):
            return model, optimizer
        if self.sharding == "fsdp2":
            # accelerate 1.15 passes its FSDP plugin over on CPUs and says nothing, so torch is asked directly
            return _shard(model.to(self.device), optimizer, self), optimizer
        prepared, wrapped = self.accelerator.prepare(model, optimizer)
        return prepared, wrapped.optimizer

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        """Backward passes within add to each process's own gradients and send nothing."""
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(False)
            try:
                yield
            finally:
                model.set_requires_gradient_sync(True)
        elif isinstance(model, DistributedDataParallel):
            with model.no_sync():
                yield
        else:
            yield

    def sum(self, *numbers: float) -> list[float]:
        """Numbers added up over the processes, in float64."""
        if self.processes == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return [float(number) for number in total]


_current: Runtime | None = None
_PATIENCE = timedelta(hours=12)  # others wait while the first process packs a large corpus


def start(precision: Precision = "fp32", processes: int | None = None, sharding: Sharding = "ddp") -> Runtime:
    """Join the processes that a launcher started, choose device and precision; later calls replace the precision.

    processes   how many were asked for; a launcher that started another number is an error, not a slower run
    sharding    across processes: whole replicas (DDP) or sharded parameters (FSDP2)
    Raises ValueError where the processes are not as many as asked for, or the precision is not to be had here.
    """
    global _current
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if processes is not None and processes != launched:
        raise ValueError(
            f"{processes} processes were asked for but {launched} started: "
            f"use `torchrun --standalone --nproc_per_node {processes} -m shoestring ...`"
        )
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision {precision!r}: expected 'fp32' or 'bf16'")
    if sharding not in ("ddp", "fsdp2"):
        raise ValueError(f"sharding {sharding!r}: expected 'ddp' or 'fsdp2'")
    patient = InitProcessGroupKwargs(timeout=_PATIENCE)
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), kwargs_handlers=[patient])
    if accelerator.num_processes != launched:
        raise ValueError(f"{launched} processes were launched but accelerate joined {accelerator.num_processes}")
    _current = Runtime(accelerator, precision, sharding)
    return _current


def current() -> Runtime:
    """The runtime that `start` made; one process in fp32 where nobody called it."""
    return _current or start()


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, inside what DDP and torch.compile put around it."""
    while isinstance(model, DistributedDataParallel | OptimizedModule):
        model = model.module if isinstance(model, DistributedDataParallel) else model._orig_mod
    return model


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The state of every generator a training step of this process may draw from, as plain values and tensors."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": {"version": version, "internal": list(internal), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "rest": [int(position), int(has_gauss), float(cached)],
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Take over what `random_state` gave."""
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["internal"]), python["gauss"]))
    position, has_gauss, cached = numpy["rest"]
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["name"], keys, int(position), int(has_gauss), cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def faster_precision(step: Callable[[], Tensor], repeats: int = 3) -> Precision:
    """The precision in which a training step took the least time here: bf16 must be measured faster to be chosen.

    step    runs forward and backward once and returns the loss; called 2 + 2 * repeats times
    """
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    times: dict[Precision, float] = {}
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            times[precision] = min(_timed(step) for _ in range(repeats + 1))
    return "bf16" if times["bf16"] < times["fp32"] else "fp32"


def cores() -> int:
    """Processor cores that this process may run on; a container's quota of time is not looked at."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def threads(processes: int) -> int:
    """Threads of each of so many processes that share the cores: no more than OMP_NUM_THREADS, where a user set that.

    A launcher of several processes sets it to 1 by itself, which says nothing.
    """
    fair, most = max(1, cores() // processes), os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    told = most.isdecimal() and int(most) and "LOCAL_RANK" not in os.environ
    return min(fair, int(most)) if told else fair


def release() -> None:
    """Give back a CUDA device's memory that this process has no more use for, to others that share it."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()


def compiler() -> str | None:
    """Why `torch.compile` cannot work here, or None where it can: on a CPU it needs a C++ compiler."""
    if torch.accelerator.is_available() or shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++"):
        return None
    return "no C++ compiler (g++ or clang++) was found"


def _timed(step: Callable[[], Tensor]) -> float:
    since = time.perf_counter()
    step().item()
    return time.perf_counter() - since


def _shard(model: nn.Module, optimizer: Optimizer, here: Runtime) -> nn.Module:
    """Shard a model block by block with FSDP2 and give the optimizer the sharded parameters."""
    if optimizer.state:
        raise ValueError("an optimizer that has taken steps cannot be sharded: prepare the run before its first step")
    names = {parameter: name for name, parameter in model.named_parameters()}
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = half if here.precision == "bf16" else MixedPrecisionPolicy()
    mesh = init_device_mesh(here.device.type, (here.processes,))
    blocks = set(model._no_split_modules or ()) if isinstance(model, PreTrainedModel) else set()
    for module in model.modules():
        if type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    sharded = dict(model.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [sharded[names[parameter]] for parameter in group["params"]]
    return model
