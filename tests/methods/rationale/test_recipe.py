"""The experiment at its smallest: what is chosen by dev, what is reported, and a run that was stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shoestring import __main__ as door
from shoestring import config, files, rooms, runtime
from shoestring.cost import Cost, Ledger
from shoestring.data import tokenizers
from shoestring.evaluate.scores import Report
from shoestring.methods.rationale import recipe_arm, recipe_teacher, recipe_watch
from shoestring.methods.rationale.chains import solve, spelled
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.recipe import Recipe, run
from shoestring.methods.rationale.recipe_arm import Arm, Outcome, follow
from shoestring.methods.rationale.recipe_data import held_out_chains
from shoestring.methods.rationale.recipe_ground import Ground, prepare
from shoestring.methods.rationale.recipe_plan import finals, plan
from shoestring.methods.rationale.recipe_schema import ARMS
from shoestring.methods.rationale.recipe_watch import Watch, accuracy, own
from shoestring.methods.rationale.student import Student
from shoestring.models import presets, pretrained, seq2seq
from shoestring.train.hooks import Progress
from shoestring.types import Run

DATA = Path(os.environ.get("SHOESTRING_DATA", Path(__file__).parents[4] / "shared" / "data"))
T5 = {"num_layers": 1, "num_decoder_layers": 1, "d_model": 16, "num_heads": 2, "d_kv": 8, "d_ff": 16}
NEOX = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16}
MATCHED = "standard, compute-matched"
LEAST: dict[str, Any] = {
    "chains": {"given": 2, "derived": 1, "train": 24},
    "model": {"names": ["t5-tiny"], "changes": T5},
    "arms": ["standard", "two-task"],
    "steps": 4,
    "batch": 4,
    "evaluate_every": 2,
    "patience": 99,
    "held_out": [6, 8],
    "seeds": [0],
    "tuning": {"seeds": [100], "learning_rates": [1e-2]},
    "lessons": {"tokens": [32, 24]},
    "compute": {"precision": "fp32", "workers": 1, "save_seconds": 0.0},
}
DEV, TEST = LEAST["held_out"]


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs take as many threads as there are cores: here other tests want them."""
    monkeypatch.setattr(runtime, "cores", lambda: 1)


def recipe(**changes: Any) -> Recipe:
    return config.check({**LEAST, **changes}, Recipe, "here")


@dataclass(frozen=True)
class Done:
    """A finished experiment."""

    report: Report
    ledger: Ledger
    out: Path
    recipe: Recipe

    def outcome(self, folder: str) -> Outcome:
        return Outcome(**json.loads((self.out / "runs" / folder / "result.json").read_text()))


