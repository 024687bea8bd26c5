"""The size space of NATS-Bench: widths, and networks with the parameters of the table's own programme."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shoestring.methods.search.cells201 import Cells201
from shoestring.methods.search.sizes import CHANNELS, Sizes, Widths

SPACE = Sizes()
CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# by hand


def test_parameters_as_the_tables_own_programme_gives_them() -> None:
    """0.067378 million: notebooks/create-query-sss.ipynb and issue-21.ipynb of https://github.com/D-X-Y/NATS-Bench"""
    assert parameters(SPACE.build(SPACE.decode("8:8:8:16:40"), 0)) == 67_378


def test_a_cell_that_changes_the_channels_has_a_convolution_on_its_shortcut() -> None:
    def sizes(*widths: int) -> int:
        return parameters(SPACE.build(widths, 0))

    def cell(inside: int, outside: int) -> int:
        norms = 5 * 2 * outside
        shortcut = 0 if inside == outside else inside * outside + 2 * outside
        return norms + 9 * (2 * inside * outside + 3 * outside * outside) + shortcut

    def last(width: int) -> int:
        return 2 * width + 10 * width + 10

    assert sizes(8, 8, 8, 8, 64) - sizes(8, 8, 8, 8, 8) == cell(8, 64) + last(64) - cell(8, 8) - last(8)
    assert parameters(Sizes(classes=100).build((8, 8, 8, 8, 64), 0)) == sizes(8, 8, 8, 8, 64) + 90 * 65


def test_the_shortcut_of_a_cell_keeps_what_is_below_nought() -> None:
    shortcut = SPACE.build((8, 8, 16, 16, 16), 0).eval().body[2].edge03
    images = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(shortcut(-images), -shortcut(images))  # fresh norms shift nothing


# against the same network of the other space


def test_the_cell_is_the_one_of_nas_bench_201() -> None:
    """At 16:32:32:64:64 both spaces hold the same network, with its parts in another order."""
    ours = SPACE.build((16, 32, 32, 64, 64), 0)
    space = Cells201(cells=1)
    theirs = space.build(space.decode(CELL), 1)
    weights = dict(ours.state_dict())
    edges = {0: "edge01", 1: "edge02", 2: "edge12", 4: "edge13", 5: "edge23"}
    found = {}
    for name in theirs.state_dict():
        there = name
        for place, edge in edges.items():
            there = there.replace(f".edges.{place}.", f".{edge}.")
        found[name] = weights.pop(there)
    assert weights == {}
    theirs.load_state_dict(found)
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images))


# properties


@given(st.integers(0, 2**32))
def test_texts_and_neighbours(seed: int) -> None:
    random = Random(seed)
    widths = SPACE.draw(random)
    assert SPACE.decode(SPACE.encode(widths)) == widths
    around = list(SPACE.neighbours(widths))
    assert len(around) == len(set(around)) == 5 * 7
    assert all(sum(a != b for a, b in zip(widths, other, strict=True)) == 1 for other in around)
    assert SPACE.mutate(widths, random) in around


def test_all_widths_are_drawn_alike() -> None:
    random = Random(0)
    drawn = [SPACE.draw(random) for _ in range(2000)]
    for layer in range(5):
        shares = [sum(widths[layer] == width for widths in drawn) / 2000 for width in CHANNELS]
        assert shares == pytest.approx([1 / 8] * 8, abs=0.04)


@pytest.mark.parametrize("widths", [(8, 16, 24, 32, 40), (64, 8, 64, 8, 64), (8, 8, 8, 8, 8)])
def test_networks_run(widths: Widths) -> None:
    assert SPACE.decode(SPACE.encode(widths)) == widths
    logits = SPACE.build(widths, 0)(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 10)
    assert bool(torch.isfinite(logits).all())


def test_same_seed_same_weights() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = (SPACE.build((8, 16, 24, 32, 40), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["stem.0.weight"], other["stem.0.weight"])


# bad input


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1 widths: expected 5, as in 8:16:24:32:40"),
        ("8:8:8:8", "4 widths"),
        ("8:8:8:8:12", "layer 4 has '12' channels: expected one of 8, 16, 24, 32, 40, 48, 56, 64"),
        ("8:08:8:8:8", "layer 1 has '08' channels"),
        ("8:-8:8:8:8", "layer 1 has '-8' channels"),
    ],
)
def test_bad_texts_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        SPACE.decode(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
