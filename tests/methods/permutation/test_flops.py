"""FLOPs by formula beside those that were counted."""

from typing import Any

import pytest
import torch

from shoestring.cost import flops as counted
from shoestring.methods.permutation import flops
from shoestring.methods.permutation.configurations import build, configuration, names
from shoestring.methods.permutation.layout import Layout, blockwise

ROWS, LENGTH, MEMORY, PREDICTED, BLOCK = 4, 48, 24, 7, 24


def order(targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rank, sees = blockwise(torch.zeros(ROWS, LENGTH), BLOCK)
    told = sees.gather(1, targets) + torch.arange(PREDICTED, dtype=torch.int32)
    return rank.scatter(1, targets, told), sees.scatter(1, targets, told)


def agree(config: Any, **given: Any) -> None:
    torch.manual_seed(0)
    model = build(config, 0)
    targets = torch.stack([torch.randperm(LENGTH)[:PREDICTED].sort()[0] for _ in range(ROWS)])
    rank, sees = order(targets)
    asked = None if given.get("stream") is None else targets
    segments = torch.zeros(ROWS, LENGTH, dtype=torch.long) if given.get("segments") else None
    both, stream, compensate = given.get("both", False), given.get("stream") or "query", given.get("compensate")
    with counted.counting() as found:
        model(
            torch.randint(config.vocab_size, (ROWS, LENGTH)),
            token_type_ids=segments,
            mems=[torch.randn(MEMORY, ROWS, config.d_model) for _ in range(config.n_layer)],
            rank=rank,
            sees=sees,
            targets=asked,
            stream=stream,
            bidirectional=both,
            compensate=compensate,
        ).logits.sum().backward()
    layout = Layout(rank, sees, asked, stream, segments, MEMORY, None, compensate)
    assert flops.step(config, layout, 2 if both else 1) == found.flops


@pytest.mark.parametrize(
    "given",
    [
        {"stream": "query"},
        {"stream": "query", "segments": True},
        {"stream": "query", "both": True},
        {"stream": "query", "compensate": BLOCK},
        {"stream": "content"},
        {},
    ],
    ids=lambda given: "-".join(given) or "all",
)
def test_the_formula_is_what_is_counted(given: dict[str, Any]) -> None:
    agree(configuration("xlnet-tiny", 50, n_layer=3), **given)


@pytest.mark.parametrize("name", names())
def test_of_every_shape(name: str) -> None:
    """Of two layers: the others are as the first."""
    agree(configuration(name, 50, n_layer=2), stream="query", segments=True)


def test_keys_that_no_row_sees_cost_nothing() -> None:
    config = configuration("xlnet-tiny", 50)
    rank, sees = blockwise(torch.zeros(1, 256), 64)
    whole = blockwise(torch.zeros(1, 256), 256)
    assert flops.step(config, Layout(rank, sees)) < 0.9 * flops.step(config, Layout(*whole))
