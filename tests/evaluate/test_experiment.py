"""An experiment's folder: held, filled and shown; the door's own tests see it through `run` and `report`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from shoestring.config import Recipe
from shoestring.cost import Cost, Ledger
from shoestring.evaluate import experiment, report
from shoestring.evaluate.scores import Pair, Report, Row, Score


class Small(Recipe):
    steps: int = 1


def found(ledger: Ledger) -> Report:
    ledger.charge(tokens=3)
    rows = [Row(name, name == "twin", {"loss": Score(1.0, 0.0, 1)}, Cost(tokens=3)) for name in ("method", "twin")]
    return Report("room", "small", tuple(rows), (), (Pair("method", "twin"),), "loss", facts={"data": "made"})


def test_what_it_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["shoestring", "room", "curve", "a b"])
    experiment.carry_out(Small(), tmp_path / "out", found)
    kept = report.read(tmp_path / "out")
    assert kept.facts["command"] == "shoestring room curve 'a b'"
    assert kept.facts["data"] == "made"
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "recipe.yaml",
        "ledger.json",
        "report.json",
        "report.html",
    }
    assert f"The report: {tmp_path}/out/report.html" in capsys.readouterr().out.replace("\n", " ").strip()
    with pytest.raises(ValueError, match=r"it holds a run with steps=1, this one has steps=2"):
        experiment.carry_out(Small(steps=2), tmp_path / "out", found)


def test_the_first_process_alone_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    experiment.carry_out(Small(), tmp_path / "out", found)
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().out == ""
