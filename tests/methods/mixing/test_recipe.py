"""The experiment across processes, through the door, and what it refuses before anything is paid for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from shoestring.methods.mixing.graph import Graph

SHORT = ["seeds=[0]", "samplers=[stratified, curriculum, skill-it, aioli]", "tuning.learning_rates=[3.0e-3]"]


def shoestring(*words: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    command = [*launcher, "shoestring", "run", "mixing", "smoke", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.parametrize("sharding", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_two_processes_draw_what_one_draws(sharding: str, tmp_path: Path) -> None:
    alone, both = tmp_path / "alone", tmp_path / "both"
    done = shoestring(*SHORT, "--out", str(alone))
    assert done.returncode == 0, done.stderr[-3000:]
    compute = f"compute={{precision: fp32, processes: 2, sharding: {sharding}, workers: 1}}"
    done = shoestring(*SHORT, compute, "--out", str(both), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("The report:") == 1
    for name in ("stratified-seed0", "skill-it-seed0", "aioli-seed0"):
        one, two = (json.loads((out / "runs" / name / "result.json").read_text()) for out in (alone, both))
        assert one["counts"] == two["counts"]
        for first, second in zip(one["points"], two["points"], strict=True):
            assert first["loss"] == pytest.approx(second["loss"], abs=1e-3)
            assert first["cost"]["tokens"] == second["cost"]["tokens"]
    model = AutoModelForCausalLM.from_pretrained(both / "checkpoint")
    assert model.get_input_embeddings().weight.shape == (257, 64)
    assert Graph.load(both / "graph.json").skills == ("digit 0", "digit 1")
    assert (both / "graph.svg").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "methods.aioli.slice_steps=3",
            "methods.aioli: round_steps=6, until=12: expected more than the 6 steps",
        ),
        ("methods.aioli.one_hot=0.4", "methods.aioli: sweeps=1, slice_steps=2, until=12, one_hot=0.4"),
        ("methods.curriculum.rounds=99", "methods.curriculum.rounds of at most steps=12, got 99"),
        ("base={look_up: true, steps: 2}", "expected lego, for a base with look_up"),
        ("methods.graph.given={digit 0: {digit 7: 0.5}}", "no edge from 'digit 0' to 'digit 7'"),
    ],
)
def test_what_would_fail_later_is_refused_before_a_step_is_taken(override: str, said: str, tmp_path: Path) -> None:
    done = shoestring(override, "--out", str(tmp_path))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("result.json"))
