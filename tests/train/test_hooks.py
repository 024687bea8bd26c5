"""Hooks: when they fire, what they write, and what is left of it after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shoestring.cost import Ledger
from shoestring.train import hooks as hooks_module
from shoestring.train.hooks import Booked, Evaluate, Every, Log, Progress, Save, Spaced
from shoestring.types import Run, memory


class Remember:
    """A hook with a memory."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def __call__(self, run: Run) -> None:
        self.steps.append(run.step)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hooks_module, "time", clock)
    return clock


def a_run(step: int = 0, loss: float = 1.0) -> Run:
    model = nn.Linear(1, 1)
    groups = [{"params": [model.weight], "lr": 0.5}, {"params": [model.bias], "lr": 0.25}]
    return Run(model, torch.optim.SGD(groups), None, step, loss)  # type: ignore[arg-type]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# by hand


def test_every_so_many_steps_and_after_the_last() -> None:
    seen = Remember()
    every = Every(3, seen, last=7)
    for step in range(1, 9):
        every(a_run(step))
    assert seen.steps == [3, 6, 7]


def test_every_has_the_memory_of_the_hook_in_it() -> None:
    first, second = Every(1, Remember()), Every(1, Remember())
    first(a_run(4))
    held = memory(first)
    assert held is not None
    second.load_state_dict(held.state_dict())
    assert second.hook.steps == [4]  # type: ignore[attr-defined]
    assert Every(1, lambda run: None).state_dict() == {}


def test_spaced_calls_at_most_once_in_so_many_seconds(clock: Clock) -> None:
    seen = Remember()
    spaced = Spaced(10, seen)
    for step, now in enumerate([105, 109.9, 110, 119, 120, 131], start=1):
        clock.now = now
        spaced(a_run(step))
    assert seen.steps == [3, 5, 6]


def test_spaced_by_nothing_calls_each_time() -> None:
    seen = Remember()
    spaced = Spaced(0, seen)
    for step in range(3):
        spaced(a_run(step))
    assert seen.steps == [0, 1, 2]


def test_a_line_holds_scores_beside_costs(tmp_path: Path) -> None:
    ledger = Ledger()
    log = Log(tmp_path, ledger)
    with ledger.phase("train"):
        ledger.charge(tokens=64, flops=1e6)
        log(a_run(5, 2.5))
    log.write(6, {"dev loss": 2.25})
    log.close()
    first, second = lines(tmp_path)
    assert list(first) == ["kind", "step", "loss", "learning_rate", "tokens", "flops", "seconds"]
    assert (first["kind"], first["step"], first["loss"], first["learning_rate"]) == ("train", 5, 2.5, 0.5)
    assert (first["tokens"], first["flops"]) == (64, 1e6)
    assert first["seconds"] >= 0
    assert (second["step"], second["dev loss"]) == (6, 2.25)


def test_a_line_is_on_the_disk_before_the_next_step(tmp_path: Path) -> None:
    log = Log(tmp_path, Ledger())
    log(a_run(1))
    assert len(lines(tmp_path)) == 1
    log.close()


def test_evaluate_books_its_time_apart_and_hands_the_scores_on() -> None:
    ledger, handed = Ledger(), []

    def score(model: nn.Module) -> dict[str, float]:
        ledger.charge(flops=9)
        return {"width": float(next(iter(model.parameters())).numel())}

    hook = Evaluate(score, lambda step, scores: handed.append((step, scores)), ledger)
    with ledger.phase("train"):
        hook(a_run(8))
    assert handed == [(8, {"width": 1.0})]
    assert ledger.total("train/evaluate").flops == 9
    assert ledger.phases()["train/evaluate"].seconds > 0


def test_progress_tells_the_rate_since_it_began(clock: Clock) -> None:
    ledger, shown = Ledger(), []
    ledger.charge(tokens=1000)  # of a run that was stopped before
    progress = Progress(4, ledger, lambda *told: shown.append(told), seconds=0.5)
    for step, now in ((1, 100.4), (2, 101.0), (3, 101.4), (4, 101.5)):
        clock.now = now
        ledger.charge(tokens=50)
        progress(a_run(step, loss=step / 2))
    assert shown == [(2, 4, 1.0, pytest.approx(100)), (4, 4, 2.0, pytest.approx(200 / 1.5))]


def test_save_hands_all_it_has_to_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = {}
    monkeypatch.setattr(hooks_module.checkpoint, "save", lambda folder, run, **rest: handed.update(rest, folder=folder))
    ledger, others = Ledger(), [Remember()]
    Save(tmp_path, others, ledger, None, keep=3)(a_run())
    assert handed == {"folder": tmp_path, "hooks": others, "ledger": ledger, "tokenizer": None, "keep": 3}


# against a reference


def read_events(folder: Path) -> list[tuple[int, str, float]]:
    """Scalars of every event file, oldest file first, in the protocol buffers' own words."""
    from tensorboardX.event_file_writer import event_pb2

    found = []
    for path in sorted(folder.iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):  # TFRecord: length (8), its checksum (4), the event, its checksum (4)
            length = int.from_bytes(data[place : place + 8], "little")
            event = event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            if event.HasField("session_log"):
                found = [entry for entry in found if entry[0] < event.step]
            place += 16 + length
    return found


def test_events_are_in_the_files_and_a_resumed_run_writes_over_them(tmp_path: Path) -> None:
    for since, steps in ((0, (1, 2, 3)), (2, (3, 4)), (0, (1, 2))):
        log = Log(tmp_path, Ledger(), since=since)
        for step in steps:
            log(a_run(step, step + 0.5))
        log.close()
        # files bear the second in which they were begun, and these three are of one
        new = next((tmp_path / "tensorboard").glob("events.*"))
        new.rename(new.with_name(f"{len(list(new.parent.iterdir()))} {new.name}"))
        found = [(step, value) for step, tag, value in read_events(tmp_path / "tensorboard") if tag == "loss"]
        assert found == [(step, step + 0.5) for step in range(1, steps[-1] + 1)]


# after a kill


def test_lines_after_the_checkpoint_and_a_torn_last_one_are_dropped(tmp_path: Path) -> None:
    log = Log(tmp_path, Ledger())
    for step in range(1, 6):
        log(a_run(step))
    log.close()
    path = tmp_path / "log.jsonl"
    path.write_text('{"kind": "note", "text": "kept"}\n' + path.read_text() + '{"kind": "train", "st')
    resumed = Log(tmp_path, Ledger(), since=3)
    resumed(a_run(4, 9.0))
    resumed.close()
    found = lines(tmp_path)
    assert [line.get("step") for line in found] == [None, 1, 2, 3, 4]
    assert found[-1]["loss"] == 9.0


def test_a_run_that_starts_anew_drops_what_an_earlier_one_logged(tmp_path: Path) -> None:
    log = Log(tmp_path, Ledger())
    log(a_run(1))
    log.close()
    Log(tmp_path, Ledger()).close()
    assert lines(tmp_path) == []


# misuse


def test_every_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="every 0 steps: expected one or more"):
        Every(0, Remember())


def test_a_booked_hooks_time_is_its_phases() -> None:
    seen, ledger = [], Ledger()

    def hook(run: Run) -> None:
        seen.append(run.step)
        ledger.charge(flops=3)

    Booked("save", hook, ledger)(a_run(0))
    assert seen == [0]
    assert ledger.phases()["save"].flops == 3
    assert ledger.phases()["save"].seconds > 0
