"""Scores that are kept: nothing is computed twice, a torn file goes on, a foreign one is refused."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from shoestring.methods.search.inputs import Inputs
from shoestring.methods.search.recipe_scored import named, scored
from shoestring.methods.search.score import Score

ROWS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
BUILDS = {f"wide {width}": partial(nn.Linear, 3, width) for width in (2, 3, 4)}


class Counted:
    """A proxy that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model: nn.Module, inputs: Inputs) -> Score:
        self.calls += 1
        return Score(-math.inf if self.calls == 1 else float(self.calls), 1.5, 2.5, 7)


def test_nothing_is_scored_twice(tmp_path: Path) -> None:
    proxy, path = Counted(), tmp_path / "kept" / "scores.jsonl"
    first = scored(path, "some", {"wide 2": BUILDS["wide 2"]}, {"one": proxy}, ROWS, 1)
    every = scored(path, "all", BUILDS, {"one": proxy}, ROWS, 1)
    assert proxy.calls == 3
    assert every["wide 2"] == first["wide 2"]
    assert every["wide 2"]["one"].score == Score(-math.inf, 1.5, 2.5, 7)
    assert every["wide 3"]["one"].seconds > 0
    other = Counted()
    both = scored(path, "more", BUILDS, {"one": proxy, "two": other}, ROWS, 1)
    assert (proxy.calls, other.calls) == (3, 3)
    assert {key: entry["one"] for key, entry in both.items()} == {key: entry["one"] for key, entry in every.items()}


def test_a_torn_last_line_is_scored_again(tmp_path: Path) -> None:
    proxy, path = Counted(), tmp_path / "scores.jsonl"
    scored(path, "all", BUILDS, {"one": proxy}, ROWS, 1)
    path.write_bytes(path.read_bytes()[:-9])
    scored(path, "all", BUILDS, {"one": proxy}, ROWS, 1)
    assert proxy.calls == 4
    assert len(path.read_text().splitlines()) == 3


def test_a_foreign_file_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text('{"key": "wide 2"}\n')
    with pytest.raises(ValueError, match=r"scores.jsonl line 1: is no kept score"):
        scored(path, "all", BUILDS, {"one": Counted()}, ROWS, 1)


def test_proxies_by_name() -> None:
    assert list(named(("naswot", "parameters"))) == ["naswot", "parameters"]
    with pytest.raises(ValueError, match=r"no proxy is called 'naswat'; did you mean 'naswot'[?]: expected some"):
        named(("naswat", "parameters"))
