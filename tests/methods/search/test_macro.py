"""NAS-Bench-Macro: digits, and networks with the parameters and multiply-adds of the public table."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from shoestring.methods.search.macro import Macro

SPACE = Macro()
DATA = Path(os.environ.get("SHOESTRING_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))


def parameters(text: str, classes: int = 10) -> int:
    space = Macro(classes)
    with torch.device("meta"):
        model = space.build(space.decode(text), 0)
    return sum(parameter.numel() for parameter in model.parameters())


def products(text: str) -> int:
    """Multiply-adds of one image of 32x32."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        SPACE.build(SPACE.decode(text), 0)(torch.empty(1, 3, 32, 32))
    return counter.get_total_flops() // 2


# by hand


def test_the_network_that_passes_on() -> None:
    """A convolution where a stage starts, and none elsewhere."""
    stem, head, last = 3 * 9 * 32 + 2 * 32, 256 * 1280 + 2 * 1280, 1280 * 10 + 10
    stages = sum(c * 2 * c + 2 * 2 * c for c in (32, 64, 128))
    assert parameters("00000000") == stem + stages + head + last


def test_the_size_of_a_block() -> None:
    def bottleneck(channels: int, expansion: int, side: int) -> int:
        wide = channels * expansion
        return channels * wide + 2 * wide + side * side * wide + 2 * wide + wide * channels + 2 * channels

    nothing = parameters("00000000")
    assert parameters("01000000") == nothing + bottleneck(64, 3, 3)
    assert parameters("00000002") == nothing + bottleneck(256, 6, 5)
    assert parameters("00000000", classes=100) == nothing + 90 * 1281


def test_parameters_and_multiply_adds_are_the_tables() -> None:
    path = DATA / "search" / "nasbench_macro_dev.csv.gz"
    if not path.is_file():
        pytest.skip(f"no table at {path}: set SHOESTRING_DATA")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [SPACE.encode(SPACE.decode(row["arch"])) for row in rows] == [row["arch"] for row in rows]
    chosen = Random(0).sample(rows, 100)
    assert [parameters(row["arch"]) for row in chosen] == [int(row["params"]) for row in chosen]
    assert [products(row["arch"]) for row in chosen[:10]] == [int(row["flops"]) for row in chosen[:10]]


def test_a_shortcut_is_around_a_block_that_keeps_the_shape() -> None:
    def through(text: str) -> torch.Tensor:
        model = SPACE.build(SPACE.decode(text), 0).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():  # nothing comes out of a block's own convolutions
                if ".body.4.1." in name:
                    parameter.zero_()
            found: torch.Tensor = model(torch.ones(2, 3, 32, 32) * torch.tensor([1.0, 2.0])[:, None, None, None])
        return found

    assert not torch.equal(*through("01000000"))  # what comes in goes by
    assert torch.equal(*through("10000000"))  # and nothing by a block that halves the side


# properties


@given(st.integers(0, 2**32))
def test_texts_and_neighbours(seed: int) -> None:
    random = Random(seed)
    layers = SPACE.draw(random)
    assert SPACE.decode(SPACE.encode(layers)) == layers
    around = list(SPACE.neighbours(layers))
    assert len(around) == len(set(around)) == 8 * 2
    assert all(sum(a != b for a, b in zip(layers, other, strict=True)) == 1 for other in around)
    assert SPACE.mutate(layers, random) in around


def test_all_blocks_are_drawn_alike() -> None:
    random = Random(0)
    drawn = [SPACE.draw(random) for _ in range(1500)]
    for layer in range(8):
        shares = [sum(layers[layer] == block for layers in drawn) / 1500 for block in range(3)]
        assert shares == pytest.approx([1 / 3] * 3, abs=0.06)


@pytest.mark.parametrize("seed", range(3))
def test_networks_run(seed: int) -> None:
    logits = SPACE.build(SPACE.draw(Random(seed)), seed)(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 10)
    assert bool(torch.isfinite(logits).all())


def test_same_seed_same_weights() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = (SPACE.build(SPACE.decode("01200000"), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


# bad input


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 layers: a NAS-Bench-Macro network is written as 8 digits"),
        ("012012012", "9 layers"),
        ("01201203", "layer 7 is '3': expected one of 0 (identity), 1 (mb3-k3), 2 (mb6-k5)"),
        ("0120 201", "layer 4 is ' '"),
        ("0120²201", "layer 4 is '²'"),
    ],
)
def test_bad_texts_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        SPACE.decode(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
