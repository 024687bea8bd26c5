"""One run: scored as it goes, taught the tasks, resumed where it was stopped, and told of where it diverged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from shoestring import config, files, runtime
from shoestring.cost import Cost
from shoestring.methods.permutation import recipe_pretrain
from shoestring.methods.permutation.recipe_ground import Ground, prepare
from shoestring.methods.permutation.recipe_held import APART, CLOZE, JOINT, REMEMBERED
from shoestring.methods.permutation.recipe_pretrain import Job, Outcome, finished, follow
from shoestring.methods.permutation.recipe_schema import ARMS, Recipe
from shoestring.train.hooks import Progress

SMALL = {"n_layer": 1, "d_model": 16, "d_inner": 16}


@pytest.fixture(autouse=True)
def told_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_pretrain, "Progress", partial(Progress, seconds=0.0))
    monkeypatch.setattr(recipe_pretrain, "_SAVED", 2)
    monkeypatch.setattr(runtime, "cores", lambda: 1)


@pytest.fixture
def ground(tmp_path: Path) -> Callable[..., Ground]:
    for split in ("train", "dev", "test"):
        (tmp_path / f"text_{split}.txt").write_text(" ".join(f"{split} {number}." for number in range(200)))
    rows = [{"text": f"number {place} {'ab'[place % 2]}", "label": "ab"[place % 2]} for place in range(60)]
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sets = [
        {"name": name, "train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")} for name in "AB"
    ]
    source = str(tmp_path / "text_{split}.txt")

    def make(**changes: Any) -> Ground:
        told: dict[str, Any] = {
            "model": "xlnet-tiny",
            "changes": SMALL,
            "text": {"sources": [source], "tokenizer": "bytes", "length": 24, "reuse": 10, "predicted": 5, "batch": 4},
            "memory": 8,
            "arms": list(ARMS),
            "steps": 6,
            "points": 3,
            "held": {"dev": 3, "test": 2, "longest": 2},
            "seeds": [0],
            "tuning": {"learning_rates": [1e-2]},
            "fine_tuning": {"sets": sets, "epochs": 1, "batch": 8, "length": 20},
            "compute": {"precision": "fp32", "workers": 1, "save_seconds": 0.0},
        }
        return prepare(config.check({**told, **changes}, Recipe, "here"), 1, tmp_path / "out")

    return make


def job(arm: str = "permutation", **changes: Any) -> Job:
    values: dict[str, Any] = {"learning_rate": 1e-2, "seed": 0, "steps": 6} | changes
    return Job(f"{arm.replace(', ', '-').replace(' ', '-')}", arm, **values)


def told(outcome: Outcome) -> dict[str, Any]:
    """What a run came to, less what the clock and the memory say."""
    found = asdict(outcome)
    for cost in (*(point["cost"] for point in found["points"]), *found["ledger"].values()):
        del cost["seconds"], cost["peak_bytes"]
    found["ledger"] = {phase: cost for phase, cost in found["ledger"].items() if any(cost.values())}
    return found


def quiet(*_: Any) -> None:
    """Nobody watches."""


# by hand


@pytest.mark.parametrize("arm", ARMS)
def test_a_run_of_every_arm(arm: str, ground: Any, tmp_path: Path) -> None:
    found = follow(ground(), job(arm, final=True, kept=True), tmp_path, quiet)
    assert found.diverged is None
    assert [point["step"] for point in found.points] == [2, 4, 6]
    kinds = {JOINT, CLOZE} | ({APART} if ARMS[arm].kind in ("permutation", "masked") else set())
    kinds |= {REMEMBERED} if ARMS[arm].memory else set()
    for point in found.points:
        assert set(point["dev"]) == set(point["test"]) == kinds
        assert all(0 < value < 30 for split in ("dev", "test") for value in point[split].values())
    assert found.tasks.keys() == {"A", "B"}
    assert all(0 <= found.tasks[task][split] <= 1 for task in "AB" for split in ("dev", "test"))
    assert found.cost.tokens == 6 * 4 * 24
    folder = tmp_path / "runs" / job(arm).folder
    assert finished(job(arm), tmp_path)
    assert load_file(folder / "model" / "model.safetensors")
    assert not (folder / "checkpoint").exists()
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert all(f"dev {JOINT}" in line for line in lines)


def test_a_run_that_rows_are_not_of_is_not_taught_and_sees_dev_alone(ground: Any, tmp_path: Path) -> None:
    found = follow(ground(), job(), tmp_path, quiet)
    assert found.tasks == {}
    assert all("test" not in point for point in found.points)
    assert not (tmp_path / "runs" / "permutation" / "model").exists()


@pytest.mark.parametrize(
    ("steps", "points", "at"), [(7, 3, [3, 6, 7]), (5, 8, [1, 2, 3, 4, 5]), (4, 1, [4]), (9, 2, [5, 9])]
)
def test_no_more_measurements_than_asked_for(
    steps: int, points: int, at: list[int], ground: Any, tmp_path: Path
) -> None:
    found = follow(ground(points=points), job(steps=steps), tmp_path, quiet)
    assert [point["step"] for point in found.points] == at
    assert len(at) <= points


def test_what_pretraining_took_is_of_pretraining_alone(ground: Any, tmp_path: Path) -> None:
    found = follow(ground(), job(final=True), tmp_path, quiet)
    assert {"train", "train/evaluate", "train/save", "fine-tune/A", "fine-tune/B"} <= found.ledger.keys()
    assert found.cost == Cost(**found.ledger["train"])
    assert found.ledger["fine-tune/A"]["flops"] > 0
    costs = [Cost(**point["cost"]) for point in found.points]
    assert [cost.tokens for cost in costs] == [192, 384, 576]
    assert costs[0].flops * 3 == costs[2].flops == found.cost.flops
    assert costs[0].seconds < costs[1].seconds < costs[2].seconds <= found.cost.seconds


def test_two_runs_are_the_same(ground: Any, tmp_path: Path) -> None:
    made = ground()
    one, other = (follow(made, job("masked", final=True), tmp_path / name, quiet) for name in ("one", "other"))
    assert told(one) == told(other)
    third = follow(made, job("masked", seed=1), tmp_path / "third", quiet)
    assert third.points[-1]["dev"] != one.points[-1]["dev"]


# stopped


class Killed(Exception):  # noqa: N818
    """In the middle of a run."""


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "runs" / "permutation" / "model" / "model.safetensors")


@pytest.mark.parametrize("moment", [1, 3, 5, 6])
def test_stopped_anywhere_and_resumed_it_is_the_same(moment: int, ground: Any, tmp_path: Path) -> None:
    made, which = ground(), job(final=True, kept=True)
    expected = follow(made, which, tmp_path / "whole", quiet)
    shown: list[int] = []

    def show(step: int, *_: Any) -> None:
        shown.append(step)
        if len(shown) == moment:
            raise Killed

    with pytest.raises(Killed):
        follow(made, which, tmp_path / "again", show)
    assert not finished(which, tmp_path / "again")
    found = follow(made, which, tmp_path / "again", show)
    saved = (moment - 1) // 2 * 2
    assert shown[moment : moment + 6 - saved] == list(range(saved + 1, 7)), "from the latest checkpoint"
    assert told(found) == told(expected)
    assert all(
        torch.equal(weight, weights(tmp_path / "whole")[name]) for name, weight in weights(tmp_path / "again").items()
    )


@pytest.mark.parametrize("arm", ["masked, memory", "autoregressive"])
def test_other_arms_stopped_and_resumed(arm: str, ground: Any, tmp_path: Path) -> None:
    made, which = ground(), job(arm)
    expected = follow(made, which, tmp_path / "whole", quiet)

    def show(step: int, *_: Any) -> None:
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        follow(made, which, tmp_path / "again", show)
    assert told(follow(made, which, tmp_path / "again", quiet)) == told(expected)


def test_stopped_between_two_tasks(ground: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taught is not taught again, and the other comes out as it would have."""
    made, which = ground(), job(final=True)
    expected = follow(made, which, tmp_path / "whole", quiet)
    original, seen = recipe_pretrain.taught, []

    def taught(model: Any, tokenizer: Any, one: Any, *others: Any) -> dict[str, float]:
        if one.name == "B" and "B" not in seen:
            seen.append("B")
            raise Killed
        seen.append(one.name)
        return original(model, tokenizer, one, *others)

    monkeypatch.setattr(recipe_pretrain, "taught", taught)
    with pytest.raises(Killed):
        follow(made, which, tmp_path / "again", quiet)
    assert told(follow(made, which, tmp_path / "again", quiet)) == told(expected)
    assert seen == ["A", "B", "B"]


