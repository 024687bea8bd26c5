"""Scores of many networks: in order, lazily, the same in one process and in several."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import psutil
import pytest
import torch
from joblib._parallel_backends import LokyBackend
from torch import nn

from shoestring.methods.search.cells201 import Cells201
from shoestring.methods.search.parallel import scores
from shoestring.methods.search.score import score

SPACE = Cells201(channels=4, cells=1)
CELLS = list(SPACE.neighbours(("nor_conv_3x3",) * 6))[:4]
BATCH = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


FOREVER = """
from functools import partial
from itertools import count
import torch
from shoestring.methods.search import PROXIES, scores
from shoestring.methods.search.cells201 import Cells201
space = Cells201(channels=4, cells=1)
jobs = ((number, partial(space.build, ("nor_conv_3x3",) * 6, number)) for number in count())
for number, _ in scores(jobs, {"naswot": PROXIES["naswot"]}, torch.randn(4, 3, 8, 8), workers=2):
    if number == 3:
        print("going", flush=True)
"""


def jobs() -> Iterator[tuple[str, Any]]:
    for cell in CELLS:
        yield SPACE.encode(cell), partial(SPACE.build, cell, 0)


def test_one_process_and_two_agree() -> None:
    alone = list(scores(jobs(), {"naswot": score}, BATCH))
    assert [key for key, _ in alone] == [SPACE.encode(cell) for cell in CELLS]
    assert list(scores(jobs(), {"naswot": score}, BATCH, workers=2)) == alone


def test_the_jobs_go_to_the_backend_that_joblib_is_told() -> None:
    """As they would to Ray's: a backend of another name, which notes what it is given."""
    given: list[int] = []

    class Noting(LokyBackend):  # type: ignore[misc]
        def submit(self, func: Any, callback: Any = None) -> Any:
            given.append(1)
            return super().submit(func, callback)

    joblib.register_parallel_backend("noting", Noting)
    with joblib.parallel_config(backend="noting"):
        found = list(scores(jobs(), {"naswot": score}, BATCH, workers=2))
    assert found == list(scores(jobs(), {"naswot": score}, BATCH))
    assert given


def test_a_kill_leaves_no_worker_behind(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(FOREVER, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "going\n"
        children = psutil.Process(killed.pid).children()
        workers = [child for child in children if "LokyProcess" in " ".join(child.cmdline())]
        assert len(workers) == 2
        killed.kill()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []


def test_networks_are_built_when_they_are_asked_for_and_not_kept() -> None:
    built: list[int] = []

    def noted() -> Iterator[tuple[int, Any]]:
        for index in range(10**6):
            built.append(index)
            yield index, partial(SPACE.build, CELLS[0], index)

    found = scores(noted(), {"naswot": score}, BATCH)
    assert next(found)[0] == 0
    assert built == [0]


def test_a_network_that_cannot_be_scored_is_named() -> None:
    with pytest.raises(ValueError, match="third: Linear has no activation"):
        list(scores([("third", partial(nn.Linear, 8, 2))], {"naswot": score}, BATCH))


def test_no_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="workers is 0"):
        list(scores(jobs(), {"naswot": score}, BATCH, workers=0))


def test_without_joblib_the_line_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'shoestring\[search\]'"):
        list(scores(jobs(), {"naswot": score}, BATCH, workers=2))
