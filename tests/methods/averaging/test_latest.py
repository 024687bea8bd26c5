"""The latest weights, kept while a run goes on."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shoestring.methods.averaging.average import average
from shoestring.methods.averaging.latest import Latest


def fill(model: nn.Module, value: float) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def train(model: nn.Module, steps: range, hook: Latest, optimizer: torch.optim.Optimizer) -> list[dict[str, Tensor]]:
    """A bare loop on data drawn by step; returns the weights after each step."""
    seen = []
    for step in steps:
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        loss = (model(x) - x.sum(dim=1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        hook(SimpleNamespace(model=model, step=step))  # type: ignore[arg-type]
    return seen


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# by hand


def test_the_window_moves() -> None:
    model, latest = nn.Linear(1, 1), Latest(3, every=2, start=3)
    for step in range(1, 13):
        latest(SimpleNamespace(model=fill(model, step), step=step))  # type: ignore[arg-type]
        assert latest.full == (step >= 8)
    assert latest.steps == [8, 10, 12]
    assert latest.average()["weight"].item() == 10
    assert latest.average([0, 1, 1])["weight"].item() == 11
    assert latest.average(steps=[8, 12])["weight"].item() == 10
    assert latest.average([3, 1], steps=[8, 12])["weight"].item() == 9


def test_copies_are_written_over_and_no_new_ones_made() -> None:
    model, latest = nn.Linear(1, 1), Latest(2)
    for step in range(2):
        latest.take(fill(model, step), step)
    places = {held["weight"].data_ptr() for held in latest.state_dict()["snapshots"].values()}
    for step in range(2, 7):
        latest.take(fill(model, step), step)
    assert {held["weight"].data_ptr() for held in latest.state_dict()["snapshots"].values()} == places
    assert latest.average()["weight"].item() == 5.5


def test_copies_keep_the_precision_of_the_weights_and_not_their_memory() -> None:
    model, latest = nn.Linear(2, 2).bfloat16(), Latest(1)
    latest.take(model, 1)
    held = latest.average()
    fill(model, 9)
    assert held["weight"].dtype == torch.bfloat16
    assert not bool((latest.average()["weight"] == 9).any())


# against a reference


def test_it_is_the_mean_of_the_latest_of_a_real_run() -> None:
    torch.manual_seed(0)
    model, latest = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), Latest(3, every=2)
    seen = train(model, range(1, 11), latest, torch.optim.AdamW(model.parameters(), 0.01))
    reference = average([seen[step - 1] for step in (6, 8, 10)])
    found = latest.average()
    assert found.keys() == {name for name in reference if not name.endswith("num_batches_tracked")}
    assert all(torch.equal(found[name], reference[name]) for name in found)
    live = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with latest.swapped(model, [1, 0, 0]):
        assert torch.equal(model[0].weight, seen[5]["0.weight"])
    assert same(model.state_dict(), live)


# property


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 6), st.integers(0, 20), st.integers(0, 20))
def test_stopped_and_resumed_is_never_stopped(count: int, every: int, start: int, stop: int, more: int) -> None:
    torch.manual_seed(1)
    model = nn.Linear(3, 1)
    other = copy.deepcopy(model)
    whole, first, second = (Latest(count, every, start) for _ in range(3))
    train(model, range(1, stop + more + 1), whole, torch.optim.SGD(model.parameters(), 0.1))
    train(other, range(1, stop + 1), first, torch.optim.SGD(other.parameters(), 0.1))
    second.load_state_dict(first.state_dict())
    train(other, range(stop + 1, stop + more + 1), second, torch.optim.SGD(other.parameters(), 0.1))
    assert second.steps == whole.steps == [s for s in range(start, stop + more + 1) if s and s % every == 0][-count:]
    assert second.full == whole.full
    if whole.steps:
        assert same(second.average(), whole.average())


def test_the_hook_changes_nothing_in_the_run() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    other = copy.deepcopy(model)
    train(model, range(1, 9), Latest(3), torch.optim.AdamW(model.parameters(), 0.1))
    train(other, range(1, 9), Latest(3, start=100), torch.optim.AdamW(other.parameters(), 0.1))
    assert same(model.state_dict(), other.state_dict())


# alone, sharded, and misused


def test_alone_in_a_bare_loop() -> None:
    torch.manual_seed(0)
    model, latest = nn.Linear(2, 1), Latest(count=5, every=10)
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    teacher, held_out = torch.tensor([[1.0], [-2.0]]), torch.randn(512, 2)
    for step in range(1, 201):
        x = torch.randn(2, 2)
        optimizer.zero_grad()
        (model(x) - x @ teacher - 0.5 * torch.randn(2, 1)).square().mean().backward()
        optimizer.step()
        if latest.due(step):
            latest.take(model, step)

    def error() -> float:
        return (model(held_out) - held_out @ teacher).square().mean().item()

    live = error()
    with latest.swapped(model):
        averaged = error()
    assert averaged < live == error()


SHARDED = """
import os, sys
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from shoestring.methods.averaging.ema import Ema
from shoestring.methods.averaging.latest import Latest

dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[2]), world_size=2)

def build(shard):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 5), nn.Linear(5, 11, bias=False))
    if shard:
        mesh = init_device_mesh("cpu", (2,))
        fully_shard(model[1], mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model

def run(model, swaps):
    latest, ema = Latest(3), Ema([0.5])
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    losses = []
    for step in range(1, 7):
        ids = torch.randint(11, (4,), generator=torch.Generator().manual_seed(step))
        loss = nn.functional.cross_entropy(model(ids), ids)
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        latest.take(model, step); ema.take(model, step)
        losses.append(loss.item())
        if swaps and latest.full:
            for block in (latest.swapped(model), ema.swapped(model)):
                with block, torch.no_grad():
                    losses.append(nn.functional.cross_entropy(model(ids), ids).item())
    return latest, losses

def gathered(model):
    return [(p.full_tensor() if shard else p).detach().clone() for p in model.parameters()]

found = {}
for shard in (False, True):
    model = build(shard)
    latest, losses = run(model, True)
    plain = build(shard)
    run(plain, False)
    assert all(torch.equal(a, b) for a, b in zip(gathered(model), gathered(plain))), "the swap left a trace"
    with latest.swapped(model):
        found[shard] = losses, gathered(model), latest.average()
torch.testing.assert_close(torch.tensor(found[True][0]), torch.tensor(found[False][0]), rtol=0, atol=1e-6)
for whole, part in zip(found[False][1], found[True][1]):
    torch.testing.assert_close(whole, part, rtol=0, atol=1e-6)
held = {name: tuple(tensor.shape) for name, tensor in found[True][2].items()}
assert held["1.weight"] == ((3, 6) if sys.argv[2] == "0" else (2, 6)), held
dist.destroy_process_group()
print("held")
"""


def test_under_fsdp2_each_process_keeps_its_shards(tmp_path: Path) -> None:
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "store"), str(rank)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120) for process in processes]
    assert [out.strip() for out, _ in said] == ["held", "held"], said


def test_what_is_suspicious_is_said() -> None:
    model, latest = nn.Linear(4, 4), Latest(4)
    for step in (1, 2, 2, 3):
        latest.take(model, step)
    said = [sentence.split(":")[0] for sentence in latest.suspicious()]
    assert said == ["The steps go from 2 to 2", "The same weights twice"]


def test_misuse_is_refused_in_a_line() -> None:
    for keywords in ({"count": 0}, {"count": 2, "every": 0}, {"count": 2, "start": -1}):
        with pytest.raises(ValueError, match="expected a whole number of at least"):
            Latest(**keywords)
    latest = Latest(2, every=5)
    with pytest.raises(ValueError, match="no weights are held yet"):
        latest.average()
    latest.take(nn.Linear(2, 2), 5)
    with pytest.raises(ValueError, match="the weights of step 6 are not held"):
        latest.average(steps=[5, 6])
    with pytest.raises(ValueError, match=r"bias has shape|weight has shape"):
        latest.take(nn.Linear(3, 3), 10)
    with pytest.raises(ValueError, match="every 5 and this one 1: give every=5"):
        Latest(2).load_state_dict(latest.state_dict())
    torn = latest.state_dict()
    torn["steps"] = [5, 10]
    with pytest.raises(ValueError, match="torn"):
        Latest(2, every=5).load_state_dict(torn)