def done(out: Path, **changes: Any) -> Done:
    ledger, told = Ledger(), recipe(**changes)
    return Done(run(told, ledger, out), ledger, out, told)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """Chains, several arms and seeds, rates to choose from; the teacher slips."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "cores", lambda: 1)
        yield done(
            tmp_path_factory.mktemp("whole"),
            chains={"given": 2, "derived": 1, "train": 24, "error_rate": 0.3, "samples": 3},
            arms=["standard", MATCHED, "distilled", "two-task"],
            seeds=[0, 1],
            tuning={"seeds": [100], "learning_rates": [1e-4, 1e-2]},
        )


def name(arm: str, seed: int) -> str:
    return f"t5-tiny-chains-1-{arm.replace(',', '').replace(' ', '-')}-seed{seed}"


def test_a_teacher_that_spells_its_steps_says_so_in_demonstrations_and_answers(tmp_path: Path) -> None:
    recipe_teacher.teach(recipe(chains={**LEAST["chains"], "spelled": True}), Ledger(), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "taught.jsonl").read_text().splitlines()]
    assert len(rows) == 24
    for row in rows:
        assert row["rationale"] == spelled(row["text"], solve(row["text"])[0])
        assert row["teacher_label"] == row["label"]


# what is reported


def test_the_report_has_its_rows_twins_points_and_notes(whole: Done) -> None:
    found = whole.report
    assert [(row.name, row.twin) for row in found.rows] == [
        ("standard", True),
        (MATCHED, True),
        ("distilled", True),
        ("two-task", False),
    ]
    assert [(pair.method, pair.twin) for pair in found.pairs] == [
        ("two-task", "standard"),
        ("two-task", "distilled"),
        ("two-task", MATCHED),
    ]
    for row in found.rows:
        outcomes = [whole.outcome(name(row.name, seed)) for seed in (0, 1)]
        scores = [outcome.scores["accuracy"] for outcome in outcomes]
        assert row.scores["test accuracy"].mean == pytest.approx(sum(scores) / 2)
        assert row.scores["test accuracy"].n == 2
        assert row.cost.flops > 0
        assert row.cost.labels == (0 if row.name == "distilled" else 24)
        points = [point for point in found.points if point.row == row.name]
        assert {point.seed for point in points} == {0, 1}
        for outcome, seed in zip(outcomes, (0, 1), strict=True):
            assert [point.step for point in points if point.seed == seed] == [point["step"] for point in outcome.points]
            assert outcome.points[-1]["test"] == outcome.scores["accuracy"]
    two, one = (
        [whole.outcome(name(arm, seed)).scores["accuracy"] for seed in (0, 1)] for arm in ("two-task", "standard")
    )
    mean = 100 * sum(first - second for first, second in zip(two, one, strict=True)) / 2
    against = next(note for note in found.notes if note.startswith("two-task, test accuracy in points, paired by seed"))
    assert abs(float(against.split(": ")[1].split(" ")[0].replace("−", "-")) - mean) < 0.1 + abs(mean) / 100
    assert all(f"to {arm}" in against for arm in ("standard", MATCHED, "distilled"))


def test_learning_rates_are_chosen_by_dev_at_other_seeds(whole: Done) -> None:
    for arm in whole.recipe.arms:
        tried = {rate: whole.outcome(f"tuning/rate{rate:g}-{name(arm, 100)}").dev for rate in (1e-4, 1e-2)}
        best = max(tried, key=tried.__getitem__)
        assert any(note.startswith(f"learning rate of {arm}: {best:g} (dev accuracy") for note in whole.report.notes)


def test_the_teacher_was_asked_and_paid_once(whole: Done) -> None:
    spent = json.loads((whole.out / "teacher.json").read_text())
    tokens = spent["prompt_tokens"] + spent["completion_tokens"]
    assert spent["requests"] == 3 * 24
    assert whole.ledger.total("prepare/teacher").teacher_tokens == whole.ledger.total().teacher_tokens == tokens > 0
    assert {row.name: row.cost.teacher_tokens for row in whole.report.rows} == {
        "standard": 0,
        MATCHED: 0,
        "distilled": tokens,
        "two-task": tokens,
    }


def test_rows_cost_what_training_took_and_the_ledger_has_all(whole: Done) -> None:
    every = Cost()
    for path in sorted((whole.out / "runs").rglob("result.json")):
        every = every + own(json.loads(path.read_text())["ledger"])
    assert whole.ledger.total().flops == every.flops, "what is measured is not counted, by formula"
    rows = sum(2 * row.cost.flops for row in whole.report.rows)
    assert rows < every.flops, "tuning is in no row"
    assert whole.ledger.total().labels == every.labels


@pytest.mark.parametrize("preset", ["t5-tiny", "neox-tiny"])
def test_the_matched_twin_spends_as_much_within_a_step(preset: str, whole: Done, tmp_path: Path) -> None:
    found = whole.report
    if preset == "neox-tiny":
        model = {"names": [preset], "changes": NEOX}
        found = done(tmp_path, model=model, arms=["standard", MATCHED, "two-task"]).report
    standard, matched, two_task = (found.row(arm).cost.flops for arm in ("standard", MATCHED, "two-task"))
    assert abs(matched - two_task) <= standard / 4
    assert two_task > 1.5 * standard


def test_the_student_that_is_kept_is_the_best_on_dev(whole: Done) -> None:
    student = Student.load(whole.out / "checkpoint")
    assert student.taught.way == "two-task"
    dev, test = held_out_chains(whole.recipe)
    outcome = whole.outcome(name("two-task", 0))
    assert accuracy(student, dev) == outcome.dev == max(point["dev"] for point in outcome.points)
    assert accuracy(student, test) == outcome.scores["accuracy"]
    assert accuracy(student, test, free=True) == outcome.scores["accuracy, written"]
    answers = student.answers(test[:4], reasons=True)
    assert [
        [one.text, answer.reason, answer.label] for one, answer in zip(test, answers, strict=False)
    ] == outcome.reasons


def test_what_is_finished_is_not_redone(whole: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it is done already")

    monkeypatch.setattr(recipe_arm, "_go", never)
    monkeypatch.setattr(recipe_teacher, "_ask", never)
    ledger = Ledger()
    again = run(whole.recipe, ledger, whole.out)
    assert again == whole.report
    assert ledger.total().teacher_tokens == whole.ledger.total().teacher_tokens
    assert ledger.total().flops == whole.ledger.total().flops
    torn = whole.out / "runs" / name("two-task", 1) / "result.json"
    before = torn.read_text()
    try:
        for text, said in ((before[:-9], "torn"), ('{"other": 1}', "torn .*other")):
            torn.write_text(text)
            with pytest.raises(ValueError, match=rf"result\.json: {said}.*delete it, and this run is done again"):
                run(whole.recipe, Ledger(), whole.out)
    finally:
        torn.write_text(before)


# what dev decides


def measured(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> dict[int, dict[str, Tensor]]:
    """Give each run these scores on dev, one after the other; returns the weights at each step of the latest run."""
    weights: dict[int, dict[str, Tensor]] = {}
    original = Watch.__call__

    def score(_: Student, examples: list[Example], free: bool = False) -> float:
        return scores[seen[0]] if len(examples) == DEV else 0.25

    def watched(watch: Watch, training: Run) -> None:
        seen[0] = len(watch.points)
        original(watch, training)
        weights[training.step] = {key: tensor.clone() for key, tensor in training.model.state_dict().items()}

    seen = [0]
    monkeypatch.setattr(recipe_watch, "accuracy", score)
    monkeypatch.setattr(Watch, "__call__", watched)
    return weights


def test_the_best_weights_are_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = measured(monkeypatch, [0.1, 0.5, 0.5, 0.2])
    found = done(tmp_path, steps=8)
    assert [point["dev"] for point in found.outcome(name("two-task", 0)).points] == [0.1, 0.5, 0.5, 0.2]
    kept = Student.load(found.out / "checkpoint").model.state_dict()
    assert sorted(weights) == [2, 4, 6, 8]
    for step, some in weights.items():
        same = all(torch.equal(kept[key], tensor) for key, tensor in some.items())
        assert same is (step == 4), f"step {step}"


def test_a_run_ends_when_there_is_nothing_more_to_hope_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, [0.1, 0.3, 0.3, 0.2, 0.9])
    found = done(tmp_path, steps=40, patience=2)
    outcome = found.outcome(name("standard", 0))
    assert [point["step"] for point in outcome.points] == [2, 4, 6, 8]
    assert outcome.dev == 0.3
    assert outcome.epochs == pytest.approx(8 * 4 / 24)
    ended = "2 of 2 ended early, when dev had nothing better to show."
    assert outcome.early
    assert f"Runs went through their labels {8 * 4 / 24:.2f} times in the mean; {ended}" in found.report.notes


# a run that was stopped


class Killed(Exception):  # noqa: N818
    """In the middle of a run."""


@pytest.fixture
def told_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_arm, "Progress", partial(Progress, seconds=0.0))


def grounded(out: Path, **changes: Any) -> tuple[Ground, dict[str, Arm]]:
    ledger = Ledger()
    told = recipe(**changes)
    ground = prepare(told, told.arms, 1, ledger, out)
    return ground, {arm.name: arm for arm in finals(ground, plan(ground, ledger, out))}


def told(outcome: Outcome) -> dict[str, Any]:
    """What a run came to, less what the clock and the memory say."""
    found = asdict(outcome)
    for cost in (*(point["cost"] for point in found["points"]), *found["ledger"].values()):
        del cost["seconds"], cost["peak_bytes"]
    found["ledger"] = {phase: cost for phase, cost in found["ledger"].items() if any(cost.values())}
    return found


def quiet(*_: Any) -> None:
    """Nobody watches."""


@pytest.mark.usefixtures("told_each_step")
@pytest.mark.parametrize(
    ("moments", "changes"),
    [
        ([1, 3, 6], {}),
        ([4], {"lessons": {"tokens": [32, 24], "mode": "alternating"}}),
        ([5], {"lessons": {"tokens": [32, 24], "parts": 2}, "model": {"names": ["neox-tiny"], "changes": NEOX}}),
    ],
    ids=["mixed", "alternating", "parts"],
)
def test_stopped_anywhere_and_resumed_it_is_the_same(
    moments: list[int], changes: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "whole"
    ground, arms = grounded(out, steps=6, batch=6, **changes)
    arm = arms["two-task"]
    assert arm.kept
    expected = follow(ground, arm, out, quiet)
    weights = Student.load(out / "runs" / arm.folder / "student").model.state_dict()
    assert [point["step"] for point in expected.points] == [2, 4, 6]
    for moment in moments:
        again = tmp_path / f"stopped-{moment}"
        shown: list[int] = []

        def show(step: int, *_: Any, moment: int = moment, shown: list[int] = shown) -> None:
            shown.append(step)
            if step == moment and shown.count(step) == 1:
                raise Killed

        with pytest.raises(Killed):
            follow(ground, arm, again, show)
        assert not (again / "runs" / arm.folder / "result.json").exists()
        found = follow(ground, arm, again, show)
        assert shown == [*range(1, moment + 1), *range((moment - 1) // 2 * 2 + 1, 7)], "from the latest checkpoint"
        assert told(found) == told(expected)
        kept = Student.load(again / "runs" / arm.folder / "student").model.state_dict()
        assert all(torch.equal(kept[key], tensor) for key, tensor in weights.items())
        assert not (again / "runs" / arm.folder / "checkpoint").exists()


def test_stopped_between_its_student_and_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The student is there already when it is saved again."""
    ground, arms = grounded(tmp_path)
    expected = follow(ground, arms["two-task"], tmp_path / "other", quiet)
    write = files.replace

    def killed(path: Path, text: str) -> None:
        if path.name == "result.json":
            raise Killed
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", killed)
        with pytest.raises(Killed):
            follow(ground, arms["two-task"], tmp_path, quiet)
    assert (tmp_path / "runs" / arms["two-task"].folder / "student").is_dir()
    assert told(follow(ground, arms["two-task"], tmp_path, quiet)) == told(expected)


