"""A search's history: the best of it, and kept in a file to go on from."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.search.cells201 import Cell, Cells201
from shoestring.methods.search.evolve import regularised_evolution
from shoestring.methods.search.history import Trained, Visit, best, improvements, kept, plain

SPACE = Cells201()


def visit(name: str, accuracy: float, spent: float) -> Visit[str]:
    return Visit(name, accuracy, 1.0, spent)


HISTORY = [visit("a", 3, 1), visit("b", 5, 2), visit("c", 5, 3), visit("d", 4, 4), visit("e", 9, 5)]


def train(cell: Cell) -> Trained:
    return Trained(float(cell.count("nor_conv_3x3")) + 0.1, 0.3, 7.5)


def search(training: Callable[[Cell], Trained], seed: int = 0) -> list[Visit[Cell]]:
    return list(regularised_evolution(SPACE, training, 6, Random(seed), population=5))


# by hand


def test_the_best_is_the_earliest_of_equals_within_the_budget() -> None:
    assert best(HISTORY).architecture == "e"
    assert best(HISTORY, 4.5).architecture == "b"
    with pytest.raises(ValueError, match=r"nothing was trained within a budget of 0.5"):
        best(HISTORY, 0.5)


def test_improvements_are_strict() -> None:
    assert [entry.architecture for entry in improvements(HISTORY)] == ["a", "b", "e"]
    assert improvements([]) == []


@given(st.lists(st.floats(allow_nan=False)))
def test_the_last_improvement_is_the_best(accuracies: list[float]) -> None:
    history = [visit(str(at), accuracy, at) for at, accuracy in enumerate(accuracies)]
    if history:
        assert improvements(history)[-1] == best(history)


def test_numbers_as_json_has_them() -> None:
    assert [plain(1.5), plain(-math.inf), plain(math.nan)] == [1.5, "-inf", "nan"]


# kept


def test_what_is_kept_is_not_paid_for_again(tmp_path: Path) -> None:
    plainly, file = search(train), tmp_path / "deep" / "history.jsonl"
    assert len(plainly) == 20
    assert search(kept(SPACE, train, file)) == plainly
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0] == {
        "architecture": SPACE.encode(plainly[0].architecture),
        "accuracy": plainly[0].accuracy,
        "cost": 0.3,
        "test": 7.5,
    }

    def never(cell: Cell) -> Trained:
        raise AssertionError(cell)

    assert search(kept(SPACE, never, file)) == plainly


@pytest.mark.parametrize("lines", [0, 1, 12, 19])
def test_a_search_that_raised_goes_on(tmp_path: Path, lines: int) -> None:
    file, paid = tmp_path / "history.jsonl", []

    def breaking(cell: Cell) -> Trained:
        if len(paid) == lines:
            raise KeyboardInterrupt
        paid.append(cell)
        return train(cell)

    with pytest.raises(KeyboardInterrupt):
        search(kept(SPACE, breaking, file))

    def counted(cell: Cell) -> Trained:
        paid.append(cell)
        return train(cell)

    assert search(kept(SPACE, counted, file)) == search(train)
    assert len(paid) == 20


@pytest.mark.parametrize("torn", [1, 20, 80])
def test_a_torn_last_line_is_trained_again(tmp_path: Path, torn: int) -> None:
    file = tmp_path / "history.jsonl"
    plainly = search(kept(SPACE, train, file))
    whole = file.read_bytes()
    file.write_bytes(whole[:-torn])
    assert search(kept(SPACE, train, file)) == plainly
    assert file.read_bytes() == whole


def test_failed_trainings_are_kept_as_such(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"

    def failing(cell: Cell) -> Trained:
        return Trained(-math.inf, 1.0)

    search(kept(SPACE, failing, file))
    assert all(entry.accuracy == -math.inf and math.isnan(entry.test) for entry in search(kept(SPACE, train, file)))


def test_what_may_not_be_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    with pytest.raises(ValueError, match="its accuracy is nan"):
        search(kept(SPACE, lambda cell: Trained(math.nan, 1.0), file))
    assert not file.exists()
    assert search(kept(SPACE, train, file)) == search(train)


def test_killed_and_gone_on_is_never_stopped(tmp_path: Path) -> None:
    """SIGKILL in the middle of a training, in a process of its own."""
    file = tmp_path / "history.jsonl"
    script = f"""
import os, signal
from random import Random
from shoestring.methods.search.cells201 import Cells201
from shoestring.methods.search.evolve import regularised_evolution
from shoestring.methods.search.history import Trained, kept
count = 0
def train(cell):
    global count
    count += 1
    if count == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return Trained(float(cell.count("nor_conv_3x3")) + 0.1, 0.3, 7.5)
list(regularised_evolution(Cells201(), kept(Cells201(), train, {str(file)!r}), 6, Random(0), population=5))
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False, timeout=120, env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    assert len(file.read_text().splitlines()) == 7
    assert search(kept(SPACE, train, file)) == search(train)


# bad input


def test_the_file_of_another_search_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    search(kept(SPACE, train, file))
    with pytest.raises(ValueError, match=r"history.jsonl line 1: holds \|.*, but the search asks for \|.*name a new"):
        search(kept(SPACE, train, file), seed=1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1: not of a search's history"),
        ("[]", "line 1: not of a search's history"),
        ('{"accuracy": 1}', "line 1: has no key 'architecture'"),
        (
            '{"architecture": "|x~0|", "accuracy": 1, "cost": 1, "test": 1}',
            "line 1: not of a search's history .*3 nodes",
        ),
        (json.dumps({"architecture": SPACE.encode(("none",) * 6), "accuracy": "nan", "cost": 1, "test": 1}), "is nan"),
        (json.dumps({"architecture": SPACE.encode(("none",) * 6), "accuracy": 1, "cost": 1}), "has no key 'test'"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "history.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(ValueError, match=said) as raised:
        kept(SPACE, train, file)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)
