"""NASWOT: how differently an untrained network sees the samples of a batch, from one forward pass.

N samples, U activation units, K (N, N) kernel of code agreements
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from shoestring.methods.search.inputs import Inputs
from shoestring.methods.search.kernel import kernel


class Score(NamedTuple):
    """What a proxy says of an untrained network; higher is better.

    value       what to rank by; -inf where the network cannot tell some samples apart
    size_term   the part of the value that is the number of activation units alone
    shape_term  the rest; nan, as is size_term, for proxies that have no such parts
    units       activation units a sample, all reached layers together; 0 for other proxies
    """

    value: float
    size_term: float = math.nan
    shape_term: float = math.nan
    units: int = 0


def score(model: nn.Module, inputs: Inputs) -> Score:
    """The log-determinant of the Hamming kernel of activation codes on a batch: log |det K|, in nats.

    value = N log U + log |det (K / U)|: the size term counts units, the shape term says how well they tell samples
    apart. Compare values at equal N and equal input resolution only. See `kernel` for what is taken and refused.

    Mellor et al. 2021 (NASWOT), section 3. That the value splits so is ours: twice the units add N log 2 alone.
    """
    found = kernel(model, inputs)
    size = len(found.agreements) * math.log(found.units)
    shape = log_determinant(found.agreements.double() / found.units)
    return Score(size + shape, size, shape, found.units)


def log_determinant(symmetric: Tensor) -> float:
    """log |det| of a positive semi-definite matrix (N, N), -inf where it is singular to float64's precision."""
    values = torch.linalg.eigvalsh(symmetric.double())
    smallest, largest = float(values[0]), float(values[-1])
    if smallest <= len(values) * torch.finfo(torch.float64).eps * largest:
        return -math.inf
    return float(values.log().sum())
