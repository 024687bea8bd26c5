"""Two processes of a launcher, whole (DDP) and sharded (FSDP2), against one: the same run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shoestring.cost import Ledger
from shoestring.data.batches import TokenBatches
from shoestring.data.tokens import Tokens
from shoestring.methods.averaging import Latest
from shoestring.models import presets
from shoestring.train import checkpoint, optim
from shoestring.train.hooks import Every
from shoestring.train.loop import train
from shoestring.train.objectives import next_token
from shoestring.types import Run

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from shoestring import runtime
from shoestring.cost import Ledger
from shoestring.data.batches import TokenBatches
from shoestring.data.tokens import Tokens
from shoestring.methods.averaging import Latest
from shoestring.models import presets
from shoestring.train import checkpoint, optim, state
from shoestring.train.hooks import Every
from shoestring.train.loop import train
from shoestring.train.objectives import next_token
from shoestring.types import Run

corpus, out, sharding = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
told = {}
try:
    runtime.start(processes=3, sharding=sharding)
except ValueError as error:
    told["refused"] = str(error)
here = runtime.start(processes=2, sharding=sharding)


def build(accumulate=1, preset="neox-tiny", **shape):
    model = presets.build(presets.configuration(preset, 257, 16, **shape), 0)
    batches = TokenBatches(Tokens.load(corpus), 8 // accumulate, 16, 0, here.rank, here.processes)
    return Run(model, optim.adamw(model, 1e-3), batches)


def whole(run):
    return {name: state.whole(tensor).clone() for name, tensor in runtime.unwrap(run.model).state_dict().items()}


def losses(run, until, **rest):
    seen = []
    train(run, next_token, until=until, hooks=[*rest.pop("hooks", ()), lambda run: seen.append(run.loss)], **rest)
    return seen


ledger, latest = Ledger(), Latest(3, every=4, start=4)
run, kept = build(), []
told["losses 1"] = losses(run, 20, hooks=[latest, Every(4, lambda run: kept.append(whole(run)))], ledger=ledger)
told["tokens"], told["flops"] = ledger.total().tokens, ledger.total().flops
told["wrapped"] = type(run.model).__name__
told["local"] = sum(p.to_local().numel() if sharding == "fsdp2" else p.numel() for p in run.model.parameters())
held = [tensor.numel() for tensor in latest.state_dict()["snapshots"]["0"].values()]
told["snapshot"] = sum(held)
before = whole(run)
with latest.swapped(run.model):
    average = whole(run)
told["live again"] = all(torch.equal(before[name], tensor) for name, tensor in whole(run).items())
expected = {name: sum(weights[name].double() for weights in kept[-3:]) / 3 for name in average}
told["average off by"] = max((average[name] - tensor).abs().max().item() for name, tensor in expected.items())
checkpoint.save(out / "from-two", run, hooks=[Every(1, print)])
held = checkpoint.save(out / "with-memory", run, hooks=[latest])
again, resumed = build(), Latest(3, every=4, start=4)
checkpoint.load(held, again, hooks=[resumed])
told["on from 20"] = losses(run, 24, hooks=[latest])
told["resumed from 20"] = losses(again, 24, hooks=[resumed])
told["same memory"] = all(torch.equal(resumed.average()[n], t) for n, t in latest.average().items())

told["losses 2"] = losses(build(2), 20, accumulate=2)

one = checkpoint.load(checkpoint.latest(out / "from-one"), build())
told["from one"] = losses(one, 14)
try:
    checkpoint.load(checkpoint.latest(out / "one-with-memory"), build(), hooks=[Latest(3, every=4, start=4)])
    told["foreign memory"] = "taken"
except ValueError as error:
    told["foreign memory"] = str(error)
tied = build(preset="gpt2-small", n_embd=32, n_layer=2, n_head=2)
told["tied"] = losses(tied, 6)
checkpoint.save(out / "tied", tied)
if sharding == "fsdp2":
    late = build()
    late.optimizer.state[next(late.model.parameters())] = {"step": torch.ones(())}
    try:
        train(late, next_token, until=1)
    except ValueError as error:
        told["too late"] = str(error)
if here.rank == 0:
    (out / "told.json").write_text(json.dumps(told))
torch.distributed.destroy_process_group()
"""


