"""Watching a student: the best on dev is held, test is looked at for the report alone, and it tires."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shoestring import runtime
from shoestring.cost import Cost, Ledger
from shoestring.methods.rationale import recipe_watch
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.recipe_data import Task
from shoestring.methods.rationale.recipe_watch import Watch, accuracy, own
from shoestring.methods.rationale.student import Answer, Student
from shoestring.train.hooks import Log
from shoestring.types import Run

DEV, TEST = [Example("dev", "yes")], [Example("test", "yes")]
TASK = Task("T", [Example("train", "yes")], DEV, TEST, 4)


@dataclass
class Said:
    """A student that gives the answers it is told to, and keeps what it was asked."""

    labels: list[str]
    model: nn.Module = field(default_factory=lambda: nn.Linear(2, 2))
    free: list[bool] = field(default_factory=list)

    def answers(self, examples: Sequence[Example], reasons: bool = False, free: bool = False) -> list[Answer]:
        self.free.append(free)
        assert not reasons
        return [Answer(label, None, None) for label, _ in zip(self.labels, examples, strict=True)]


def said(*labels: str) -> Student:
    return cast("Student", Said(list(labels)))


def run_of(student: Student) -> Run:
    return Run(student.model, torch.optim.SGD(student.model.parameters(), lr=0.1), cast("Any", None))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Watch, Run, list[str]]]:
    """A watch whose measurements are given, and the parts it looked at: scored([dev ...], [test ...], patience)."""

    def make(dev: list[float], test: list[float], patience: int = 2) -> tuple[Watch, Run, list[str]]:
        looked: list[str] = []
        left = {"dev": iter(dev), "test": iter(test)}

        def measured(_: Student, examples: Sequence[Example], free: bool = False) -> float:
            looked.append(examples[0].text)
            return next(left[examples[0].text])

        monkeypatch.setattr(recipe_watch, "accuracy", measured)
        student = said()
        return Watch(student, TASK, Ledger(), patience), run_of(student), looked

    return make


def step(watch: Watch, run: Run) -> None:
    """The weights become the number of the step."""
    run.step += 1
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.fill_(run.step)
    watch(run)


# by hand


def test_the_best_on_dev_is_put_back_and_test_is_of_it(scored: Any) -> None:
    watch, run, looked = scored([0.2, 0.5, 0.5, 0.4, 0.6, 0.1], [0.9, 0.3, 0.7], patience=9)
    for _ in range(6):
        step(watch, run)
    assert [(point["step"], point["dev"], point["test"]) for point in watch.points] == [
        (1, 0.2, 0.9),
        (2, 0.5, 0.3),
        (3, 0.5, 0.3),
        (4, 0.4, 0.3),
        (5, 0.6, 0.7),
        (6, 0.1, 0.7),
    ]
    assert looked == ["dev", "test", "dev", "test", "dev", "dev", "dev", "test", "dev"]
    watch.take_best()
    assert all((parameter == 5).all() for parameter in run.model.parameters())


def test_of_equals_the_earlier_is_kept(scored: Any) -> None:
    watch, run, _ = scored([0.5, 0.5, 0.5], [0.1])
    for _ in range(3):
        step(watch, run)
    watch.take_best()
    assert all((parameter == 1).all() for parameter in run.model.parameters())


def test_a_first_score_of_nothing_is_the_best_so_far(scored: Any) -> None:
    watch, run, _ = scored([0.0], [0.0])
    step(watch, run)
    step_weights = [parameter.clone() for parameter in run.model.parameters()]
    watch.take_best()
    assert all(torch.equal(one, two) for one, two in zip(run.model.parameters(), step_weights, strict=True))


def test_it_tires_after_as_many_measurements_without_a_better_one(scored: Any) -> None:
    watch, run, _ = scored([0.2, 0.2, 0.3, 0.1, 0.3, 0.2], [0.1, 0.1], patience=3)
    tired = []
    for _ in range(6):
        assert not watch.tired
        step(watch, run)
        tired.append(watch.tired)
    assert tired == [False, False, False, False, False, True]


def test_frozen_weights_are_not_held(scored: Any) -> None:
    watch, run, _ = scored([0.2], [0.1])
    run.model.bias.requires_grad_(False)
    step(watch, run)
    assert watch.state_dict()["best"].keys() == {"weight"}


def test_what_it_measures_is_booked_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()

    def measured(*_: Any, **__: Any) -> float:
        ledger.charge(flops=1000)
        return 0.5

    monkeypatch.setattr(recipe_watch, "accuracy", measured)
    student = said()
    watch, run = Watch(student, TASK, ledger, 2), run_of(student)
    with ledger.phase("train"):
        ledger.charge(flops=7, tokens=3)
        step(watch, run)
    assert watch.points[0]["cost"]["flops"] == 7
    assert watch.points[0]["cost"]["tokens"] == 3
    assert ledger.total().flops == 2007


def test_own_cost_by_hand() -> None:
    ledger = {
        "train": Cost(flops=1, labels=5).as_dict(),
        "train/evaluate": Cost(flops=10).as_dict(),
        "train/save": Cost(flops=100).as_dict(),
        "evaluate": Cost(flops=1000).as_dict(),
        "train/evaluated": Cost(flops=10000, peak_bytes=3).as_dict(),
        "": Cost(tokens=2, peak_bytes=2).as_dict(),
    }
    assert own(ledger) == Cost(flops=10001, labels=5, tokens=2, peak_bytes=3)
    assert own({}) == Cost()


def test_it_writes_what_it_saw(scored: Any, tmp_path: Path) -> None:
    runtime.start("fp32")
    watch, run, _ = scored([0.25, 0.2], [0.75])
    watch.log = Log(tmp_path, Ledger())
    step(watch, run)
    step(watch, run)
    watch.log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["dev accuracy"], line["test accuracy of the best on dev"]) for line in lines] == [
        (1, 0.25, 0.75),
        (2, 0.2, 0.75),
    ]


# accuracy


def test_accuracy_by_hand() -> None:
    options = ("Mount Dovre", "bridge")
    examples = [
        Example("1", "Mount Dovre", options),
        Example("2", "bridge", options),
        Example("3", "(1 + 2)", expression=True),
        Example("4", "(1 + 2)", expression=True),
        Example("5", "some words"),
        Example("6", None, options),
        Example("7", "yes"),
        Example("8", "5/6"),
    ]
    student = said("mount dovre.", "Mount Dovre", "(2 + 1)", "(2 + 2)", "Some  Words.", "bridge", "", "10/12")
    assert accuracy(student, examples) == 3 / 8
    assert accuracy(student, examples, free=True) == 3 / 8
    assert cast("Said", student).free == [False, True]


# property


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12),
    st.integers(1, 4),
    st.data(),
)
def test_it_goes_on_as_if_it_had_not_been_stopped(
    measured: list[tuple[int, int]], patience: int, data: st.DataObject
) -> None:
    stopped = data.draw(st.integers(0, len(measured)))

    def watched(student: Student) -> tuple[Watch, Run]:
        return Watch(student, TASK, Ledger(), patience), run_of(student)

    with pytest.MonkeyPatch.context() as patch:
        whole, whole_run = watched(said())
        first, run = watched(said())
        again, again_run = watched(said())
        for place, (dev, test) in enumerate(measured):
            found = {"dev": dev / 4, "test": test / 4}
            patch.setattr(recipe_watch, "accuracy", lambda _, some, found=found: found[some[0].text])
            step(whole, whole_run)
            step(first if place < stopped else again, run if place < stopped else again_run)
            if place == stopped - 1:
                again.load_state_dict(copy.deepcopy(first.state_dict()))
                again_run.step = run.step

    def without_time(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{name: held for name, held in point.items() if name != "cost"} for point in points]

    assert without_time(again.points) == without_time(whole.points)
    assert again.tired == whole.tired
    whole.take_best()
    again.take_best()
    for one, two in zip(whole_run.model.parameters(), again_run.model.parameters(), strict=True):
        assert torch.equal(one, two)
    # the slow way: the first of the best
    best = max(range(len(measured)), key=lambda place: (measured[place][0], -place))
    assert all((parameter == best + 1).all() for parameter in whole_run.model.parameters())
    assert whole.points[-1]["test"] == measured[best][1] / 4
