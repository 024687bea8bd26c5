"""The experiment at its smallest: what is reported, what is kept, and what is not done twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import XLNetLMHeadModel

from shoestring import config, rooms, runtime
from shoestring.cost import Cost, Ledger
from shoestring.data.tokens import Tokens
from shoestring.evaluate.scores import Report
from shoestring.methods.permutation import recipe_ground, recipe_pretrain
from shoestring.methods.permutation.convert import from_transformers
from shoestring.methods.permutation.recipe import run
from shoestring.methods.permutation.recipe_ground import Ground
from shoestring.methods.permutation.recipe_held import APART, CLOZE, JOINT, held, scores
from shoestring.methods.permutation.recipe_pretrain import Outcome
from shoestring.methods.permutation.recipe_schema import ARMS, Recipe

SMALL = {"n_layer": 1, "d_model": 16, "d_inner": 16}


@dataclass(frozen=True)
class Done:
    """A finished experiment."""

    report: Report
    ledger: Ledger
    out: Path
    recipe: Recipe

    def outcome(self, folder: str) -> Outcome:
        return Outcome(**json.loads((self.out / "runs" / folder / "result.json").read_text()))


def corpus(folder: Path) -> str:
    for split in ("train", "dev", "test"):
        (folder / f"text_{split}.txt").write_text(" ".join(f"{split} {number}." for number in range(200)))
    return str(folder / "text_{split}.txt")


def done(folder: Path, **changes: Any) -> Done:
    text = {"sources": [corpus(folder)], "tokenizer": "bytes", "length": 24, "reuse": 12, "predicted": 5, "batch": 4}
    told: dict[str, Any] = {
        "model": "xlnet-tiny",
        "changes": SMALL,
        "text": text,
        "memory": 12,
        "arms": ["permutation", "masked", "autoregressive"],
        "steps": 4,
        "points": 2,
        "held": {"dev": 3, "test": 2, "longest": 2},
        "seeds": [0],
        "tuning": {"learning_rates": [1e-2]},
        "compute": {"precision": "fp32", "workers": 1, "save_seconds": 0.0},
    }
    recipe, ledger = config.check({**told, **changes}, Recipe, "here"), Ledger()
    return Done(run(recipe, ledger, folder / "out"), ledger, folder / "out", recipe)


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "cores", lambda: 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """Several arms and seeds, rates to choose from, a task of pairs."""
    folder = tmp_path_factory.mktemp("whole")
    rows = [{"one": f"{place}", "two": "ab"[place % 2], "gold": place % 2} for place in range(60)]
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {name: str(folder / f"{name}.jsonl") for name in ("train", "test")}
    task = {"name": "NLI", **files, "columns": ["one", "two"], "label": "gold"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "cores", lambda: 1)
        yield done(
            folder,
            seeds=[0, 1],
            tuning={"seeds": [100], "learning_rates": [1e-4, 1e-2]},
            fine_tuning={"sets": [task], "epochs": 1, "batch": 8, "length": 16, "learning_rates": [1e-3]},
        )


# what is reported


def test_the_report_is_what_the_runs_found(whole: Done) -> None:
    found = whole.report
    assert [(row.name, row.twin) for row in found.rows] == [
        ("permutation", False),
        ("masked", True),
        ("autoregressive", True),
    ]
    for row in found.rows:
        outcomes = [whole.outcome(f"{row.name}-seed{seed}") for seed in (0, 1)]
        for metric in (JOINT, CLOZE):
            ends = [outcome.points[-1]["test"][metric] for outcome in outcomes]
            assert row.scores[metric].mean == pytest.approx(sum(ends) / 2)
        assert row.scores["NLI accuracy"].n == 2
        assert (APART in row.scores) is (row.name != "autoregressive")
        points = [point for point in found.points if point.row == row.name]
        assert {point.seed for point in points} == {0, 1}
        assert points[-1].scores[JOINT] == outcomes[1].points[-1]["test"][JOINT]


def test_arms_spend_as_much_within_a_step(whole: Done) -> None:
    method, *twins = whole.report.rows
    for twin in twins:
        steps = whole.outcome(f"{twin.name}-seed0").points[-1]["step"]
        one = twin.cost.flops / steps
        # what is foretold of a step is of its first batch: two hundredths are of others
        assert 0.98 * method.cost.flops <= twin.cost.flops <= 1.02 * method.cost.flops + one


def test_learning_rates_are_chosen_by_dev_at_other_seeds(whole: Done) -> None:
    (note,) = [note for note in whole.report.notes if note.startswith("Learning rates, chosen on dev")]
    for arm in whole.recipe.arms:
        tried = {rate: whole.outcome(f"tuning/{arm}-{rate:g}-seed100") for rate in (1e-4, 1e-2)}
        best = min(tried, key=lambda rate: tried[rate].points[-1]["dev"][JOINT])
        assert f"{arm} {best:g} for " in note
        assert all("test" not in point for one in tried.values() for point in one.points)
        assert all(one.tasks == {} for one in tried.values())


def test_rows_cost_what_pretraining_took_and_the_ledger_has_all(whole: Done) -> None:
    every = Cost()
    for path in sorted((whole.out / "runs").rglob("result.json")):
        for cost in json.loads(path.read_text())["ledger"].values():
            every = every + Cost(**cost)
    assert whole.ledger.total().flops == every.flops
    assert sum(2 * row.cost.flops for row in whole.report.rows) < every.flops, "tuning is in no row"


def test_the_model_that_is_kept_is_the_methods(whole: Done) -> None:
    model = from_transformers(XLNetLMHeadModel.from_pretrained(whole.out / "checkpoint"))
    on = held(whole.recipe, Tokens.load(whole.out / "tokens" / "test"), 2, 1, 256)
    found = scores(model, ARMS["permutation"], whole.recipe, on)
    expected = whole.outcome("permutation-seed0").points[-1]["test"]
    assert found == pytest.approx(expected, rel=1e-5)
    assert (whole.out / "checkpoint" / "tokenizer.json").exists()
    assert not list(whole.out.rglob("*.partial"))


def test_what_is_finished_is_not_redone(whole: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it is done already")

    monkeypatch.setattr(recipe_pretrain, "_go", never)
    monkeypatch.setattr(recipe_ground.tokens, "pack", never)
    ledger = Ledger()
    again = run(whole.recipe, ledger, whole.out)
    assert again == whole.report
    assert ledger.total().flops == whole.ledger.total().flops


def test_a_run_that_is_missing_is_done_again_alone(whole: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    path = whole.out / "runs" / "masked-seed1" / "result.json"
    before, gone = path.read_text(), []
    original = recipe_pretrain._go

    def go(ground: Ground, job: Any, *others: Any) -> Outcome:
        gone.append(job.folder)
        return original(ground, job, *others)

    monkeypatch.setattr(recipe_pretrain, "_go", go)
    path.unlink()
    again = run(whole.recipe, Ledger(), whole.out)
    assert gone == ["masked-seed1"]
    assert json.loads(path.read_text())["points"][-1]["test"] == json.loads(before)["points"][-1]["test"]
    assert again.row("masked").scores == whole.report.row("masked").scores


def test_every_arm_from_text_to_a_row(tmp_path: Path) -> None:
    found = done(tmp_path, arms=list(ARMS), steps=2)
    assert [row.name for row in found.report.rows] == [*ARMS]
    assert len(found.report.pairs) == len(ARMS) - 1


def test_without_memory_and_directions(tmp_path: Path) -> None:
    found = done(tmp_path, memory=0, bidirectional=False, steps=2)
    model = XLNetLMHeadModel.from_pretrained(found.out / "checkpoint")
    assert model.config.mem_len is None


# diverged


def poisoned(monkeypatch: pytest.MonkeyPatch, arm: str, seed: int) -> None:
    """A run begins with weights that are no numbers."""
    original = Ground.run

    def made(self: Ground, one: Any, rate: float, own: int) -> Any:
        found = original(self, one, rate, own)
        if one == self.recipe.arm(arm) and own == seed:
            with torch.no_grad():
                found[0].model.lm_loss.bias.fill_(float("nan"))
        return found

    monkeypatch.setattr(Ground, "run", made)


def test_a_diverged_arm_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, "autoregressive", 1)
    found = done(tmp_path, seeds=[0, 1], steps=2)
    assert [row.name for row in found.report.rows] == ["permutation", "masked"]
    assert found.report.notes[-1].startswith("autoregressive is left out, a run diverged (step 0: the loss is nan")
    assert (found.out / "checkpoint").is_dir()


def test_without_the_method_there_is_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, "permutation", 0)
    with pytest.raises(
        ValueError, match=r"too many runs diverged: permutation is left out.*Lower tuning\.learning_rates"
    ):
        done(tmp_path, steps=2)
    assert not (tmp_path / "out" / "checkpoint").exists()


# across processes


def shoestring(*words: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    command = [*launcher, "shoestring", "run", "permutation", "smoke", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    source = corpus(tmp_path)
    arms = [*(name for name in ARMS if ARMS[name].kind != "masked"), "masked"]
    words = [f"arms={json.dumps(arms)}", f'text.sources=["{source}"]', "seeds=[0]", "steps=4"]
    for processes in (1, 2):
        compute = f"compute={{precision: fp32, processes: {processes}, workers: 1, save_seconds: 0.0}}"
        finished = shoestring(*words, compute, "--out", str(tmp_path / str(processes)), processes=processes)
        assert finished.returncode == 0, finished.stderr[-3000:]
        assert finished.stdout.count("The report:") == 1
    for path in sorted((tmp_path / "1" / "runs").rglob("log.jsonl")):
        if "masked" in str(path):  # each process draws its own masks
            continue
        one, two = (
            [json.loads(line) for line in (tmp_path / out / path.relative_to(tmp_path / "1")).read_text().splitlines()]
            for out in ("1", "2")
        )
        assert [line["step"] for line in one] == [line["step"] for line in two]
        assert one[-1]["tokens"] == two[-1]["tokens"]
        for name, value in one[-1].items():
            if name.startswith(("dev", "test")):
                assert two[-1][name] == pytest.approx(value, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", rooms.find("permutation").recipes)
def test_every_recipe_of_the_room_runs_on_a_small_text(name: str, tmp_path: Path) -> None:
    told = config.load(rooms.find("permutation").recipe(name), Recipe).model_dump(mode="json")
    text = {"sources": [corpus(tmp_path)], "tokenizer": "bytes", "length": 24, "reuse": 12, "predicted": 4, "batch": 4}
    least = {"model": "xlnet-tiny", "steps": 2, "seeds": [0], "tuning": {"learning_rates": [1e-3]}}
    changes = {"text": {**told["text"], **text}, "held": {"dev": 2, "test": 2, "longest": 2}, "fine_tuning": {}}
    compute = {"compute": {"precision": "fp32", "workers": 1}}
    found = run(
        config.check({**told, **least, **changes, **compute, "memory": 12}, Recipe, name), Ledger(), tmp_path / "out"
    )
    assert [row.name for row in found.rows] == told["arms"]
