"""An architecture's learning rate is chosen on dev, and its cost is that of trying them all."""

from __future__ import annotations

import pytest

from shoestring.cost import Cost
from shoestring.methods.search.recipe_decoders_candidate import Candidate, mean
from shoestring.methods.search.recipe_decoders_train import Training


def training(dev: float, test: float, flops: float = 10.0) -> Training:
    points = [
        {"step": 1, "cost": Cost(flops=flops / 2).as_dict(), "test": test + 1},
        {"step": 2, "cost": Cost(flops=flops).as_dict(), "test": test},
    ]
    ledger = {"train": Cost(flops=flops).as_dict(), "evaluate": Cost(flops=1e6).as_dict()}
    return Training(points, dev, ledger)


def lost(flops: float) -> Training:
    return Training([], None, {"train": Cost(flops=flops).as_dict()}, "the loss is nan")


def candidate(trainings: dict[tuple[float, int], Training]) -> Candidate:
    return Candidate("layers=1", 100, {}, trainings)


def test_dev_chooses_though_test_would_choose_otherwise():
    found = candidate(
        {
            (0.1, 0): training(2.0, 9.0),
            (0.1, 1): training(4.0, 7.0, flops=30.0),
            (0.2, 0): training(1.0, 1.0),
            (0.2, 1): training(6.0, 1.0, flops=50.0),
        }
    )
    assert found.rate == 0.1
    assert (found.dev, found.test, found.tested(1)) == (3.0, 8.0, 7.0)
    assert found.cost == Cost(flops=(10 + 10 + 30 + 50) / 2)
    assert [(at.step, at.cost.flops, at.test) for at in found.along(1)] == [(1, 40, 8), (2, 80, 7)]


def test_a_rate_that_lost_a_seed_is_not_chosen_but_paid_for():
    found = candidate(
        {(0.1, 0): training(2.0, 2.0), (0.1, 1): training(2.0, 2.0), (0.2, 0): training(1.0, 1.0), (0.2, 1): lost(4.0)}
    )
    assert found.rate == 0.1
    assert found.diverged == ["layers=1 at 0.2, seed 1: the loss is nan"]
    assert [at.cost.flops for at in found.along(1)] == [9, 14]
    assert found.cost.flops == (20 + 14) / 2


def test_all_rates_lost_are_refused():
    with pytest.raises(
        ValueError, match=r"layers=1: every learning rate diverged: .*seed 0: the loss is nan: give low"
    ):
        candidate({(0.1, 0): lost(1.0)})


def test_mean_of_costs():
    assert mean([Cost(flops=1, seconds=4, peak_bytes=6), Cost(flops=3, peak_bytes=2)]) == Cost(
        flops=2, seconds=2, peak_bytes=4
    )
