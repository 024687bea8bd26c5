"""What samplers that re-weigh have in common: losses by skill, weights by name, and whose state it is."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shoestring.methods.mixing.draws import checked
from shoestring.methods.mixing.rounds import Losses, by_name, measured, one_hot, one_later, same
from shoestring.types import Run


def test_losses_are_kept_in_one_order() -> None:
    losses = Losses(["a", "b"])
    assert losses.add(1, {"b": 2, "z": math.nan, "a": torch.tensor(1.0)}) == [1.0, 2.0]
    assert losses.add(2, {"a": 3.0, "b": 4.0}) == [3.0, 4.0]
    assert losses.rows == [[1.0, 2.0], [3.0, 4.0]]


def test_losses_that_are_none_are_refused_and_not_kept() -> None:
    losses = Losses(["a", "b"])
    with pytest.raises(ValueError, match="step 3: the skill 'b' was not evaluated; it gave losses of a"):
        losses.add(3, {"a": 1.0})
    with pytest.raises(ValueError, match="step 4: the loss of 'b' is inf: the weights stay as they are; lower"):
        losses.add(4, {"a": 1.0, "b": math.inf})
    with pytest.raises(ValueError, match="the skill 'b' was not evaluated"):
        losses.add(3, defaultdict(float, a=1.0))
    assert losses.rows == []


@given(raw=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=200))
def test_named_weights_are_ones_that_a_mixture_takes(raw: list[float]) -> None:
    names = [str(place) for place in range(len(raw))]
    weights = by_name(names, torch.tensor(raw) + 1e-3)
    assert list(weights) == names
    assert math.fsum(weights.values()) == pytest.approx(1, abs=1e-13)
    assert checked(weights, names) == list(weights.values())


def test_the_state_of_another_is_refused() -> None:
    same("seed", {"a": [1]}, {"a": [1]})
    with pytest.raises(ValueError, match="the saved sampler has seed 1, this one 2: resume with the same"):
        same("seed", 1, 2)
    with pytest.raises(ValueError, match="the saved sampler was of another kind"):
        same("settings", {"rate": 1}, {"rate": 1, "window": 3})


def test_it_is_measured_without_gradients_and_left_in_its_mode() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout())
    model[1].eval()
    seen = []

    def evaluate(given: nn.Module) -> dict[str, float]:
        seen.append((given.training, torch.is_grad_enabled()))
        given.train()
        return {"a": 1.0}

    assert measured(evaluate, Run(model, None, None)) == {"a": 1.0}  # type: ignore[arg-type]
    assert seen == [(False, False)]
    assert [module.training for module in model.modules()] == [True, True, False]
    with pytest.raises(ValueError, match="step 2: evaluate gave a list: expected losses by skill"):
        Losses(["a"]).add(2, [1.0])  # type: ignore[arg-type]


def test_a_step_that_nobody_counts_is_told_of() -> None:
    assert one_later(3, 2) == 3
    with pytest.raises(ValueError, match=r"called twice at step 3: add one to run\.step"):
        one_later(3, 3)


def test_what_is_as_good_as_a_single_skill() -> None:
    assert one_hot({"a": 0.994, "b": 0.006}) == "0.9940 of what is drawn is 'a'"
    assert one_hot({"a": 0.99, "b": 0.01}) == one_hot({"a": 1.0}) == ""


APART = """
import sys
import torch, torch.distributed as dist
from torch import nn
from shoestring.methods.mixing import Aioli, Graph, Mixture, SkillIt
from shoestring.types import Run

rank = int(sys.argv[2])
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
names = ["a", "b", "c"]
noise = torch.Generator().manual_seed(rank)
def losses(model):
    return {name: place + torch.rand((), generator=noise) for place, name in enumerate(names)}

def drawn(make):
    numbers = {name: [1000 * place + row for row in range(40)] for place, name in enumerate(names)}
    mixture = Mixture(numbers, batch_size=8, rank=rank, world=2)
    hook, batches, found = make(mixture), iter(mixture), []
    run = Run(nn.Linear(1, 1), torch.optim.SGD([torch.zeros(1)]), batches)
    hook.begin(run)
    for _ in range(12):
        found += next(batches).tolist()
        run.step += 1
        hook(run)
    whole = [None, None]
    dist.all_gather_object(whole, (found, hook.weights))
    assert whole[0][1] == whole[1][1], whole
    together = whole[0][0] + whole[1][0]
    first = [number for number in together if number < 1000]
    assert len(set(first)) == min(40, len(first)), "a row came twice"
    assert max(hook.weights.values()) > 0.34, hook.weights

graph = Graph.of([[1, 0, 0], [0.5, 1, 0], [0, 0, 1]], names)
drawn(lambda mixture: SkillIt(mixture, graph, losses, rate=0.5, round_steps=4, until=12))
drawn(lambda mixture: Aioli(mixture, names, losses, rate=0.5, round_steps=6, until=12, slice_steps=1))
dist.destroy_process_group()
"""


def test_processes_that_measure_apart_draw_as_one(tmp_path: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", APART, str(tmp_path / "store"), str(rank)], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    told = [process.communicate(timeout=120)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0], told