def test_stopped_between_its_model_and_its_result(ground: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, which = ground(), job(kept=True)
    expected = follow(made, which, tmp_path / "whole", quiet)
    write = files.replace

    def killed(path: Path, text: str) -> None:
        if path.name == "result.json":
            raise Killed
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", killed)
        with pytest.raises(Killed):
            follow(made, which, tmp_path / "again", quiet)
    assert (tmp_path / "again" / "runs" / "permutation" / "model").is_dir()
    assert told(follow(made, which, tmp_path / "again", quiet)) == told(expected)


def test_what_is_finished_is_read(ground: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ground()
    expected = follow(made, job(final=True), tmp_path, quiet)

    def never(*_: Any) -> None:
        raise AssertionError("it is done already")

    monkeypatch.setattr(recipe_pretrain, "_go", never)
    assert follow(made, job(final=True), tmp_path, quiet) == expected
    path = tmp_path / "runs" / "permutation" / "result.json"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ValueError, match=r"result\.json: torn .*delete it, and this run is done again"):
        follow(made, job(final=True), tmp_path, quiet)


# diverged


def test_a_run_that_diverges_says_why(ground: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Ground.run

    def poisoned(self: Ground, *given: Any) -> Any:
        run, learnt = original(self, *given)

        def objective(model: Any, batch: Any) -> Any:
            found = learnt(model, batch)
            return found._replace(total=found.total * float("nan")) if run.step == 3 else found

        objective.memory = learnt.memory  # type: ignore[attr-defined]
        return run, objective

    monkeypatch.setattr(Ground, "run", poisoned)
    found = follow(ground(), job(final=True, kept=True), tmp_path, quiet)
    assert found.diverged is not None
    assert found.diverged.startswith("step 3: the loss is nan")
    assert [point["step"] for point in found.points] == [2], "what was seen before stays"
    assert found.cost.flops > 0
    assert (found.tasks, (tmp_path / "runs" / "permutation" / "model").exists()) == ({}, False)


def test_a_model_whose_likelihoods_are_not_finite_has_diverged(
    ground: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step's loss is finite; what the step left is not."""
    original = recipe_pretrain._Watch.__call__

    def watched(self: Any, run: Any) -> None:
        if run.step == 6:
            with torch.no_grad():
                run.model.lm_loss.bias.fill_(float("inf"))
        original(self, run)

    monkeypatch.setattr(recipe_pretrain._Watch, "__call__", watched)
    found = follow(ground(), job(final=True), tmp_path, quiet)
    assert found.diverged == "step 6: no finite likelihoods: its weights or activations overflowed"
    assert [point["step"] for point in found.points] == [2, 4]
    assert json.loads((tmp_path / "runs" / "permutation" / "result.json").read_text())["diverged"] == found.diverged


def test_a_run_whose_task_diverges_at_every_rate_has_diverged(ground: Any, tmp_path: Path) -> None:
    made = ground()
    tuning = made.recipe.fine_tuning.model_copy(update={"learning_rates": (1e30,), "epochs": 3})
    recipe = made.recipe.model_copy(update={"fine_tuning": tuning})
    poor = replace(made, recipe=recipe)
    found = follow(poor, job(final=True), tmp_path, quiet)
    assert found.diverged == "A: it diverged at every one of fine_tuning.learning_rates"
    assert len(found.points) == 3
    assert follow(poor, job(), tmp_path / "tuning", quiet).diverged is None
