"""The experiment over cells, small: its rows, its searches, and that it goes on where it was stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from shoestring import config
from shoestring.cost import Ledger
from shoestring.evaluate.scores import Report
from shoestring.methods.search import recipe_cells
from shoestring.methods.search.cells201 import Cells201, canonical
from shoestring.methods.search.images import labelled
from shoestring.methods.search.recipe_cells import aside, run_cells
from shoestring.methods.search.recipe_schema import Recipe
from shoestring.methods.search.score import score

SPACE = Cells201()
SMALL: dict[str, Any] = {
    "proxies": ["naswot", "span", "parameters", "reached_parameters", "flops"],
    "workers": 1,
    "cells": {
        "table": "cells.csv",
        "images": "images.npz",
        "accuracies": ["test", "other"],
        "validation": "seen",
        "channels": 4,
        "depth": 1,
        "samples": 4,
        "rows": 20,
        "pool": 24,
        "searchers": ["naswot", "span"],
        "draws": [3, 24],
        "searches": 4,
        "budget": 12,
    },
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A table of cells whose accuracy is how many of their edges convolve, and noise for images."""
    random, folder = Random(0), tmp_path / "data"
    folder.mkdir()
    cells = random.sample(list(product(("skip_connect", "nor_conv_1x1"), repeat=6)), 40)
    lines = [
        f"{SPACE.encode(cell)},{50 + sum('conv' in one for one in cell)},{random.random():.4f},{random.random():.4f}"
        for cell in sorted(cells)
    ]
    (folder / "cells.csv").write_text("arch,test,other,seen\n" + "\n".join(lines) + "\n")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", images=pixels, labels=np.arange(8) % 2)
    return folder


