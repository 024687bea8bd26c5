"""The folder of a run: held by one process, of one recipe for good."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from shoestring.cost import Ledger
from shoestring.evaluate import outcome

RECIPE = "steps: 3\ncompute:\n  workers: null\ntext:\n  length: 4\n"

HOLD = """
import sys, time
from pathlib import Path
from shoestring.evaluate import outcome
with outcome.opened(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
"""


def test_the_recipe_is_written_and_the_same_may_come_again(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "run"
    with outcome.opened(folder, RECIPE):
        assert (folder / "recipe.yaml").read_text() == RECIPE
    with outcome.opened(folder, RECIPE):
        pass
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "recipe.yaml"]


def test_how_fast_it_runs_may_change(tmp_path: Path) -> None:
    with outcome.opened(tmp_path, RECIPE):
        pass
    faster = RECIPE.replace("workers: null", "workers: 2")
    with outcome.opened(tmp_path, faster):
        assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["compute"]["workers"] == 2


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (RECIPE.replace("3", "4"), "it holds a run with steps=3, this one has steps=4"),
        (RECIPE.replace("length: 4", "length: 5"), r"text.length=4, this one has text.length=5"),
        (RECIPE + "seed: 1\n", "seed=None, this one has seed=1"),
        ("compute: {workers: null}\ntext: {length: 4}\n", "steps=3, this one has steps=None"),
        ("rows: 5\nmodel: w\n", "it holds a run of another kind"),
        ("steps: 5\ntext: {length: 9}\n", "a run with steps=3, text.length=4, this one has steps=5, text.length=9"),
    ],
)
def test_another_recipe_is_refused_by_key_and_leaves_the_first(tmp_path: Path, other: str, named: str) -> None:
    with outcome.opened(tmp_path, RECIPE):
        (tmp_path / "runs").mkdir()
    with (
        pytest.raises(ValueError, match=f"{named}: give another --out, or delete the folder"),
        outcome.opened(tmp_path, other),
    ):
        pass
    assert (tmp_path / "recipe.yaml").read_text() == RECIPE


@pytest.mark.parametrize("content", ["", "- 1\n", "a: [", "text"])
def test_a_foreign_recipe_in_the_folder_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"recipe\.yaml"), outcome.opened(tmp_path, RECIPE):
        pass
    assert (tmp_path / "recipe.yaml").read_text() == content


def test_a_folder_that_holds_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"it holds 'notes\.txt' and no run: give another --out"):
        outcome.opened(tmp_path, RECIPE).__enter__()
    assert [there.name for there in tmp_path.iterdir()] == ["notes.txt"]


def test_what_a_kill_or_the_system_left_is_nothing(tmp_path: Path) -> None:
    for name in ("recipe.yaml.partial", ".DS_Store"):
        (tmp_path / name).write_text("steps: ")
    with outcome.opened(tmp_path, RECIPE):
        assert (tmp_path / "recipe.yaml").read_text() == RECIPE


def test_results_whose_recipe_is_gone_are_not_gone_on_with(tmp_path: Path) -> None:
    with outcome.opened(tmp_path, RECIPE):
        (tmp_path / "runs").mkdir()
    (tmp_path / "recipe.yaml").unlink()
    with pytest.raises(ValueError, match="it holds 'runs' and no run"):
        outcome.opened(tmp_path, RECIPE).__enter__()


def test_a_folder_that_another_process_holds_is_refused(tmp_path: Path, python: Callable[..., Any]) -> None:
    with outcome.opened(tmp_path, RECIPE):
        second = python(HOLD, tmp_path, RECIPE)
        assert second.returncode == 1
        assert "another process is running there; wait for it, or give another --out" in second.stderr
    assert python(HOLD, tmp_path, RECIPE).stdout == "held\n"


def test_it_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), outcome.opened(tmp_path, RECIPE):
        raise ZeroDivisionError
    with outcome.opened(tmp_path, RECIPE):
        pass


def test_only_the_first_process_of_a_launcher_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with outcome.opened(tmp_path / "out", RECIPE):
        assert not (tmp_path / "out").exists()


def test_the_ledger_is_written_whole(tmp_path: Path) -> None:
    ledger = Ledger()
    with ledger.phase("train"):
        ledger.charge(tokens=7)
    outcome.write_ledger(ledger, tmp_path)
    back = json.loads((tmp_path / "ledger.json").read_text())
    assert back.keys() == {"train"}
    assert back["train"]["tokens"] == 7
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.json"]


def test_a_recipe_that_came_to_nothing_makes_room_for_another(tmp_path: Path) -> None:
    with outcome.opened(tmp_path, RECIPE):
        pass
    other = RECIPE.replace("3", "4")
    with outcome.opened(tmp_path, other):
        assert (tmp_path / "recipe.yaml").read_text() == other


def test_facts_are_of_the_first_start_and_name_a_later_commit(tmp_path: Path) -> None:
    first = {"command": "shoestring run a b", "commit": "aaa"}
    assert outcome.kept_facts(tmp_path, first) == first
    assert outcome.kept_facts(tmp_path, {"command": "again", "commit": "aaa"}) == first
    later = outcome.kept_facts(tmp_path, {"command": "again", "commit": "bbb"})
    assert later == {"command": "shoestring run a b", "commit": "aaa, gone on with at bbb"}


@dataclass
class Kept:
    value: float


def test_what_was_found_once_is_read_and_not_redone(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> Kept:
        calls.append(1)
        return Kept(0.5)

    path = tmp_path / "runs" / "result.json"
    assert outcome.once(path, Kept, work) == outcome.once(path, Kept, work) == Kept(0.5)
    assert calls == [1]
    path.write_text('{"other": 1}')
    with pytest.raises(ValueError, match=r"result\.json: torn .*delete it, and this run is done again"):
        outcome.once(path, Kept, work)
