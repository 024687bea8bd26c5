"""Cells of NAS-Bench-201: their texts, their neighbours, what is the same cell, and the network of fifteen of them."""

from __future__ import annotations

import csv
import gzip
import os
from collections import defaultdict
from itertools import product
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shoestring.methods.search.cells201 import EDGES, OPERATIONS, Cell, Cells201, canonical, stripped
from shoestring.methods.search.proxies import PROXIES

SPACE = Cells201()
SMALL = Cells201(channels=4, cells=1)
DATA = Path(os.environ.get("SHOESTRING_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
NOTHING = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
PUBLISHED = "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|avg_pool_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def batch() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


# by hand


def test_the_text_of_a_cell() -> None:
    cell = ("nor_conv_3x3", "none", "nor_conv_1x1", "skip_connect", "avg_pool_3x3", "none")
    text = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|none~2|"
    assert SPACE.encode(cell) == text
    assert SPACE.decode(f" {text}\n") == cell


def test_parameters_as_the_tables_own_programme_gives_them() -> None:
    """0.802426 million for CIFAR-10: https://github.com/D-X-Y/NATS-Bench/issues/36"""
    cell = SPACE.decode(PUBLISHED)
    assert parameters(SPACE.build(cell, 0)) == 802_426
    assert parameters(Cells201(classes=100).build(cell, 0)) == 802_426 + 90 * (64 + 1)


def test_parameters_without_cells() -> None:
    stem = 3 * 9 * 16 + 2 * 16
    reductions = sum(9 * c * 2 * c + 4 * c + 9 * 2 * c * 2 * c + 4 * c + c * 2 * c for c in (16, 32))
    assert parameters(SPACE.build(SPACE.decode(NOTHING), 0)) == stem + reductions + 2 * 64 + 64 * 10 + 10


def test_a_cell_without_a_way_puts_out_nothing() -> None:
    model = SMALL.build(("nor_conv_3x3", "nor_conv_3x3", "nor_conv_3x3", "none", "none", "none"), 0).eval()
    logits = model(batch())
    assert torch.equal(logits, logits[:1].expand(4, -1))


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (("none",) * 6, ""),
        (("skip_connect", "none", "skip_connect", "none", "none", "skip_connect"), "x"),  # a chain that passes on
        (("nor_conv_3x3", "none", "none", "skip_connect", "none", "nor_conv_1x1"), "x"),  # no node reaches the output
        (("skip_connect", "none", "none", "skip_connect", "skip_connect", "none"), "x+x"),
        (("nor_conv_1x1", "none", "avg_pool_3x3", "none", "none", "skip_connect"), "avg_pool_3x3(nor_conv_1x1(x))"),
        (("none", "nor_conv_3x3", "none", "skip_connect", "none", "skip_connect"), "nor_conv_3x3(x)+x"),
        (("nor_conv_3x3", "none", "none", "skip_connect", "skip_connect", "none"), "nor_conv_3x3(x)+x"),
        (("skip_connect", "skip_connect", "none", "none", "nor_conv_3x3", "avg_pool_3x3"), None),
    ],
)
def test_the_canonical_text(cell: Cell, text: str | None) -> None:
    assert canonical(cell) == ("avg_pool_3x3(x)+nor_conv_3x3(x)" if text is None else text)


def test_cells_that_only_pass_on_compute_the_same() -> None:
    ways: list[Cell] = [
        ("none", "none", "none", "skip_connect", "none", "none"),
        ("skip_connect", "none", "none", "none", "skip_connect", "none"),
        ("skip_connect", "none", "skip_connect", "none", "none", "skip_connect"),
    ]
    found = [SMALL.build(cell, 0)(batch()) for cell in ways]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    doubled = SMALL.build(("skip_connect", "none", "none", "skip_connect", "skip_connect", "none"), 0)(batch())
    assert not torch.equal(found[0], doubled)


# against a slow obvious reference


def test_equal_texts_are_the_equal_functions() -> None:
    """Each operation a polynomial without constant, modulo a prime: two cells with the same value are the same sum."""
    prime = 2**61 - 1
    numbers = Random(0)
    factors = {operation: (numbers.randrange(prime), numbers.randrange(prime)) for operation in OPERATIONS}

    def value(cell: Cell, start: int) -> int:
        nodes = [start, 0, 0, 0]
        for (source, target), operation in zip(EDGES, cell, strict=True):
            x = nodes[source]
            one, three = factors[operation]
            carried = {"none": 0, "skip_connect": x}.get(operation, one * x + three * x**3)
            nodes[target] = (nodes[target] + carried) % prime
        return nodes[3]

    texts: dict[int, set[str]] = defaultdict(set)
    for cell in product(OPERATIONS, repeat=6):
        texts[value(cell, 12345)].add(canonical(cell))
    assert all(len(found) == 1 for found in texts.values())  # the same function has one text
    assert len(texts) == len(set().union(*texts.values())) == 4930  # and a text is of one function


