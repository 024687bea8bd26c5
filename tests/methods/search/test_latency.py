"""Seconds of a forward pass, and a space held to them."""

from __future__ import annotations

import time
from random import Random

import pytest
import torch
from torch import Tensor, nn

from shoestring.methods.search.decoders import Decoder, Decoders
from shoestring.methods.search.latency import Within, latency

SPACE = Decoders(50, 16, (1, 2, 3), (16, 32), (2,), (1.0, 2.0))
TEXT = {"input_ids": torch.arange(16)[None]}


class Slow(nn.Module):
    """Takes the listed seconds, one after the other; says how it was called."""

    def __init__(self, *seconds: float) -> None:
        super().__init__()
        self.seconds, self.seen = list(seconds), []
        self.drop = nn.Dropout(0.5)

    def forward(self, rows: Tensor) -> Tensor:
        self.seen.append((self.training, self.drop.training, torch.is_grad_enabled()))
        time.sleep(self.seconds.pop(0))
        torch.rand(3)
        return self.drop(rows)


def test_the_median_of_the_passes_after_the_warm_up() -> None:
    """Sleeps by hand: 0.2 s to warm up, then 10, 30 and 100 ms, whose median is 30."""
    model = Slow(0.2, 0.2, 0.2, 0.01, 0.1, 0.03)
    assert 0.03 <= latency(model, torch.ones(1), repeats=3) < 0.1
    assert model.seconds == []


def test_in_evaluation_mode_without_gradients_and_all_as_before() -> None:
    model = Slow(*[0.0] * 5)
    model.drop.eval()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    latency(model, torch.ones(1), repeats=2)
    assert model.seen == [(False, False, False)] * 5
    assert torch.equal(before, torch.get_rng_state())
    assert (model.training, model.drop.training) == (True, False)


def test_a_pass_that_fails_leaves_the_mode() -> None:
    model = Slow(0.0)
    with pytest.raises(IndexError):
        latency(model, torch.ones(1))
    assert model.training
    assert torch.is_grad_enabled()


def test_a_larger_network_takes_longer() -> None:
    small, large = (SPACE.build(Decoder(n, 32, 2, 64), 0) for n in (1, 12))
    assert latency(small, TEXT) < latency(large, TEXT)


def test_no_repeats_are_refused() -> None:
    with pytest.raises(ValueError, match="repeats is 0: expected one or more"):
        latency(nn.ReLU(), torch.ones(1), repeats=0)


# a space within a limit; what is known is not measured, so these are exact


def known(limit: float = 0.02) -> Within[Decoder]:
    """A layer takes 10 ms."""
    return Within(SPACE, limit, TEXT, known={SPACE.encode(one): one.layers / 100 for one in SPACE.members})


def test_draws_and_walks_stay_within() -> None:
    space, random = known(), Random(0)
    drawn = {space.draw(random) for _ in range(200)}
    assert drawn == {one for one in SPACE.members if one.layers <= 2}
    for one in drawn:
        assert set(space.neighbours(one)) == {other for other in SPACE.neighbours(one) if other.layers <= 2}
        assert {space.mutate(one, random) for _ in range(50)} == set(space.neighbours(one))


def test_each_is_measured_once() -> None:
    space = Within(SPACE, 60.0, TEXT, repeats=1)
    one = space.draw(Random(0))
    measured = dict(space.known)
    assert list(measured) == [space.encode(one)]
    assert space.seconds(one) == measured[space.encode(one)] > 0
    again = Within(SPACE, 60.0, TEXT, repeats=1, known=measured)
    assert again.draw(Random(0)) == one
    assert again.seconds(one) == space.seconds(one)


def test_it_is_the_space_it_holds() -> None:
    space, one = known(), SPACE.members[0]
    assert space.name == SPACE.name
    assert space.decode(space.encode(one)) == one
    pairs = zip(space.build(one, 3).parameters(), SPACE.build(one, 3).parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_limit_that_nothing_meets_names_the_fastest() -> None:
    with pytest.raises(ValueError, match=r"200 architectures in a row took more than 5 ms, the fastest 10 ms"):
        known(0.005).draw(Random(0))


def test_no_neighbour_is_fast_enough() -> None:
    space = known()
    for other in SPACE.neighbours(SPACE.members[0]):
        space.known[SPACE.encode(other)] = 1.0
    with pytest.raises(ValueError, match=r"none of its 4 neighbours takes at most 20 ms"):
        space.mutate(SPACE.members[0], Random(0))


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_must_be_positive(limit: float) -> None:
    with pytest.raises(ValueError, match=r"the limit is .* seconds: expected more than none"):
        Within(SPACE, limit, TEXT)
