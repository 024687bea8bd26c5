"""Killed in the middle of a round and resumed, with workers that make the batches, in one process and in two."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

STEPS = 120


def command(out: Path, processes: int) -> list[str]:
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    told = [
        f"steps={STEPS}",
        "evaluate_every=12",
        "seeds=[0]",
        "samplers=[stratified, skill-it identity, aioli]",
        "tuning={seeds: [100], learning_rates: [3.0e-3]}",
        "methods.skill_it={rates: [2.0], rounds: 3, measured: 8}",
        "methods.aioli={rates: [2.0], rounds: 3, slice_steps: 8, measured: 8}",
        "batch=8",
        f"compute={{precision: fp32, workers: 1, loaders: 2, processes: {processes}, save_seconds: 0.0}}",
    ]
    return [*launcher, "shoestring", "run", "mixing", "smoke", *told, "--out", str(out)]


def results(out: Path) -> dict[str, Any]:
    """What each run came to, less what the clock and the memory say."""
    found = {}
    for path in sorted((out / "runs").rglob("result.json")):
        told = json.loads(path.read_text())
        for cost in (*(point["cost"] for point in told["points"]), *told["ledger"].values()):
            del cost["seconds"], cost["peak_bytes"]
        found[path.parent.name] = told
    return found


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_same_batches_and_weights_after_a_kill(processes: int, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    done = subprocess.run(command(whole, processes), capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = results(whole)
    assert {"skill-it-identity-seed0", "aioli-seed0"} <= set(expected)
    weights = expected["skill-it-identity-seed0"]["weights"]
    assert [step for step, _ in weights] == [0, 40, 80]
    assert len({json.dumps(told) for _, told in weights}) == 3, "the weights moved"

    out = tmp_path / "out"
    for arm in ("skill-it-identity-seed0", "aioli-seed0"):
        process = subprocess.Popen(command(out, processes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        killed = out / "runs" / arm / "checkpoint"
        while process.poll() is None and not any(killed.glob("step-*/manifest.json")):
            time.sleep(0.02)
        launcher = psutil.Process(process.pid)
        for one in (launcher, *launcher.children(recursive=True)):  # torchrun's processes are in sessions of their own
            with suppress(psutil.NoSuchProcess):
                one.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (killed.parent / "result.json").exists()
        time.sleep(1)
        kept = [int(path.parent.name.removeprefix("step-")) for path in killed.glob("step-*/manifest.json")]
        assert max(kept) % (STEPS // 3), "a checkpoint within a round"
    done = subprocess.run(command(out, processes), capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert results(out) == expected
