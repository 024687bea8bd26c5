"""Which decoders are drawn: sizes even in the logarithm, others equal, and the same ones each time."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.methods.search.decoders import Decoder
from shoestring.methods.search.recipe_decoders_draw import drawn, evenly, various
from shoestring.methods.search.recipe_schema import Decoders

CHOICES = {
    "layers": (2, 3, 4, 5, 6),
    "widths": (32, 48, 64, 96),
    "head_widths": (16,),
    "ratios": (1.0, 2.0, 4.0),
    "parameters": (50_000, 500_000),
    "free": 6,
    "fixed": 3,
    "fixed_parameters": 150_000,
    "tolerance": 0.1,
    "steps": 10,
    "warmup_steps": 1,
    "learning_rates": (1e-3,),
}


def chosen(**changes: object) -> Decoders:
    return Decoders(**(CHOICES | changes))  # type: ignore[arg-type]


def test_one_a_band_by_hand():
    """Sizes of 1 to 1000 in three bands: up to 10, up to 100, up to 1000."""
    members = [Decoder(size, 32, 2, 32) for size in (1, 9, 11, 99, 101, 1000)]
    found = evenly(members, [one.layers for one in members], 3, Random(0))
    assert [math.ceil(math.log10(one.layers + 0.5)) for one in found] == [1, 2, 3]


def test_an_empty_band_gives_what_is_nearest_and_left():
    members = [Decoder(size, 32, 2, 32) for size in (1, 2, 1000)]
    found = evenly(members, [one.layers for one in members], 3, Random(0))
    assert sorted(one.layers for one in found) == [1, 2, 1000]


def test_heads_alone_make_no_variety_while_there_is_other():
    pair = [Decoder(2, 32, heads, 32) for heads in (1, 2, 4)]
    others = [Decoder(layers, 32, 2, 32) for layers in (3, 4)]
    for seed in range(20):
        found = various([*pair, *others], 3, Random(seed))
        assert len({(one.layers, one.width, one.inner) for one in found}) == 3
    assert len(set(various([*pair, *others], 5, Random(0)))) == 5


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), free=st.integers(3, 12))
def test_both_groups_keep_their_sizes_and_hold_none_twice(seed, free):
    found = drawn(chosen(free=free), 257, Random(seed))
    sizes = [found.parameters(text) for text in found.free]
    assert len(set(found.free)) == free
    assert sizes == sorted(sizes)
    assert all(50_000 <= size <= 500_000 for size in sizes)
    assert len(set(found.fixed)) == 3
    assert all(135_000 <= found.parameters(text) <= 165_000 for text in found.fixed)
    decoded = [found.space.decode(text) for text in found.every]
    assert all(one.width // one.heads == 16 for one in decoded)
    assert [found.parameters(text) for text in found.every] == sorted(map(found.parameters, found.every), reverse=True)
    assert set(found.every) == {*found.free, *found.fixed}
    assert drawn(chosen(free=free), 257, Random(seed)) == found


def test_sizes_are_even_in_the_logarithm():
    found = drawn(chosen(free=8), 257, Random(3))
    logs = [math.log(found.parameters(text)) for text in found.free]
    steps = [later - earlier for earlier, later in pairwise(logs)]
    assert max(steps) < 2.5 * (logs[-1] - logs[0]) / 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"free": 500}, r"free is 500, but these choices hold \d+ decoders of 50,000 to 500,000 parameters"),
        ({"fixed_parameters": 490_000, "tolerance": 0.001}, "fixed is 3, but these choices hold 0 decoders of 489,510"),
    ],
)
def test_too_few_of_a_size_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        drawn(chosen(**changes), 257, Random(0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": (5, 5)}, "parameters from less to more, got 5 to 5"),
        ({"warmup_steps": 10}, "warmup_steps below steps=10, got 10"),
        ({"learning_rates": (1e-3, 1e-3)}, "each learning rate once"),
        ({"free": 2}, "free"),
    ],
)
def test_what_could_not_end_well_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        chosen(**changes)
