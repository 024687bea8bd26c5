"""The contract that every room keeps, found by folder.

A new room needs no test here, but one line in SHRINK, which makes its paper's recipe small enough to be run.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shoestring import config, rooms
from shoestring.cost import CURRENCIES
from shoestring.rooms import Room

ROOMS = rooms.every()
METHODS = Path(__file__).resolve().parent / "methods"
MADE = METHODS / "search" / "made"
SHRINK = {
    "averaging": [
        "model=neox-tiny",
        "text={source: python, tokenizer: bytes, length: 32, batch: 8, held_out: 256}",
        "steps=20",
        "warmup_steps=2",
        "evaluate_every=2",
        "seeds=[0]",
        "learning_rates=[6.0e-3]",
        "averages={counts: [2], strides: [2], decays: [0.8], every: 2}",
        "compute={processes: 1, workers: 2}",
    ],
    "mixing": [
        "model.name=neox-tiny",
        "lego.clauses=3",
        "lego.sizes=[60, 60, 200]",
        "samplers=[random, stratified, curriculum, skill-it, skill-it given, aioli]",
        "steps=12",
        "warmup_steps=2",
        "batch=4",
        "seeds=[0]",
        "evaluate_every=6",
        "held_out=[4, 8]",
        "methods.graph={how: approximate, steps: 2, seeds: [100], given: {depth 2: {depth 1: 0.5}}}",
        "methods.skill_it={rates: [0.5], rounds: 3, measured: 4}",
        "methods.aioli={rates: [0.2], rounds: 1, slice_steps: 2, measured: 4}",
        "compute={workers: 2}",
    ],
    "permutation": [
        "model=xlnet-tiny",
        "text={sources: [python], tokenizer: bytes, length: 16, reuse: 8, predicted: 4, batch: 8}",
        "memory=8",
        "arms=[permutation, masked, 'masked, memory', autoregressive]",
        "steps=2",
        "points=1",
        "held={dev: 2, test: 2, longest: 3}",
        "seeds=[0]",
        "tuning.learning_rates=[1.0e-3]",
        f"fine_tuning.sets=[{{name: made, train: {METHODS / 'permutation' / 'made' / 'pairs.jsonl'}, "
        f"test: {METHODS / 'permutation' / 'made' / 'pairs.jsonl'}, columns: [first, second]}}]",
        "fine_tuning.learning_rates=[1.0e-3]",
        "fine_tuning.epochs=1",
        "fine_tuning.batch=8",
        "fine_tuning.length=24",
        "compute={workers: 2, accumulate: 2}",
    ],
    "rationale": [
        f"sets=[{{form: svamp, train: {METHODS / 'rationale' / 'made' / 'svamp.jsonl'}}}]",
        "model={names: [t5-tiny, neox-tiny]}",
        "arms=[standard, distilled, 'standard, compute-matched', single-task, informed, two-task]",
        "fractions=[1.0]",
        "steps=2",
        "batch=4",
        "evaluate_every=1",
        "held_out=[4, 4]",
        "seeds=[0]",
        "tuning.learning_rates=[1.0e-3]",
        "lessons={tokens: [96, 16], parts: 2}",
        "compute={workers: 2}",
    ],
    "search": [
        f"cells.table={MADE / 'cells.csv'}",
        f"cells.images={MADE / 'images.npz'}",
        "cells.channels=4",
        "cells.depth=1",
        "cells.samples=8",
        "cells.rows=20",
        "cells.pool=30",
        "cells.draws=[5, 20]",
        "cells.searches=5",
        "cells.budget=12",
        "workers=2",
    ],
}
# a machine with other work to do must not fail them
pytestmark = pytest.mark.timeout(1800)
every_room = pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)


def command(room: Room, recipe: str, out: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "shoestring", "run", room.name, recipe, *overrides, "--out", str(out)]


def finish(arguments: list[str]) -> tuple[float, float]:
    """Run a command to its end; returns the seconds it took on the clock and on the processor."""
    since, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=800, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - since, used


def reported(out: Path) -> Any:
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def found(out: Path) -> Any:
    """What a run found, without what differs from one run to the next: the clock and the memory."""
    report = reported(out)
    for row in report["rows"]:
        for measured in ("seconds", "peak_bytes"):
            del row["cost"][measured]
    return report


@pytest.fixture(scope="session")
def smoked(shared: Path) -> Any:
    """Each room's smoke recipe, run once for all workers: smoked(room) -> (folder, seconds, processor seconds)."""

    def once(room: Room) -> tuple[Path, float, float]:
        folder = shared / f"smoke-{room.name}"
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            took = folder / "seconds"
            if not took.exists():
                took.write_text(json.dumps(finish(command(room, "smoke", folder / "out"))))
        seconds, used = json.loads(took.read_text())
        return folder / "out", seconds, used

    return once


@every_room
def test_every_recipe_loads(room: Room) -> None:
    schema = importlib.import_module(f"shoestring.methods.{room.name}.recipe").Recipe
    assert room.recipes
    for name in room.recipes:
        path = room.recipe(name)
        recipe = config.load(path, schema)
        assert config.check(recipe.model_dump(mode="json"), schema, str(path)) == recipe
        assert len(schema.model_fields) <= 16, "about a dozen fields"
        assert path.read_text(encoding="utf-8").startswith("# "), f"{path} has no header with its command"
        assert f"shoestring run {room.name} {name}" in path.read_text(encoding="utf-8")


