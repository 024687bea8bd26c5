"""The experiment across processes, through the door, and what it refuses before anything is paid for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from transformers import AutoModelForCausalLM

from shoestring.evaluate.report import read
from shoestring.methods.mixing.graph import Graph

SHORT = ["seeds=[0]", "samplers=[stratified, curriculum, skill-it, aioli]", "tuning.learning_rates=[3.0e-3]"]


def shoestring(*words: str, processes: int = 1, recipe: str = "smoke") -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    command = [*launcher, "shoestring", "run", "mixing", recipe, *words]
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
    for name in ("stratified-seed0", "curriculum-seed0", "skill-it-seed0", "aioli-seed0"):
        one, two = (json.loads((out / "runs" / name / "result.json").read_text()) for out in (alone, both))
        assert one["counts"] == two["counts"]
        for first, second in zip(one["points"], two["points"], strict=True):
            assert first["loss"] == pytest.approx(second["loss"], abs=1e-3)
            assert first["cost"]["tokens"] == second["cost"]["tokens"]
    model = AutoModelForCausalLM.from_pretrained(both / "checkpoint")
    assert model.get_input_embeddings().weight.shape == (257, 64)
    assert Graph.load(both / "graph.json").skills == ("digit 0", "digit 1")
    assert (both / "graph.svg").exists()


METHODS = (
    "methods={graph: {how: approximate, value: relative, steps: 4, seeds: [100, 101]}, skill_it: {rates: [0.1, 1.0], "
    "rounds: 2, measured: 4}, aioli: {rates: [1.0], rounds: 1, measured: 4, slice_steps: 1}, curriculum: {rounds: 2}}"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "samplers", "evaluated"),
    [("cpu", 9, ["hums", "marks", "vowels"]), ("target", 12, ["marks"]), ("out-of-domain", 7, ["marks"])],
)
def test_text_by_domain_goes_from_files_to_a_report(
    recipe: str, samplers: int, evaluated: list[str], tmp_path: Path
) -> None:
    random, text, base = Random(0), tmp_path / "text.jsonl", tmp_path / "base.txt"
    domains = {"vowels": "aeiou ", "hums": "mn ", "marks": ".,;:!? "}
    rows = [
        {"text": "".join(random.choices(letters, k=600)), "domain": domain}
        for domain, letters in domains.items()
        for _ in range(10)
    ]
    text.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base.write_text("\n\n".join("".join(random.choices("abcdefgh ", k=400)) for _ in range(30)))
    words = [f"domains.text={text}", "domains.length=16", f"base={{text: {base}, steps: 4, batch: 2}}", METHODS]
    words += ["steps=12", "warmup_steps=2", "batch=2", "seeds=[0]", "evaluate_every=6", "held_out=[4, 4]"]
    words += ["tuning={seeds: [1000], learning_rates: [2.0e-3, 4.0e-3], shares: [0.3, 0.7]}", "compute.workers=1"]
    words += [] if recipe == "cpu" else ["domains.target=[marks]"]
    out = tmp_path / "out"
    done = shoestring(*words, "--out", str(out), recipe=recipe)
    assert done.returncode == 0, done.stderr[-3000:]
    found = read(out)
    assert len(found.rows) == samplers
    skill_it = json.loads((out / "runs" / "skill-it-seed0" / "result.json").read_text())
    assert sorted(skill_it["points"][-1]["loss"]) == sorted(skill_it["dev"]) == evaluated
    drawn = {"hums", "vowels"} if recipe == "out-of-domain" else set(domains)
    assert set(skill_it["counts"]) == drawn
    assert sum(skill_it["counts"].values()) == 24
    assert Graph.load(out / "graph.json").evaluated == tuple(evaluated)
    if recipe == "target":
        share = json.loads((out / "runs" / "fixed-share-seed0" / "result.json").read_text())["counts"]["marks"] / 24
        assert share in (pytest.approx(0.3, abs=1 / 24), pytest.approx(0.7, abs=1 / 24))
        alone = json.loads((out / "runs" / "target-only-seed0" / "result.json").read_text())["counts"]
        assert alone["marks"] == 24
    notes = " ".join(found.notes)
    assert "Chosen by mean dev loss at other seeds, eta of skill-it:" in notes
    assert "Lowest mean test loss at the end:" in notes
    AutoModelForCausalLM.from_pretrained(out / "checkpoint")


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
