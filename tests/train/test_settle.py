"""Precision and compilation: measured, kept, and read again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shoestring import runtime
from shoestring.train import settle as settle_module
from shoestring.train.settle import Settled, settle
from shoestring.types import Batch, Loss


class Counting(nn.Module):
    """A model that keeps in which precisions its matrix products ran."""

    seen: list[torch.dtype] = []  # noqa: RUF012  a copy of the model must write to the same list

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.seen.clear()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        self.seen.append(out.dtype)
        return out


def objective(model: nn.Module, batch: Batch) -> Loss:
    return Loss(model(batch["x"]).float().square().sum(), 1, 1)


BATCH = {"x": torch.ones(2, 4)}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "out" / "settled.json"


def settled(kept: Path, **rest: Any) -> Settled:
    return settle(Counting(), objective, BATCH, rest.pop("steps", 10), kept, rest.pop("threads", 1), **rest)


def test_what_is_chosen_is_kept_and_read_again(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = settled(kept)
    assert json.loads(kept.read_text()) == asdict(first)
    assert first.precision in ("fp32", "bf16")
    assert first.threads == 1
    assert [path.name for path in kept.parent.iterdir()] == ["settled.json"]
    monkeypatch.setattr(runtime, "faster_precision", lambda step: pytest.fail("measured again"))
    assert settled(kept) == first


@pytest.mark.parametrize("faster", ["fp32", "bf16"])
def test_auto_takes_what_was_measured_faster(kept: Path, monkeypatch: pytest.MonkeyPatch, faster: str) -> None:
    monkeypatch.setattr(runtime, "faster_precision", lambda step: faster)
    found = settled(kept)
    assert found.precision == faster
    assert set(Counting.seen) == {torch.bfloat16 if faster == "bf16" else torch.float32}
    assert found.why.startswith(f"auto precision: {faster}, ")


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_a_precision_asked_for_is_taken_unmeasured(kept: Path, monkeypatch: pytest.MonkeyPatch, asked: Any) -> None:
    monkeypatch.setattr(runtime, "faster_precision", lambda step: pytest.fail("measured"))
    assert settled(kept, precision=asked).precision == asked


def test_both_are_tried_and_never_half_precision_floats(kept: Path) -> None:
    settled(kept)
    assert set(Counting.seen) == {torch.float32, torch.bfloat16}


def test_the_model_is_not_changed(kept: Path) -> None:
    model = Counting()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settle(model, objective, BATCH, 10, kept, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_short_run_is_not_compiled(kept: Path) -> None:
    found = settled(kept, precision="fp32")
    assert not found.compiled
    assert "not compiled: " in found.why


def test_without_a_compiler_it_stays_eager(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "compiler", lambda: "no compiler here")
    found = settled(kept, steps=10**9, precision="fp32")
    assert (found.compiled, found.why[-31:]) == (False, " not compiled: no compiler here")


@pytest.mark.parametrize(("later", "pays"), [(0.1, True), (0.95, False)])
def test_compiling_must_earn_back_what_it_took(monkeypatch: pytest.MonkeyPatch, later: float, pays: bool) -> None:
    seconds = iter([100.0, later, later, later])
    monkeypatch.setattr(runtime, "compiler", lambda: None)
    monkeypatch.setattr(settle_module, "_seconds", lambda step: next(seconds))
    monkeypatch.setattr(nn.Module, "compile", lambda model, dynamic: None)
    compiled, why = settle_module._compilation(nn.Linear(1, 1), lambda: None, eager=1.0, steps=400)
    assert compiled == pays
    assert why.startswith("compiled" if pays else "not compiled")


def test_the_threads_are_those_of_the_run(kept: Path) -> None:
    settled(kept, threads=2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    settled(kept, threads=1)
    assert torch.get_num_threads() == 2  # as it was kept: other threads, other bits
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", '{"precision": "fp32"}', '{"precision": "fp16", "compiled": false, "threads": 1, "why": ""}'],
)
def test_a_torn_or_foreign_file_is_refused_by_name(kept: Path, content: str) -> None:
    kept.parent.mkdir()
    kept.write_text(content)
    with pytest.raises(ValueError, match=r"settled\.json: .*start with another --out"):
        settled(kept)