TIED = {"preset": "gpt2-small", "n_embd": 32, "n_layer": 2, "n_head": 2}


def build(corpus: Tokens, preset: str = "neox-tiny", **shape: int) -> Run:
    model = presets.build(presets.configuration(preset, 257, 16, **shape), 0)
    return Run(model, optim.adamw(model, 1e-3), TokenBatches(corpus, 8, 16, 0))


def losses(run: Run, until: int, **rest: Any) -> list[float]:
    seen: list[float] = []
    train(run, next_token, until=until, hooks=[*rest.pop("hooks", ()), lambda run: seen.append(run.loss)], **rest)
    return seen


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_two_processes_are_one(sharding: str, corpus: Tokens, python: Callable[..., Any], tmp_path: Path) -> None:
    """All in one launch, as each takes seconds."""
    alone, ledger, latest = build(corpus), Ledger(), Latest(3, every=4, start=4)
    expected = losses(alone, 10, hooks=[latest], ledger=ledger)
    checkpoint.save(tmp_path / "from-one", alone)
    checkpoint.save(tmp_path / "one-with-memory", alone, hooks=[latest])
    expected += losses(alone, 20, hooks=[latest], ledger=ledger)

    result = python(SCRIPT, corpus.folder, tmp_path, sharding, processes=2)
    assert result.returncode == 0, result.stderr[:6000]
    told = json.loads((tmp_path / "told.json").read_text())

    assert "3 processes were asked for but 2 started" in told["refused"]
    assert told["wrapped"] == {"ddp": "DistributedDataParallel", "fsdp2": "FSDPGPTNeoXForCausalLM"}[sharding]
    assert told["losses 1"] == pytest.approx(expected, rel=0, abs=1e-5)
    assert told["losses 2"] == pytest.approx(expected, rel=0, abs=1e-5)
    assert (told["tokens"], told["flops"]) == (ledger.total().tokens, ledger.total().flops)

    size = sum(parameter.numel() for parameter in alone.model.parameters())
    assert told["local"] == told["snapshot"]
    assert told["local"] == pytest.approx({"ddp": size, "fsdp2": size / 2}[sharding], rel=1e-3)
    assert told["live again"]
    assert told["average off by"] < 1e-6

    assert told["resumed from 20"] == told["on from 20"]
    assert told["same memory"]
    assert told["from one"] == pytest.approx(expected[10:14], rel=0, abs=1e-5)
    resumed = checkpoint.load(tmp_path / "from-two" / "step-00000020", build(corpus), hooks=[Every(1, print)])
    assert losses(resumed, 24) == pytest.approx(told["on from 20"], rel=0, abs=1e-5)
    tied = build(corpus, **TIED)
    assert told["tied"] == pytest.approx(losses(tied, 6), rel=0, abs=1e-5)
    on_disk = checkpoint.load(tmp_path / "tied" / "step-00000006", build(corpus, **TIED))
    assert losses(on_disk, 8) == pytest.approx(losses(tied, 8), rel=0, abs=1e-5)
    with_memory = tmp_path / "with-memory" / "step-00000020"
    if sharding == "ddp":
        assert told["foreign memory"] == "taken"
        checkpoint.load(with_memory, build(corpus), hooks=[Latest(3, every=4, start=4)])
    else:
        assert "resume with as many, sharded alike" in told["foreign memory"]
        with pytest.raises(ValueError, match="remember the weights as 2 processes held them, which these 1 do not"):
            checkpoint.load(with_memory, build(corpus), hooks=[Latest(3, every=4, start=4)])
        assert told["too late"].startswith("an optimizer that has taken steps cannot be sharded")
