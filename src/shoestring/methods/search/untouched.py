"""A forward pass that leaves no trace in the model."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase

from shoestring.methods.search.inputs import Inputs, arguments


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Norms that keep statistics take those of the batch; all else is in evaluation mode; afterwards all is as before.

    What is put back is the mode of each module and the generators of torch, NumPy and Python; inside, torch's are
    seeded alike each time. Dropout is off, which the paper's training mode would leave on: its noise belongs to no
    architecture. So are torch's fused encoder layers, whose activations no one sees, and inference mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    devices = sorted({tensor.device.index for tensor in model.parameters() if tensor.device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()
    fused = torch.backends.mha.get_fastpath_enabled()
    gradients = torch.is_grad_enabled()  # leaving inference mode would turn them on
    with torch.inference_mode(False), torch.set_grad_enabled(gradients), torch.random.fork_rng(devices=devices):
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            for module, _ in modes:
                module.training = isinstance(module, _NormBase)
            torch.default_generator.manual_seed(0)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(0)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
            for module, training in modes:
                module.training = training
            random.setstate(python)
            np.random.set_state(numpy)


def passed(model: nn.Module, inputs: Inputs, tensors: dict[str, Tensor] | None = None) -> Any:
    """What the model returns for a batch, with these tensors in place of its own of the same names.

    Copies stand in for all else that a pass may write to: the batch, buffers, embeddings that renormalise themselves.
    """
    positional, named = arguments(inputs)
    state = {name: buffer.clone() for name, buffer in model.named_buffers()} | (tensors or {})
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            weight = f"{name}.weight" if name else "weight"
            state[weight] = state.get(weight, module.weight.detach()).clone()
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled code hides its operations
        return functional_call(model, state, positional, named)
