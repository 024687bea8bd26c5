"""Device, precision, seeds: in one process. With several, see train/test_processes.py."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from shoestring import runtime

DRAWS: tuple[Callable[[], float], ...] = (
    random.random,
    lambda: random.gauss(0, 1),
    np.random.random,
    np.random.standard_normal,
    lambda: torch.rand(()).item(),
    lambda: torch.randn(()).item(),
)


def drawn() -> list[float]:
    return [draw() for draw in DRAWS]


# by hand


def test_without_a_start_there_is_one_process_in_fp32() -> None:
    here = runtime.current()
    assert runtime.current() is here
    assert (here.rank, here.processes, here.precision, here.sharding) == (0, 1, "fp32", "ddp")
    assert here.sum(1.5, 2) == [1.5, 2]


def test_a_later_start_replaces_the_precision() -> None:
    runtime.current()
    assert runtime.start("bf16") is runtime.current()
    a = torch.ones(2, 2)
    with runtime.current().autocast():
        assert (a @ a).dtype == torch.bfloat16
    runtime.start(processes=1)
    with runtime.current().autocast():
        assert (a @ a).dtype == torch.float32


def test_in_one_process_nothing_is_wrapped() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters())
    assert runtime.start(sharding="fsdp2").prepare(model, optimizer) == (model, optimizer)
    with runtime.current().no_sync(model):
        model(torch.ones(1, 2)).sum().backward()
    assert model.weight.grad is not None


def test_a_compiled_model_is_unwrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(2, 2)
    assert runtime.unwrap(model) is model
    assert runtime.unwrap(torch.compile(model, backend="eager")) is model  # type: ignore[arg-type]


def test_the_faster_precision_is_the_one_that_took_less(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(fp32: float, bf16: float) -> Callable[..., float]:
        return lambda step: bf16 if torch.is_autocast_enabled("cpu") else fp32

    for fp32, bf16, faster in ((2.0, 1.0, "bf16"), (1.0, 2.0, "fp32"), (1.0, 1.0, "fp32")):
        monkeypatch.setattr(runtime, "_timed", seconds(fp32, bf16))
        assert runtime.faster_precision(lambda: torch.ones(())) == faster


def test_a_step_is_timed_as_often_as_said() -> None:
    seen = []

    def step() -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return torch.ones(())

    runtime.faster_precision(step, repeats=3)
    assert seen == [False] * 4 + [True] * 4


def test_a_compiler_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert runtime.compiler() == "no C++ compiler (g++ or clang++) was found"
    compiler = tmp_path / "my-compiler"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", "my-compiler")
    assert runtime.compiler() is None


@pytest.mark.parametrize("used", [False, True])
def test_memory_of_an_accelerator_is_given_back_where_it_was_used(monkeypatch: pytest.MonkeyPatch, used: bool) -> None:
    times: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: times.append(1))
    runtime.release()
    assert len(times) == used


@pytest.mark.parametrize(
    ("said", "launched", "found"),
    [(None, False, 4), ("1", False, 1), ("3,2", False, 3), ("9", False, 4), ("1", True, 4)],
)
def test_threads_share_the_cores_and_heed_what_a_user_set(
    said: str | None, launched: bool, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "cores", lambda: 8)
    for name, value in (("OMP_NUM_THREADS", said), ("LOCAL_RANK", "0" if launched else None)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert runtime.threads(2) == found
    assert runtime.threads(20) == 1


# seeds


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 7])
def test_the_same_seed_draws_the_same(seed: int) -> None:
    runtime.seed_everything(seed)
    first = drawn()
    runtime.seed_everything(seed + 1)
    assert all(one != other for one, other in zip(drawn(), first, strict=True))
    runtime.seed_everything(seed)
    assert drawn() == first


@pytest.mark.parametrize("before", [0, 1, 3])
def test_the_state_is_taken_and_put_back(before: int) -> None:
    """Also in between the two normal numbers that Python and NumPy draw at a time."""
    runtime.seed_everything(3)
    for _ in range(before):
        drawn()
    state = runtime.random_state()
    expected = [drawn() for _ in range(3)]
    runtime.set_random_state(state)
    assert [drawn() for _ in range(3)] == expected


def test_the_state_survives_the_disk(tmp_path: Path) -> None:
    from shoestring.train import state as states

    runtime.seed_everything(5)
    drawn()
    states.write(runtime.random_state(), tmp_path / "random")
    expected = drawn()
    runtime.set_random_state(states.read(tmp_path / "random"))
    assert drawn() == expected


# misuse


def test_processes_that_did_not_start_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"4 processes were asked for but 1 started: use `torchrun .*nproc_per_node 4"):
        runtime.start(processes=4)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="1 processes were asked for but 2 started"):
        runtime.start(processes=1)


def test_a_launcher_that_accelerate_did_not_hear_of_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.start()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were launched but accelerate joined 1"):
        runtime.start()


def test_other_precisions_and_shardings_are_refused() -> None:
    with pytest.raises(ValueError, match="precision 'fp16': expected 'fp32' or 'bf16'"):
        runtime.start("fp16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sharding 'zero': expected 'ddp' or 'fsdp2'"):
        runtime.start(sharding="zero")  # type: ignore[arg-type]
