"""Killed at a random moment and resumed, a run ends in the very bits of one that was left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shoestring.data.tokens import Tokens

SCRIPT = """
import json, os, random, signal, sys, time
from pathlib import Path
from safetensors.torch import load_file, save_file
from shoestring import runtime
from shoestring.cost import Ledger
from shoestring.data.batches import TokenBatches
from shoestring.data.tokens import Tokens
from shoestring.methods.averaging import Ema, Latest
from shoestring.models import presets
from shoestring.train import checkpoint, optim
from shoestring.train.hooks import Every, Save
from shoestring.train.loop import train
from shoestring.train.objectives import next_token
from shoestring.types import Run

corpus, out, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
STEPS = 60


def work(folder):
    runtime.seed_everything(int.from_bytes(os.urandom(2)))  # a resumed run must not need its seed
    model = presets.build(presets.configuration("neox-tiny", 257, 16, hidden_dropout=0.1, attention_dropout=0.1), 0)
    run = Run(model, optim.adamw(model, 1e-3), TokenBatches(Tokens.load(corpus), 2, 16, 0))
    hooks, ledger = [Latest(3, every=2), Ema(0.9)], Ledger()
    stopped = checkpoint.latest(folder)
    if stopped is None:
        runtime.seed_everything(0)
    else:
        checkpoint.load(stopped, run, hooks=hooks, ledger=ledger)
    with ledger.phase("train"):
        every = [*hooks, Every(5, Save(folder, hooks, ledger, keep=2))]
        train(run, next_token, until=STEPS, hooks=every, ledger=ledger, schedule=optim.cosine(STEPS + 1, 5))
    spent = ledger.total()
    tensors = {**model.state_dict(), **{"average/" + name: tensor for name, tensor in hooks[0].average().items()}}
    save_file(tensors, folder / "final.safetensors.partial", {"spent": f"{spent.tokens} {spent.flops}"})
    os.replace(folder / "final.safetensors.partial", folder / "final.safetensors")


def begin(folder):
    # forked, as importing takes longer than training; nothing has run in this process yet that a fork could tear
    folder.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        try:
            work(folder)
            os._exit(0)
        finally:
            os._exit(1)
    return child


def end(child):
    return os.waitpid(child, 0)[1]


since = time.monotonic()
assert end(begin(out / "whole")) == 0
seconds = time.monotonic() - since
whole = (out / "whole" / "final.safetensors").read_bytes()
chance, landed, wrong, at, saving = random.Random(20260101), 0, [], [], 0
tried = 0
while landed < kills and tried < 3 * kills:
    folder = out / f"killed-{tried}"
    tried += 1
    child = begin(folder)
    time.sleep(chance.uniform(0, seconds))
    os.kill(child, signal.SIGKILL)
    if end(child) != signal.SIGKILL or (folder / "final.safetensors").exists():
        continue  # it had ended: no kill
    landed += 1
    stopped = checkpoint.latest(folder)
    at.append(int(stopped.name.removeprefix("step-")) if stopped else 0)
    saving += any(folder.glob(".partial-*"))
    if end(begin(folder)) != 0 or (folder / "final.safetensors").read_bytes() != whole:
        wrong.append(folder.name)
print(json.dumps({"landed": landed, "wrong": wrong, "at": at, "saving": saving}))
"""


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_and_resumed_is_never_stopped(
    kills: int, corpus: Tokens, python: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = python(SCRIPT, corpus.folder, tmp_path, kills)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    with capsys.disabled():
        print(f"\n{told['landed']} kills landed mid-run, {told['saving']} of them in a save; resumed from {told['at']}")
    assert told["landed"] == kills
    assert told["wrong"] == []