@every_room
def test_smoke_leaves_what_is_promised(room: Room, smoked: Any) -> None:
    out, _, used = smoked(room)
    assert used < 60, "a processor's minute is promised"
    for name in ("recipe.yaml", "ledger.json", "report.json", "log.jsonl", "report.html"):
        assert (out / name).stat().st_size > 0, name
    assert (out / "checkpoint").is_dir()
    assert any((out / "checkpoint").rglob("*.safetensors"))
    assert any(out.rglob("events.out.tfevents.*"))
    for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines():
        assert "kind" in json.loads(line)
    schema = importlib.import_module(f"shoestring.methods.{room.name}.recipe").Recipe
    assert config.load(out / "recipe.yaml", schema) == config.load(room.recipe("smoke"), schema)


@every_room
def test_the_report_is_what_it_is_said_to_be(room: Room, smoked: Any) -> None:
    report = reported(smoked(room)[0])
    assert report.keys() == {"room", "recipe", "rows"}
    assert (report["room"], report["recipe"]) == (room.name, "smoke")
    for row in report["rows"]:
        assert row.keys() == {"name", "twin", "scores", "cost"}
        assert isinstance(row["twin"], bool)
        assert row["scores"]
        for score in row["scores"].values():
            assert score.keys() == {"mean", "sd", "n"}
            assert isinstance(score["n"], int)
            assert score["n"] >= 1
            assert score["sd"] >= 0
        assert set(row["cost"]) == set(CURRENCIES)
    assert {row["twin"] for row in report["rows"]} == {True, False}, "a method and its twin"
    names = [row["name"] for row in report["rows"]]
    assert len(set(names)) == len(names)


@every_room
def test_the_receipt_is_not_empty(room: Room, smoked: Any) -> None:
    out, *_ = smoked(room)
    ledger = json.loads((out / "ledger.json").read_text(encoding="utf-8"))
    for phase in ledger.values():
        assert set(phase) == set(CURRENCIES)
    for currency in ("flops", "seconds", "peak_bytes"):
        assert sum(phase[currency] for phase in ledger.values()) > 0, currency
    assert all(row["cost"]["seconds"] > 0 and row["cost"]["flops"] > 0 for row in reported(out)["rows"])


@every_room
def test_the_page_needs_no_network(room: Room, smoked: Any) -> None:
    page = (smoked(room)[0] / "report.html").read_text(encoding="utf-8")
    assert "data:image/svg+xml" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


@every_room
def test_the_same_command_again_redoes_nothing(room: Room, smoked: Any) -> None:
    out, *_ = smoked(room)
    before = found(out)
    checkpoints = {path: path.stat().st_mtime_ns for path in out.rglob("runs/**/*.safetensors")}
    finish(command(room, "smoke", out))
    assert found(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("runs/**/*.safetensors")} == checkpoints


@every_room
def test_the_same_seed_gives_the_same_bits(room: Room, smoked: Any, tmp_path: Path) -> None:
    finish(command(room, "smoke", tmp_path / "out"))
    assert found(tmp_path / "out") == found(smoked(room)[0])


@pytest.mark.parametrize("moment", [1, *(pytest.param(moment, marks=pytest.mark.slow) for moment in range(2, 8))])
@every_room
def test_killed_and_resumed_is_never_stopped(
    room: Room, moment: int, smoked: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, seconds, _ = smoked(room)
    out = tmp_path / "out"
    chance = random.Random(f"{room.name} {moment}")
    arguments = command(room, "smoke", out)
    for attempt in range(4):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not any(out.rglob("*.safetensors")):
            time.sleep(0.05)
        after = seconds * chance.uniform(0, 0.3) / 2**attempt  # what follows the first checkpoint is a third of it all
        time.sleep(after)
        os.kill(process.pid, signal.SIGKILL)
        if process.wait() == -signal.SIGKILL and not (out / "report.json").exists():
            break
        out = tmp_path / f"out-{attempt}"  # it had ended: no kill
        arguments = command(room, "smoke", out)
    else:
        pytest.fail("no kill landed before the end")
    left = len(list(out.rglob("manifest.json")))
    with capsys.disabled():
        print(f"\n{room.name}: killed {after:.1f} s after its first checkpoint, {left} were there")
    finish(arguments)
    assert found(out) == found(whole)


@every_room
def test_the_cards_code_runs(room: Room, tmp_path: Path) -> None:
    card = (room.folder / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", card, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    scripts = []
    for place, block in enumerate(blocks):
        scripts.append(tmp_path / f"block_{place}.py")
        scripts[-1].write_text(block, encoding="utf-8")
    # each with names of its own, but in one process: importing takes longer than running
    each = f"import runpy\nfor script in {[str(script) for script in scripts]}:\n    runpy.run_path(script)\n"
    result = subprocess.run(
        [sys.executable, "-c", each], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout


@every_room
def test_the_papers_recipe_runs_its_first_steps(room: Room, tmp_path: Path) -> None:
    assert room.name in SHRINK, f"say in SHRINK how small {room.name}'s paper.yaml is to be made"
    finish(command(room, "paper", tmp_path / "out", *SHRINK[room.name]))
    assert {row["twin"] for row in reported(tmp_path / "out")["rows"]} == {True, False}
