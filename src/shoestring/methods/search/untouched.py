"""A forward pass that leaves no trace in the model."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase

from shoestring.methods.search.inputs import Inputs, arguments


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Norms that keep statistics take those of the batch; all else is in evaluation mode; afterwards all is as before.

    What is put back is the mode of each module and the generators of torch, NumPy and Python. Dropout is off, which the
    paper's training mode would leave on: its noise belongs to no architecture.
    """
    modes = [(module, module.training) for module in model.modules()]
    devices = sorted({tensor.device.index for tensor in model.parameters() if tensor.device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        try:
            for module, _ in modes:
                module.training = isinstance(module, _NormBase)
            yield
        finally:
            for module, training in modes:
                module.training = training
            random.setstate(python)
            np.random.set_state(numpy)


def passed(model: nn.Module, inputs: Inputs) -> Any:
    """What the model returns for a batch, with copies in the place of its buffers, which it may write to."""
    positional, named = arguments(inputs)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled code hides its operations
        return functional_call(model, buffers, positional, named)
