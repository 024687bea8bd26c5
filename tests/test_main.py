"""The door: what it lists, how it refuses, and that nothing heavy is loaded before it is needed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import shoestring
from shoestring import rooms
from shoestring.cost import Cost
from shoestring.evaluate import report as reports
from shoestring.evaluate.scores import Pair, Point, Report, Row, Score

HEAVY = ("torch", "transformers", "matplotlib", "accelerate", "datasets", "numpy", "lm_eval", "pydantic")
Call = Callable[..., SimpleNamespace]


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shoestring", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def call(command: Call) -> Call:
    """The command line in this process: returns code, out and err."""
    return command


def finished(folder: Path, loss: float = 1.0) -> Path:
    rows = [
        Row(name, name == "raw", {"dev loss": Score(value, 0, 1)}, Cost(flops=1e9, tokens=1e3, seconds=2))
        for name, value in (("raw", loss), ("averaged", loss - 0.1))
    ]
    points = [
        Point(row.name, 0, step, step, step, step, {"dev loss": 3 - step / 10}) for row in rows for step in (1, 2)
    ]
    reports.write(
        Report("averaging", "smoke", tuple(rows), tuple(points), (Pair("averaged", "raw"),), "dev loss"), folder
    )
    return folder


# what it shows


def test_the_version(call: Call) -> None:
    assert call("--version") == SimpleNamespace(code=0, out=f"shoestring {shoestring.__version__}\n", err="")


def test_all_rooms_are_listed_with_their_recipes(call: Call) -> None:
    found = call("list")
    assert (found.code, found.err) == (0, "")
    for room in rooms.every():
        line = next(line for line in found.out.splitlines() if line.startswith(room.name))
        assert room.state in line
        assert all(recipe in found.out for recipe in room.recipes)
    assert "Average the latest weights of a run" in found.out


def test_help_names_the_commands_and_the_rooms(call: Call) -> None:
    for arguments, code in ((("--help",), 0), ((), 2)):
        found = call(*arguments)
        assert (found.code, found.err) == (code, "")
        for word in ("list", "run", "compare", "report", *(room.name for room in rooms.every())):
            assert word in found.out
    assert "KEY=VALUE" in call("run", "--help").out
    assert "The room's name" in call("run", "--help").out, "arguments have their help, as options do"


def test_a_rooms_tools_are_its_own(call: Call) -> None:
    found = call("averaging", "--help")
    assert found.code == 0
    for tool in ("merge", "sweep", "curve"):
        assert tool in found.out


def test_a_finished_run_is_shown_and_its_page_written_anew(call: Call, tmp_path: Path) -> None:
    out = finished(tmp_path / "out")
    page = out / "report.html"
    page.unlink()
    found = call("report", str(out))
    assert (found.code, found.err) == (0, "")
    assert "averaged" in found.out
    assert str(page) in found.out
    assert page.is_file()


def test_runs_are_laid_side_by_side(call: Call, tmp_path: Path) -> None:
    one, other = finished(tmp_path / "one", 1.0), finished(tmp_path / "other", 2.0)
    found = call("compare", str(one), str(other))
    assert (found.code, found.err) == (0, "")
    assert "one" in found.out
    assert "other" in found.out
    assert "1.9" in found.out


# what it loads


@pytest.mark.parametrize(
    "what", ["import shoestring", "import shoestring.rooms", "import shoestring.__main__", "list", "--help"]
)
def test_nothing_heavy_is_loaded_before_it_is_needed(python: Callable, what: str) -> None:
    call = (
        what
        if what.startswith("import")
        else f"sys.argv[1:] = [{what!r}]; from shoestring.__main__ import main; main()"
    )
    script = f"import atexit, sys\natexit.register(lambda: print('\\nloaded', *sorted(sys.modules)))\n{call}\n"
    result = python(script)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.splitlines()[-1].split())
    assert "shoestring" in loaded
    assert not loaded & set(HEAVY)
    if what == "import shoestring":
        assert not loaded & {"typer", "rich", "yaml"}


# what it refuses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no room or command is called 'nowhere': the rooms are averaging"),
        (["averagin"], "did you mean 'averaging'?"),
        (["run", "averagin", "smoke"], "no room or command is called 'averagin'; did you mean 'averaging'?"),
        (["run", "averaging", "smok"], "has no recipe 'smok'; did you mean 'smoke'?"),
        (["run", "averaging", "absent.yaml"], "absent.yaml: no such file"),
        (["run", "averaging", "smoke", "stepz=3"], "smoke.yaml: unknown key 'stepz'; did you mean 'steps'?"),
        (["run", "averaging", "smoke", "text.lenght=3"], "unknown key 'text.lenght'; did you mean 'length'?"),
        (["run", "averaging", "smoke", "steps=ten"], "steps: expected a valid integer, got 'ten'"),
        (["run", "averaging", "smoke", "steps"], "'steps': expected key=value, such as steps=200"),
        (["run", "averaging"], "Missing argument 'RECIPE'"),
        (["run", "averaging", "smoke", "--seed", "3"], "No such option '--seed'"),
        (["averaging", "merg"], "has no tool 'merg'; did you mean 'merge'?: expected merge, sweep, curve"),
        (["averaging", "merge", "a"], "Missing option '--out'"),
        (["averaging", "merge", "/absent", "--out", "o"], "/absent: no such checkpoint"),
        (["averaging", "merge", "a", "--out", "o", "--last", "0"], "0 is not in the range"),
        (["report", "absent"], "absent/report.json: no such file"),
        (["compare", "absent"], "absent/report.json: no such file"),
    ],
)
def test_one_line_and_code_two(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found = call(*arguments)
    assert (found.code, found.out) == (2, "")
    assert message in found.err
    assert found.err.startswith("shoestring: ")
    assert found.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_same_from_a_shell(tmp_path: Path) -> None:
    result = shell("run", "averaging", "smoke", "stepz=3", "--out", str(tmp_path / "out"))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [ValueError, OSError, ModuleNotFoundError])
def test_what_a_user_did_wrong_is_told_in_one_line(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def wrong() -> None:
        raise error("first\n  second")

    monkeypatch.setattr(rooms, "every", wrong)
    assert call("list") == SimpleNamespace(code=2, out="", err="shoestring: first second\n")
    monkeypatch.setenv("SHOESTRING_TRACEBACK", "1")
    with pytest.raises(error):
        call("list")


def test_what_is_our_own_fault_keeps_its_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "every", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        call("list")


def test_an_interrupt_says_how_to_go_on(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rooms, "every", interrupted)
    found = call("list")
    assert found.code == 130
    assert "stopped; the same command goes on from the last checkpoint" in found.err


def test_an_interrupt_of_which_an_import_made_another_error_is_one_still(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def importing() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    monkeypatch.setattr(rooms, "every", importing)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # where these tests go on in the background too
    try:
        found = call("list")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (found.code, found.err.count("\n")) == (130, 1)
    assert "stopped; the same command goes on" in found.err


# what it hands on


def test_run_hands_recipe_ledger_and_folder_to_the_room(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shoestring.methods.averaging import recipe

    handed = {}

    def run(chosen: recipe.Recipe, ledger: object, out: Path, name: str) -> Report:
        handed.update(recipe=chosen, out=out, name=name)
        return reports.read(finished(tmp_path / "other"))

    monkeypatch.setattr(recipe, "run", run)
    monkeypatch.chdir(tmp_path)
    found = call("run", "averaging", "smoke", "seeds=[7]")
    assert found.code == 0, found.err
    assert (handed["out"], handed["name"], handed["recipe"].seeds) == (Path("out/averaging-smoke"), "smoke", (7,))
    out = tmp_path / "out" / "averaging-smoke"
    assert {path.name for path in out.iterdir()} >= {
        "recipe.yaml",
        "ledger.json",
        "report.json",
        "report.html",
        "log.jsonl",
    }
    assert json.loads((out / "ledger.json").read_text()) == {}
    facts = reports.read(out).facts
    assert facts["command"] == "shoestring run averaging smoke 'seeds=[7]'"
    assert facts["machine"]
    assert call("run", "averaging", "smoke", "seeds=[8]").code == 2


def test_only_the_first_process_of_a_launcher_reports(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shoestring.methods.averaging import recipe

    monkeypatch.setattr(recipe, "run", lambda *_: reports.read(finished(tmp_path / "other")))
    monkeypatch.setenv("RANK", "1")
    found = call("run", "averaging", "smoke", "--out", str(tmp_path / "out"))
    assert found == SimpleNamespace(code=0, out="", err="")
    assert not (tmp_path / "out").exists()
