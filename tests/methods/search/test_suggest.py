"""Spaces as Optuna sees them."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FixedTrial

from shoestring.methods.search.cells201 import OPERATIONS, Cell, Cells201
from shoestring.methods.search.decoders import Decoder, Decoders, _members
from shoestring.methods.search.latency import Within
from shoestring.methods.search.listed import Listed
from shoestring.methods.search.macro import Macro
from shoestring.methods.search.sizes import Sizes
from shoestring.methods.search.suggest import Suggests, suggests
from shoestring.methods.search.table import Table

CELLS = Cells201()
DECODERS = Decoders(256, 64, max_parameters=300_000)


def shape(layers: int, width: int, heads: int, ratio: float) -> FixedTrial:
    return FixedTrial({"layers": layers, "width": width, "heads": heads, "ratio": ratio})


# by hand


def test_a_cell_is_six_named_operations() -> None:
    cell: Cell = (*OPERATIONS, "none")
    parameters = suggests(CELLS).parameters(cell)
    assert parameters == {
        "edge 0 to 1": "none",
        "edge 0 to 2": "skip_connect",
        "edge 1 to 2": "nor_conv_1x1",
        "edge 0 to 3": "nor_conv_3x3",
        "edge 1 to 3": "avg_pool_3x3",
        "edge 2 to 3": "none",
    }
    assert suggests(CELLS).suggest(FixedTrial(parameters)) == cell


def test_a_decoder_is_four_numbers() -> None:
    space = Decoders(256, 64, layers=(1, 2, 4), widths=(32, 64), heads=(2, 4), ratios=(1.0, 4.0))
    asked = suggests(space)
    assert asked.parameters(Decoder(2, 64, 4, 256)) == {"layers": 2, "width": 64, "heads": 4, "ratio": 4.0}
    assert asked.suggest(shape(2, 64, 4, 4.0)) == Decoder(2, 64, 4, 256)
    assert asked.suggest(shape(3, 50, 3, 1.5)) == Decoder(4, 64, 4, 64)


def test_what_is_beyond_the_budget_becomes_the_nearest_within_it() -> None:
    space = Decoders(256, 64, layers=(1, 2), widths=(32, 64), heads=(2,), ratios=(1.0,), max_parameters=30_000)
    assert {decoder.width for decoder in _members(space).rows} == {32}
    assert suggests(space).suggest(shape(2, 64, 2, 1.0)) == Decoder(2, 32, 2, 32)


# against a reference, and properties


def test_every_cell_and_decoder_comes_back() -> None:
    random = Random(0)
    for space in (CELLS, DECODERS, Macro(), Sizes()):
        asked: Suggests[Any] = suggests(space)
        for _ in range(40):
            drawn: Any = space.draw(random)
            assert asked.suggest(FixedTrial(asked.parameters(drawn))) == drawn


def test_a_rounded_feed_forward_part_stays_in_the_range_that_optuna_knows() -> None:
    space = Decoders(256, 64, layers=(1,), widths=(36,), heads=(2,), ratios=(1.01, 3.99))
    low, high = _members(space).rows
    asked = suggests(space)
    assert (low.inner / 36, high.inner / 36) == (1.0, 4.0)
    assert [asked.parameters(one)["ratio"] for one in (low, high)] == [1.01, 3.99]
    assert [asked.suggest(FixedTrial(asked.parameters(one))) for one in (low, high)] == [low, high]


def test_what_optuna_draws_is_of_the_space() -> None:
    for space in (Macro(), Sizes(), CELLS, DECODERS):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        asked: Suggests[Any] = suggests(space)
        drawn: list[Any] = [asked.suggest(study.ask()) for _ in range(60)]
        assert all(space.decode(space.encode(one)) == one for one in drawn)
        assert len(set(drawn)) > 25
    assert all(one in _members(DECODERS).known for one in drawn)


def test_the_nearest_is_the_nearest_by_every_member() -> None:
    asked, random = suggests(DECODERS), Random(1)
    for _ in range(20):
        wanted = (random.randint(1, 24), random.randint(32, 1024), random.randint(2, 16), random.uniform(1, 6))

        def far(decoder: Decoder, wanted: tuple[int, int, int, float] = wanted) -> float:
            own = (decoder.layers, decoder.width, decoder.heads, decoder.inner / decoder.width)
            return math.hypot(*(math.log2(a) - math.log2(b) for a, b in zip(own, wanted, strict=True)))

        assert far(asked.suggest(shape(*wanted))) == pytest.approx(
            min(far(decoder) for decoder in _members(DECODERS).rows)
        )


# spaces in spaces, and spaces of one's own


def test_what_a_table_does_not_hold_is_pruned() -> None:
    cell: Cell = ("none",) * 6
    asked = suggests(Listed(CELLS, Table(("a",), {CELLS.encode(cell): [1.0]}, "mine.csv")))
    assert asked.suggest(FixedTrial(asked.parameters(cell))) == cell
    with pytest.raises(optuna.TrialPruned, match=r"is not in mine\.csv"):
        asked.suggest(FixedTrial(asked.parameters(("skip_connect",) * 6)))


def test_what_is_too_slow_is_pruned() -> None:
    fast, slow = Decoder(1, 32, 2, 32), Decoder(2, 32, 2, 32)
    known = {DECODERS.encode(fast): 0.001, DECODERS.encode(slow): 0.1}
    asked = suggests(Within(DECODERS, 0.02, {"input_ids": torch.ones(1, 4, dtype=torch.long)}, known=known))
    assert asked.suggest(FixedTrial(asked.parameters(fast))) == fast
    with pytest.raises(optuna.TrialPruned, match="takes more than 20 ms"):
        asked.suggest(FixedTrial(asked.parameters(slow)))


def test_a_space_may_have_its_own_way() -> None:
    class Own(Cells201):
        def suggest(self, trial: optuna.Trial) -> Cell:
            return (trial.suggest_categorical("all", OPERATIONS),) * 6

        def parameters(self, architecture: Cell) -> dict[str, str | int | float]:
            return {"all": architecture[0]}

    space = Own()
    assert suggests(space) is space


def test_a_space_without_a_way_is_refused(tmp_path: Path) -> None:
    class Plain:
        name = "mine"

    with pytest.raises(ValueError, match="Optuna cannot draw from the space mine: expected nas-bench-201, "):
        suggests(Plain())  # type: ignore[arg-type]