def test_the_best_of_before_it_was_stopped_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, [0.9, 0.1, 0.1, 0.1])
    monkeypatch.setattr(recipe_arm, "Progress", partial(Progress, seconds=0.0))
    ground, arms = grounded(tmp_path, steps=8, patience=3)

    def show(step: int, *_: Any) -> None:
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        follow(ground, arms["two-task"], tmp_path, show)
    outcome = follow(ground, arms["two-task"], tmp_path, quiet)
    assert [point["dev"] for point in outcome.points] == [0.9, 0.1, 0.1, 0.1]
    whole = follow(ground, arms["two-task"], tmp_path / "whole", quiet)
    assert told(outcome) == told(whole)
    one, two = (
        Student.load(out / "runs" / arms["two-task"].folder / "student").model.state_dict()
        for out in (tmp_path, tmp_path / "whole")
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


# runs that diverge


def poisoned(monkeypatch: pytest.MonkeyPatch, which: Callable[[Arm], bool]) -> None:
    """Some students begin with weights that are no numbers."""
    original = recipe_arm.student

    def student(ground: Ground, arm: Arm, *others: Any) -> Student:
        made = original(ground, arm, *others)
        if which(arm):
            with torch.no_grad():
                next(made.model.parameters()).fill_(float("nan"))
        return made

    monkeypatch.setattr(recipe_arm, "student", student)


def test_a_diverged_arm_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, lambda arm: arm.name == "distilled" and arm.seed == 1)
    found = done(tmp_path, arms=["standard", "distilled", "two-task"], seeds=[0, 1])
    assert [row.name for row in found.report.rows] == ["standard", "two-task"]
    assert found.report.notes[-1].startswith("distilled is left out, a run diverged (step 0: the loss is nan")
    assert (found.out / "checkpoint").is_dir()