def test_every_text_of_the_table_is_read_and_written_alike() -> None:
    path = DATA / "search" / "nasbench201_dev12500.csv.gz"
    if not path.is_file():
        pytest.skip(f"no table at {path}: set SHOESTRING_DATA")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = [row["arch_str"] for row in csv.DictReader(file)]
    assert len(found) == 12_500
    assert [SPACE.encode(SPACE.decode(text)) for text in found] == found


# properties


@given(st.integers(0, 2**32))
def test_texts_and_neighbours(seed: int) -> None:
    random = Random(seed)
    cell = SPACE.draw(random)
    assert SPACE.decode(SPACE.encode(cell)) == cell
    around = list(SPACE.neighbours(cell))
    assert len(around) == len(set(around)) == 6 * 4
    assert all(sum(a != b for a, b in zip(cell, other, strict=True)) == 1 for other in around)
    assert SPACE.mutate(cell, random) in around


def test_all_cells_are_drawn() -> None:
    random = Random(0)
    drawn = [SPACE.draw(random) for _ in range(2000)]
    for edge in range(6):
        shares = [sum(cell[edge] == operation for cell in drawn) / 2000 for operation in OPERATIONS]
        assert shares == pytest.approx([0.2] * 5, abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_networks_run(seed: int) -> None:
    model = SMALL.build(SMALL.draw(Random(seed)), seed)
    logits = model(batch())
    assert logits.shape == (4, 10)
    assert bool(torch.isfinite(logits).all())


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32))
def test_what_is_stripped_computes_the_same_without_idle_weights(seed: int) -> None:
    """Whatever the cell: equal logits from equal weights, equal FLOPs, and a gradient for each weight that is left."""
    cell = SPACE.draw(Random(seed))
    whole, left = SMALL.build(cell, 0), SMALL.build(stripped(cell), 1)
    left.load_state_dict({name: whole.state_dict()[name] for name in left.state_dict()})
    images = batch()
    assert torch.equal(whole(images), left(images))
    flops = [PROXIES["flops"](model, images).value for model in (whole, left)]
    assert flops[0] == flops[1]
    reached = [PROXIES["reached_parameters"](model, images).value for model in (whole, left)]
    assert (
        reached[0]
        == reached[1]
        <= PROXIES["parameters"](left, images).value
        <= PROXIES["parameters"](whole, images).value
    )
    idle = any(edge != "none" for edge in stripped(cell))
    assert not idle or reached[1] == PROXIES["parameters"](left, images).value


@pytest.mark.parametrize(
    ("cell", "computed"),
    [
        (("none", "nor_conv_3x3", "nor_conv_3x3", "none", "nor_conv_3x3", "nor_conv_3x3"), (1, 5)),  # 1 is fed nothing
        (("nor_conv_3x3", "none", "none", "skip_connect", "none", "nor_conv_1x1"), (3,)),  # 1 and 2 lead nowhere
        (("nor_conv_3x3", "none", "none", "none", "none", "nor_conv_1x1"), ()),  # cut off
    ],
)
def test_edges_on_no_way_from_input_to_output_are_stripped(cell: Cell, computed: tuple[int, ...]) -> None:
    assert stripped(cell) == tuple(name if edge in computed else "none" for edge, name in enumerate(cell))
    assert stripped(stripped(cell)) == stripped(cell)


def test_same_seed_same_weights() -> None:
    cell = SPACE.decode(PUBLISHED)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = (SMALL.build(cell, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["stem.0.weight"], other["stem.0.weight"])


# bad input


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "with 3 nodes, not 1"),
        ("|none~0|+|none~0|none~1|", "with 3 nodes, not 2"),
        (NOTHING.replace("none~2", "conv~2"), "no operation 'conv'"),
        (NOTHING.replace("none~2", "none~1"), "'none~1' in node 3: expected the source ~2"),
        (NOTHING.replace("none~2", "none"), "'none' in node 3: expected the source ~2"),
        (NOTHING.replace("|none~2", ""), "node 3 is '|none~0|none~1|': expected 3 edges"),
        (NOTHING.replace("none~2|", "none~2"), "node 3 is '|none~0|none~1|none~2'"),
        (NOTHING.replace("|none~0|+", "||none~0|+"), "node 1 is '||none~0|'"),
        (NOTHING.replace("|none~0|+", "|+"), "no operation ''"),
    ],
)
def test_bad_texts_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        SPACE.decode(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