def ran(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.setenv("SHOESTRING_DATA", str(data))
    return run_cells(config.check(SMALL, Recipe, "small"), Ledger(), out, "small")


def test_the_experiment_in_small_and_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    found = ran(data, out, monkeypatch)
    ranked = found.row("naswot, all scored cells")
    assert not ranked.twin
    assert found.row("parameters, all scored cells").twin
    assert ranked.scores["τ, test"].n == 20
    assert ranked.cost.flops > 0
    assert ranked.cost.seconds > 0
    best, chance = found.row("optimum of 24"), found.row("random of 3")
    assert best.scores["accuracy, test"].sd == 0
    assert best.scores["accuracy, test"].mean >= found.row("naswot of 24").scores["accuracy, test"].mean
    assert chance.twin
    assert {"random", "evolution (REA)", "AREA, naswot", "AREA, span"} <= {row.name for row in found.rows}
    assert [scatter.x for scatter in found.scatters] == SMALL["proxies"]
    assert json.loads((out / "checkpoint" / "architecture.json").read_text())["space"] == "nas-bench-201"

    assert found.row("naswot of 3").cost.flops > found.row("random of 3").cost.flops == 0
    assert found.row("evolution (REA)").cost.flops == pytest.approx(12 / 3 * found.row("optimum of 3").cost.flops)
    assert {row.twin for row in found.rows if row.name in ("parameters of 3", "AREA, reached_parameters")} == {True}
    assert any("by span, cells kept aside has" in note and "times the FLOPs" in note for note in found.notes)
    assert "span, cells kept aside" in {row.name for row in found.rows}

    kept = (out / "runs" / "scores.jsonl").read_text()
    again = ran(data, out, monkeypatch)
    assert (out / "runs" / "scores.jsonl").read_text() == kept, "nothing is scored twice"
    assert again == found
    (out / "runs" / "scores.jsonl").write_text(kept[: len(kept) // 2])
    torn = ran(data, out, monkeypatch)
    assert [row.scores for row in torn.rows] == [row.scores for row in found.rows], "stopped is as never stopped"


def test_killed_and_gone_on_with_equals_never_stopped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ran(data, tmp_path / "whole", monkeypatch)
    script, kept = tmp_path / "script.py", tmp_path / "out" / "runs" / "scores.jsonl"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom shoestring import config\nfrom shoestring.cost import Ledger\n"
        "from shoestring.methods.search.recipe_cells import run_cells\n"
        "from shoestring.methods.search.recipe_schema import Recipe\n"
        f"run_cells(config.check({SMALL | {'workers': 2}!r}, Recipe, 'small'), Ledger(), Path(sys.argv[1]), 'small')\n",
        encoding="utf-8",
    )
    killed = subprocess.Popen([sys.executable, str(script), str(tmp_path / "out")], stderr=subprocess.DEVNULL)
    while killed.poll() is None and not (kept.exists() and kept.read_text().count("\n") > 5):
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert 5 < kept.read_text().count("\n") < (tmp_path / "whole" / "runs" / "scores.jsonl").read_text().count("\n")
    again = ran(data, tmp_path / "out", monkeypatch)
    assert [(row.name, row.scores) for row in again.rows] == [(row.name, row.scores) for row in whole.rows]


def test_the_searches_by_score_are_the_best_of_what_they_draw(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all 24 drawn, each proxy always picks the same cell: the one it scores highest."""
    found = ran(data, tmp_path / "out", monkeypatch)
    for proxy in ("naswot", "span"):
        assert found.row(f"{proxy} of 24").scores["accuracy, test"].sd == 0
    assert found.row("optimum of 3").scores["accuracy, test"].sd > 0


def test_what_is_kept_aside_computes_nothing_that_was_looked_at() -> None:
    """Of cells that compute the same, also by pooling a sum or the sum of poolings, all are kept aside or none."""
    random = Random(0)
    cells = {SPACE.draw(random) for _ in range(3000)}
    texts = [SPACE.encode(cell) for cell in cells]
    kept = aside(SPACE, texts)
    assert 0.3 < len(kept) / len(texts) < 0.55
    together = ("avg_pool_3x3", "skip_connect", "avg_pool_3x3", "skip_connect", "none", "avg_pool_3x3")
    assert canonical(together, linear=True).count("avg_pool_3x3(x)") == canonical(together, linear=True).count("(x)")
    sides: dict[str, set[bool]] = {}
    for cell, text in zip(cells, texts, strict=True):
        sides.setdefault(canonical(cell, linear=True), set()).add(text in kept)
    assert all(len(side) == 1 for side in sides.values())


def test_what_is_kept_is_the_network_that_was_scored(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(data, tmp_path / "out", monkeypatch)
    folder = tmp_path / "out" / "checkpoint"
    told = json.loads((folder / "architecture.json").read_text())
    space = Cells201(channels=4, cells=1)
    model = space.build(space.decode(told["architecture"]), told["seed"])
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    images, labels = labelled(data / "images.npz", 4, 32, 0)
    lines = map(json.loads, (tmp_path / "out" / "runs" / "scores.jsonl").read_text().splitlines())
    kept = next(line for line in lines if (line["key"], line["proxy"]) == (told["architecture"], "naswot"))
    assert score(model, {"images": images, "labels": labels}).value == kept["value"]


def test_too_few_cells_kept_aside_lose_their_rows_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_cells, "aside", lambda space, texts: set(list(texts)[:1]))
    found = ran(data, tmp_path / "out", monkeypatch)
    assert not any("kept aside" in row.name for row in found.rows)
    assert any(note.startswith("cells kept aside: naswot has no row: there are") for note in found.notes)
    assert found.row("naswot, all scored cells").scores["τ, test"].n == 20


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"table": "none.csv"}, "none.csv: no such file, nor in SHOESTRING_DATA"),
        ({"accuracies": ["tset"]}, "has no column 'tset'; did you mean 'test'"),
        ({"draws": [25]}, "draws is 25, but 24 cells are scored"),
        ({"samples": 9}, "9"),
    ],
)
def test_what_does_not_fit_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], says: str
) -> None:
    monkeypatch.setenv("SHOESTRING_DATA", str(data))
    recipe = config.check({**SMALL, "cells": {**SMALL["cells"], **change}}, Recipe, "small")
    with pytest.raises(ValueError, match=says):
        run_cells(recipe, Ledger(), tmp_path / "out", "small")


def test_no_file_and_no_folder_of_data_says_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOESTRING_DATA", raising=False)
    assert "SHOESTRING_DATA" not in os.environ
    with pytest.raises(ValueError, match="name the folder of your data sets in SHOESTRING_DATA, or give its path"):
        run_cells(config.check(SMALL, Recipe, "small"), Ledger(), tmp_path / "out", "small")