def test_a_rate_at_which_it_diverges_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, lambda arm: arm.learning_rate == 1e-2)
    found = done(tmp_path, tuning={"seeds": [100], "learning_rates": [1e-3, 1e-2]})
    notes = [note for note in found.report.notes if note.startswith("learning rate of")]
    assert len(notes) == 2
    assert all(": 0.001 (dev accuracy of each tried: 0.001: " in note for note in notes)
    assert not any("0.01:" in note for note in notes)


def test_a_rate_that_overflows_is_not_taken_and_the_others_go_on(tmp_path: Path) -> None:
    rates = [1e-3, 1e30, 1e-2]
    found = done(tmp_path, evaluate_every=1, tuning={"seeds": [100], "learning_rates": rates})
    notes = [note for note in found.report.notes if note.startswith("learning rate of")]
    assert len(notes) == 2
    assert all("1e+30" not in note and "0.001: " in note and "0.01: " in note for note in notes)
    for arm in found.recipe.arms:
        gone = found.outcome(f"tuning/rate1e+30-{name(arm, 100)}")
        assert gone.diverged
        assert [bool(found.outcome(f"tuning/rate{rate:g}-{name(arm, 100)}").diverged) for rate in rates] == [
            False,
            True,
            False,
        ]


def test_a_student_whose_likelihoods_are_not_finite_has_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Watch.__call__

    def watched(watch: Watch, training: Run) -> None:
        if training.step == 4 and training.optimizer.param_groups[0]["lr"] > 0.5:
            with torch.no_grad():
                for parameter in training.model.parameters():
                    parameter.fill_(float("inf"))
        original(watch, training)

    monkeypatch.setattr(Watch, "__call__", watched)
    found = done(tmp_path, steps=6, tuning={"seeds": [100], "learning_rates": [1.0, 1e-3]})
    for arm in found.recipe.arms:
        gone = found.outcome(f"tuning/rate1-{name(arm, 100)}")
        assert gone.diverged is not None
        assert gone.diverged.endswith("its weights or activations overflowed")
        assert [point["step"] for point in gone.points] == [2], "what was seen before stays"
        assert found.outcome(f"tuning/rate0.001-{name(arm, 100)}").diverged is None
    assert len(found.report.rows) == 2


