"""The commands, as they are typed: what they print and leave behind."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from shoestring.evaluate import report
from shoestring.methods.search import tools_spaces
from shoestring.methods.search.cells201 import Cells201
from shoestring.methods.search.tools import app

SMALL = Cells201(channels=2, cells=1)
MODULE = """
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 20), nn.ReLU(), nn.Linear(20, 3))
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "140")
    (tmp_path / "own.py").write_text(MODULE)
    return tmp_path


def asked(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_score_prints_the_terms_and_every_baseline():
    found = asked("score", "own:net", "--batch", "8x3x4x4")
    assert found.exit_code == 0, found.exception
    lines = {line.split()[0]: line.split() for line in found.stdout.splitlines() if line.strip()}
    name, value, size, shape, units, _ = lines["naswot"]
    assert (name, units) == ("naswot", "20")
    assert float(value) == pytest.approx(float(size) + float(shape), abs=0.02)
    assert float(size) == pytest.approx(8 * np.log(20), abs=0.01)
    assert lines["parameters"][1] == str(48 * 20 + 20 + 20 * 3 + 3)
    assert {"flops", "synflow", "jacob_cov"} <= set(lines)
    assert "• grad_norm: the batch has no labels" in found.stdout


def test_score_takes_one_kind_of_batch():
    found = asked("score", "own:net", "--batch", "8x3x4x4", "--tokens", "9", "--images", "x")
    assert isinstance(found.exception, ValueError)
    assert "give one of them" in str(found.exception)


def test_rank_prints_tau_with_its_interval_and_leaves_a_report(here, monkeypatch):
    monkeypatch.setattr(tools_spaces, "named", lambda _: SMALL)
    random = Random(0)
    texts = sorted({SMALL.encode(SMALL.draw(random)) for _ in range(8)})
    lines = [f"{text},{50 + place},{place / 2}" for place, text in enumerate(texts)]
    (here / "table.csv").write_text("\n".join(["arch_str,c10,c100", *lines]))
    np.savez("a.npz", images=random_pixels(6), labels=np.arange(6))
    words = ["rank", "table.csv", "--images", "a.npz", "--count", "6", "--side", "8", "--column", "c10", "--out", "out"]
    found = asked(*words)
    assert found.exit_code == 0, found.exception
    assert "search · rank · c10" in found.stdout
    assert "c100" not in found.stdout
    for proxy in ("naswot", "parameters †", "flops †", "synflow †", "grad_norm †", "jacob_cov †"):
        assert proxy in found.stdout
    assert "bootstrap interval of τ" in found.stdout
    kept = report.read(here / "out")
    assert kept.groups() == ["c10"]
    assert [panel.x for panel in kept.scatters] == [row.label for row in kept.rows]
    assert "Point by point" in (here / "out" / "report.html").read_text()
    again = asked(*words)
    assert again.exit_code == 0
    assert report.read(here / "out").rows == kept.rows


def random_pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def test_the_commands_are_these():
    found = asked("--help")
    assert all(name in found.stdout for name in ("score", "rank", "find"))
