"""For the tests of this room's model: small XLNets of transformers and of two streams, and orders."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, XLNetConfig, XLNetLMHeadModel

from shoestring.methods.permutation.convert import from_transformers


class Pair(NamedTuple):
    theirs: PreTrainedModel
    ours: PreTrainedModel


class Ordered(NamedTuple):
    rank: Tensor
    sees: Tensor


@pytest.fixture
def pair() -> Callable[..., Pair]:
    """Two models of the same weights, theirs of transformers and ours: pair(head, seed=0, **configuration)."""

    def made(
        head: type[PreTrainedModel] = XLNetLMHeadModel,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        **changes: Any,
    ) -> Pair:
        torch.manual_seed(seed)
        sizes = {"vocab_size": 17, "d_model": 8, "n_layer": 3, "n_head": 2, "d_inner": 16}
        # weights and biases are large, so that no part of the sums is lost in the others
        config = XLNetConfig(**sizes | {"dropout": 0.0, "initializer_range": 0.5} | changes)
        theirs = head(config).to(dtype).eval()
        for name, weight in theirs.named_parameters():
            if "bias" in name:
                nn.init.normal_(weight, std=0.5)
        sinusoids = theirs.transformer.relative_positional_encoding
        theirs.transformer.relative_positional_encoding = lambda *given, **named: sinusoids(*given, **named).to(dtype)
        ours = copy.deepcopy(theirs)
        return Pair(theirs, from_transformers(ours))

    return made


@pytest.fixture
def tiny(pair: Callable[..., Pair]) -> Callable[..., Any]:
    """A two-stream language model in fp64, in evaluation: tiny(seed=0, **configuration)."""
    return lambda **changes: pair(**changes).ours


@pytest.fixture
def ordered() -> Callable[..., Ordered]:
    """ordered(rows, length, block=None, context=0.4): random orders in blocks, some tokens functional and some context.

    The first token of a block is context, so that no row sees nothing.
    """

    def made(rows: int, length: int, block: int | None = None, context: float = 0.4) -> Ordered:
        block = block or length
        rank, sees = torch.zeros(rows, length, dtype=torch.int32), torch.zeros(rows, length, dtype=torch.int32)
        for row in range(rows):
            for start in range(0, length, block):
                size = min(block, length - start)
                kinds = torch.rand(size)
                kinds[0] = 0.0
                base = start // block * (block + 1)
                for position, place in enumerate(torch.randperm(size).tolist()):
                    kept, functional = bool(kinds[position] < context), bool(kinds[position] > 0.9)
                    rank[row, start + position] = base + (-1 if kept else place)
                    sees[row, start + position] = base + (0 if kept else place + functional)
        return Ordered(rank, sees)

    return made


@pytest.fixture
def tool(command: Callable[..., SimpleNamespace]) -> Callable[..., SimpleNamespace]:
    """`shoestring permutation …` in this process: tool(words…, columns=200) returns code, out and err."""
    return partial(command, "permutation")