def test_without_the_method_there_is_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, lambda arm: arm.name == "two-task")
    with pytest.raises(ValueError, match=r"too many runs diverged: two-task is left out.*Lower tuning\.learning_rates"):
        done(tmp_path)


# real data's way


def table(folder: Path, count: int, first: int = 0) -> str:
    folder.mkdir(exist_ok=True)
    path = folder / f"questions-{first}.jsonl"
    rows = [
        {
            "question": f"Where is thing {place}?",
            "choices": [f"place {place}", "nowhere", "here"],
            "answer": "nowhere" if place % 2 else "here",
            "llm_rationale": f"Thing {place} is odd. So the answer is here." if place % 5 else "",
            "llm_label": "here",
            "human_rationale": "I know it",
        }
        for place in range(first, first + count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(f"thing {place} is {place % 7} of {place % 11}, or so" for place in range(200)))
    return str(path)


@pytest.mark.parametrize(("preset", "shape"), [("t5-tiny", T5), ("neox-tiny", NEOX)])
def test_sets_from_a_base_by_all_arms(preset: str, shape: dict[str, int], text: str, tmp_path: Path) -> None:
    found = done(
        tmp_path / "out",
        chains=None,
        sets=[{"form": "cqa", "train": table(tmp_path, 80), "test": table(tmp_path, 30, 60)}],
        arms=list(ARMS) if preset == "t5-tiny" else ["standard", "two-task"],
        model={"names": [preset], "changes": shape, "tokenizer": "bpe:300"},
        base={"text": text, "steps": 3, "batch": 2, "length": 16, "learning_rate": 1e-3},
        fractions=[1.0] if preset == "t5-tiny" else [0.5, 1.0],
        steps=2,
        lessons={"tokens": [48, 24]},
    )
    cells = len(found.recipe.fractions)
    assert [row.title for row in found.report.rows] == [*found.recipe.arms] * cells
    assert len(found.report.groups()) == cells
    base = own(json.loads((found.out / f"base-{preset}" / "ledger.json").read_text()))
    assert base.flops > 0
    in_runs = [json.loads(path.read_text())["ledger"] for path in (found.out / "runs").rglob("result.json")]
    assert found.ledger.total().flops == pytest.approx(base.flops + sum(own(one).flops for one in in_runs))
    assert sum(row.cost.flops for row in found.report.rows) == pytest.approx(sum(own(one).flops for one in in_runs))
    student = Student.load(found.out / "checkpoint")
    assert student.taught.options == (), "each example has its own"
    (answer,) = student.answers([Example("Where?", options=("here", "there"))])
    assert answer.label in ("here", "there")
    assert student.coder.end < len(student.coder.tokenizer)
    table(tmp_path, 81)
    with pytest.raises(ValueError, match=r"begun on .*questions-0\.jsonl .*: give another --out"):
        run(found.recipe, Ledger(), found.out)


def test_a_base_that_was_stopped_before_it_had_its_name(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {"text": text, "steps": 2, "batch": 2, "length": 16, "learning_rate": 1e-3}
    write = files.replace

    def killed(path: Path, held: str) -> None:
        write(path, held)
        if path.name == "ledger.json":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", killed)
        with pytest.raises(Killed):
            grounded(tmp_path / "out", base=base)
    partial_folder = tmp_path / "out" / "base-t5-tiny.partial"
    assert (partial_folder / "ledger.json").exists()
    ground, _ = grounded(tmp_path / "out", base=base)
    assert ground.starts["t5-tiny"].folder == tmp_path / "out" / "base-t5-tiny"
    assert not partial_folder.exists()


def test_adapters_of_a_trained_model(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    made = seq2seq.build(seq2seq.configuration("t5-tiny", 257, **T5), 0)
    folder = pretrained.save(made, tokenizers.byte_tokenizer(), tmp_path / "trained")
    found = done(tmp_path / "out", model={"names": [str(folder)], "lora": {"rank": 2}})
    student = Student.load(found.out / "checkpoint")
    dev, test = held_out_chains(found.recipe)
    (path,) = (found.out / "runs").rglob("*two-task*/result.json")
    outcome = Outcome(**json.loads(path.read_text()))
    assert (accuracy(student, dev), accuracy(student, test)) == (outcome.dev, outcome.scores["accuracy"])
    assert not any("lora" in key for key, _ in student.model.named_parameters())
    assert any(
        not torch.equal(one, two) for one, two in zip(student.model.parameters(), made.parameters(), strict=True)
    )


# what does not fit a trained model


@pytest.fixture
def trained(tmp_path: Path) -> str:
    """A decoder of 32 positions."""
    model = presets.build(presets.configuration("neox-tiny", 257, 32, **NEOX), 0)
    return str(pretrained.save(model, tokenizers.byte_tokenizer(), tmp_path / "trained"))


def test_lessons_longer_than_a_trained_models_positions(
    trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"^32 tokens to read and 24 to write: the gpt_neox has 32 positions for both"):
        grounded(tmp_path / "out", model={"names": [trained]})
    grounded(tmp_path / "fits", model={"names": [trained]}, lessons={"tokens": [24, 8]})
    words = [f"model={{names: [{trained}]}}", "lessons={tokens: [32, 24]}", "--out", str(tmp_path / "again")]
    monkeypatch.setattr(sys, "argv", ["shoestring", "run", "rationale", "smoke", *words])
    with pytest.raises(SystemExit) as stop:
        door.main()
    said = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code not in (0, None)
    assert "Traceback" not in "".join(said)
    assert "ask for fewer" in said[-1]


@pytest.mark.parametrize("what", ["changes", "base"])
def test_what_is_of_presets_alone_is_refused_for_trained_models(
    what: str, trained: str, text: str, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"model": {"names": [trained]}, "lessons": {"tokens": [24, 8]}}
    if what == "base":
        changes["base"] = {"text": text, "steps": 2, "batch": 2, "length": 16, "learning_rate": 1e-3}
    else:
        changes["model"]["changes"] = NEOX
    with pytest.raises(
        ValueError, match=r"^model\.changes or base with '.*trained' alone: expected a preset for them$"
    ):
        grounded(tmp_path / "out", **changes)
    assert not (tmp_path / "out" / "teacher.json").exists(), "before anything is paid"


# across processes


def shoestring(*words: str, processes: int = 1, room_recipe: str = "smoke") -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    command = [*launcher, "shoestring", "run", "rationale", room_recipe, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    words = [
        "fractions=[1.0]",
        "tuning={seeds: [100], learning_rates: [1.0e-3]}",
        "lessons={tokens: [64, 32], parts: 2}",
    ]
    for processes in (1, 2):
        compute = f"compute={{precision: fp32, processes: {processes}, workers: 1, save_seconds: 0.0}}"
        out = tmp_path / str(processes)
        finished = shoestring(*words, compute, "--out", str(out), processes=processes)
        assert finished.returncode == 0, finished.stderr[-3000:]
        assert finished.stdout.count("The report:") == 1
    for path in sorted((tmp_path / "1" / "runs").rglob("log.jsonl")):
        one, two = (
            [json.loads(line) for line in (tmp_path / out / path.relative_to(tmp_path / "1")).read_text().splitlines()]
            for out in ("1", "2")
        )
        assert [line["step"] for line in one] == [line["step"] for line in two]
        for first, second in zip(one, two, strict=True):
            assert first.get("loss", 0) == pytest.approx(second.get("loss", 0), abs=1e-3)
    weights = [Student.load(tmp_path / out / "checkpoint").model.state_dict() for out in ("1", "2")]
    for key, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][key], atol=2e-3)


@pytest.mark.slow
def test_two_processes_begin_from_a_base(tmp_path: Path, text: str) -> None:
    base = f"base={{text: {text}, steps: 3, batch: 2, length: 32, learning_rate: 1.0e-3}}"
    words = ["fractions=[1.0]", "tuning={seeds: [100], learning_rates: [1.0e-3]}", base]
    words.append("compute={precision: fp32, processes: 2, workers: 1, save_seconds: 0.0}")
    for _ in range(2):  # the second time nothing is redone
        finished = shoestring(*words, "--out", str(tmp_path / "out"), processes=2)
        assert finished.returncode == 0, finished.stderr[-3000:]
    assert Student.load(tmp_path / "out" / "checkpoint").taught.way == "two-task"


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "rationale").is_dir(), reason=f"{DATA / 'rationale'} is not there: set SHOESTRING_DATA")
def test_the_papers_data_goes_from_files_to_a_report(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOESTRING_DATA", str(DATA))
    base = {"text": text, "steps": 2, "batch": 2, "length": 16, "learning_rate": 1e-3}
    read = config.load(rooms.find("rationale").recipe("cpu"), Recipe).model_dump(mode="json")
    changes = {
        "base": base,
        "arms": list(ARMS),
        "fractions": [0.1],
        "held_out": [6, 8],
        "steps": 2,
        "evaluate_every": 1,
    }
    changes |= {"model": {"names": ["t5-tiny"], "changes": T5, "tokenizer": "bpe:400"}, "batch": 4, "seeds": [0]}
    changes |= {"tuning": {"learning_rates": [1e-3]}, "compute": LEAST["compute"]}
    changes |= {"sets": [{**one, "steps": 2} for one in read["sets"] if one["form"] in ("cqa", "esnli")]}
    found = run(config.check({**read, **changes}, Recipe, "cpu"), Ledger(), tmp_path)
    assert found.groups() == ["CQA", "e-SNLI"]
    assert len(found.rows) == 2 * len(ARMS)
