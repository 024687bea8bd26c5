"""The experiment across processes, through the door: one process a machine is what the room contract covers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_two_processes_train_report_and_export(tmp_path, sharding):
    out = tmp_path / "out"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    told = ["compute.processes=2", f"compute.sharding={sharding}", "compute.workers=1", "seeds=[0]", "spike=null"]
    command = [*launcher, "-m", "shoestring", "run", "averaging", "smoke", *told, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("The report:") == 1
    rows = json.loads((out / "report.json").read_text())["rows"]
    assert {row["twin"] for row in rows} == {True, False}
    model = AutoModelForCausalLM.from_pretrained(out / "checkpoint")
    assert model.get_input_embeddings().weight.shape == (257, 64)
    assert all(bool(torch.isfinite(weights).all()) for weights in model.parameters())


def test_another_number_of_processes_than_asked_for_is_refused(tmp_path):
    command = [sys.executable, "-m", "shoestring", "run", "averaging", "smoke"]
    asked = ["compute.processes=2", "compute.workers=1", "--out", str(tmp_path)]
    done = subprocess.run([*command, *asked], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert "2 processes were asked for but 1 started" in done.stderr
