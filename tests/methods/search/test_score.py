"""The log-determinant, apart in size and shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shoestring.methods.search.kernel import kernel
from shoestring.methods.search.score import log_determinant, score


def test_by_hand() -> None:
    """Codes 10 and 11: agreements 2 1, 1 2, whose determinant is 3."""
    found = score(nn.ReLU(), torch.tensor([[1.0, -1.0], [2.0, 3.0]]))
    assert found.value == pytest.approx(math.log(3))
    assert found.size_term == pytest.approx(2 * math.log(2))
    assert found.shape_term == pytest.approx(math.log(3 / 4))
    assert found.units == 2


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(20, 60), st.integers(0, 999))
def test_the_value_is_the_published_one_and_the_sum_of_its_terms(count: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    model, rows = nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 2)), torch.randn(count, 5)
    found = score(model, rows)
    agreements = kernel(model, rows).agreements.double().numpy()
    sign, logarithm = np.linalg.slogdet(agreements)
    if math.isinf(found.value):
        assert sign == 0 or np.linalg.matrix_rank(agreements) < count
        return
    assert found.value == pytest.approx(float(logarithm), rel=1e-9)
    assert found.value == pytest.approx(found.size_term + found.shape_term, abs=1e-9)


def test_the_same_codes_twice_add_to_the_size_alone() -> None:
    torch.manual_seed(0)
    rows = torch.randn(6, 5)
    first = nn.Linear(5, 40)
    once, twice = nn.Sequential(first, nn.ReLU()), nn.Sequential(first, nn.ReLU())
    with torch.no_grad():
        doubled = nn.Linear(5, 80)
        doubled.weight.copy_(first.weight.repeat(2, 1))
        doubled.bias.copy_(first.bias.repeat(2))
    twice[0] = doubled
    one, two = score(once, rows), score(twice, rows)
    assert two.shape_term == pytest.approx(one.shape_term)
    assert two.value - one.value == pytest.approx(6 * math.log(2))


def test_samples_that_a_network_cannot_tell_apart_give_minus_infinity() -> None:
    """Two rows that differ, with equal codes; the exact ties and the singular kernels of few units alike."""
    assert score(nn.ReLU(), torch.tensor([[1.0, 2.0], [3.0, 4.0], [-1.0, 2.0]])).value == -math.inf
    torch.manual_seed(0)
    few = nn.Sequential(nn.Linear(5, 2), nn.ReLU())
    assert score(few, torch.randn(9, 5)).value == -math.inf


def test_log_determinant_of_what_is_singular_only_by_rounding() -> None:
    vectors = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert log_determinant(vectors @ vectors.T) == -math.inf
    assert log_determinant(torch.eye(4) * 3) == pytest.approx(4 * math.log(3))
