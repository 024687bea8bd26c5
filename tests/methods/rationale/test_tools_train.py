"""Training from the command line: a student in its folder, gone on with where it was stopped; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from shoestring import runtime
from shoestring.data.tokenizers import byte_tokenizer
from shoestring.methods.rationale import recipe_arm, tools_trained
from shoestring.methods.rationale.chains import DIGITS, Shape, chains, taught
from shoestring.methods.rationale.recipe_plan import outcomes_of
from shoestring.methods.rationale.recipe_watch import Watch
from shoestring.methods.rationale.student import Student
from shoestring.models import presets, pretrained
from shoestring.types import Run

OPTIONS = [word for digit in DIGITS for word in ("--option", digit)]
SMALL = ("--model", "t5-tiny", "--batch", 4, "--steps", 4, "--every", 2, "--tokens", "48,24", "--held-out", "6,8")
PLAIN = (*SMALL, "--precision", "fp32", "--workers", 1, *OPTIONS)


def row(text: str, label: str) -> dict:
    reason, said = taught(text, 0.2)
    return {"text": text, "label": label, "rationale": reason, "teacher_label": said, "agreement": None, "told": False}


ROWS = [row(example.text, str(example.label)) for example in chains(Shape(2, 1), 80, 1)]
OTHERS = [{"text": example.text, "label": example.label} for example in chains(Shape(3, 1), 12, 2)]


@pytest.fixture
def train(call, rows_file, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 1)
    rows_file(ROWS)
    return lambda *words, data="data.jsonl", plain=PLAIN: call(
        "train", tmp_path / data, "--out", tmp_path / "student", *plain, *words
    )


def weights(folder: Path) -> dict:
    return load_file(folder / "model.safetensors")


def alike(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(bool((one[name] == other[name]).all()) for name in one)


def test_of_several_lambdas_dev_chooses(train, tmp_path, monkeypatch):
    def judged(ground, arms, ledger, out):
        """The lambda that is best on test is worst on dev."""
        done = outcomes_of(ground, arms, ledger, out)
        for arm, one in done.items():
            for point in one.points:
                point["dev"] = 0.9 if arm.weight == 0.1 else 0.2
            one.scores["accuracy"] = 0.1 if arm.weight == 0.1 else 0.8
        return done

    monkeypatch.setattr(tools_trained, "outcomes_of", judged)
    done = train("--weight", 1, "--weight", 0.1, "--steps", 4)
    assert done.code == 0, done.err
    assert "λ" in done.out
    assert done.out.count("←") == 1
    told = json.loads((tmp_path / "student" / "training" / "summary.json").read_text())
    assert set(told["outcomes"]) == {"rate0.001-weight0.1", "rate0.001-weight1"}
    assert (told["weight"], told["dev"], told["scores"]["accuracy"]) == (0.1, 0.9, 0.1)


def test_a_student_comes_of_it(train, call, tmp_path):
    done = train("--learning-rate", 1e-3, "--learning-rate", 3e-3)
    assert done.code == 0, done.err
    out = tmp_path / "student"
    assert "0.001" in done.out
    assert "0.003" in done.out
    assert done.out.count("←") == 1
    assert "examples: " in done.out
    assert "with a reason, 6 of dev, 8 of test" in done.out
    assert f"{out}: the student" in done.out
    told = json.loads((out / "training" / "summary.json").read_text())
    assert set(told["outcomes"]) == {"rate0.001", "rate0.003"}
    assert told["cost"]["labels"] > 0
    assert told["scores"].keys() == {"accuracy", "accuracy, written"}
    picture = (out / "training" / "course.svg").read_text()
    assert "training loss, nats" in picture
    assert "learning rate 0.003" in picture
    assert Student.load(out).taught.way == "two-task"
    pretrained.load(out, kind="seq2seq")
    asked = call("predict", out, tmp_path / "data.jsonl", "--label", "label", "--reasons")
    assert asked.code == 0, asked.err
    assert len(asked.out.splitlines()) == len(ROWS)
    assert not [*out.glob("training/runs/*/student")]


def test_one_that_ended_early_says_so(train):
    done = train("--learning-rate", 1e-12, "--every", 1, "--patience", 2)  # which learns nothing
    assert done.code == 0, done.err
    assert "step 3 of 3" in done.err
    assert "learning rate 1e-12: ended at step 3, after 2 measurements no better (--patience)" in done.out


def test_the_same_command_does_nothing_anew(train, tmp_path):
    first = train()
    result = tmp_path / "student" / "training" / "runs" / "rate0.001" / "result.json"
    before = result.stat().st_mtime_ns
    again = train()
    assert again.code == 0
    assert result.stat().st_mtime_ns == before
    assert [line for line in again.out.splitlines() if "←" in line] == [
        line for line in first.out.splitlines() if "←" in line
    ]
    other = train("--seed", 1)
    assert other.code == 2
    assert "it holds a run with seed=0, this one has seed=1" in other.err
    assert (tmp_path / "student" / "rationale.json").exists()
    (tmp_path / "student" / "model.safetensors").unlink()
    gone = train()
    assert gone.code == 2
    assert "student holds no weights" in gone.err


def test_stopped_and_gone_on_with_is_never_stopped(train, call, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_arm, "Spaced", lambda seconds, hook: hook)
    look, steps = Watch.__call__, []

    def stopping(self: Watch, run: Run) -> None:
        steps.append(run.step)
        if len(steps) == 2:
            raise KeyboardInterrupt
        look(self, run)

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "__call__", stopping)
        stopped = train("--steps", 6)
    assert stopped.code == 130
    assert "the same command goes on" in stopped.err
    assert not (tmp_path / "student" / "rationale.json").exists()
    assert call("predict", tmp_path / "student", tmp_path / "data.jsonl").code == 2
    monkeypatch.setattr(Watch, "__call__", lambda self, run: (steps.append(run.step), look(self, run))[1])
    assert train("--steps", 6).code == 0
    assert steps == [2, 4, 4, 6]
    whole = call("train", tmp_path / "data.jsonl", "--out", tmp_path / "whole", *PLAIN, "--steps", 6)
    assert whole.code == 0
    assert alike(weights(tmp_path / "student"), weights(tmp_path / "whole"))


@pytest.mark.parametrize("way", ["standard", "distilled", "single-task", "informed"])
def test_the_other_ways(train, tmp_path, way):
    done = train("--way", way, "--steps", 2)
    assert done.code == 0, done.err
    assert Student.load(tmp_path / "student").taught.way == way


def test_rows_without_reasons_are_enough_for_the_standard_way(train, rows_file, tmp_path):
    rows_file([{"text": one["text"], "label": one["label"]} for one in ROWS])
    done = train("--way", "standard", "--steps", 2)
    assert done.code == 0, done.err
    assert "with a reason" not in done.out
    assert "freely" not in done.out
    refused = train("--way", "two-task", "--steps", 2, "--out", tmp_path / "other")
    assert refused.code == 2
    assert "data.jsonl: no column of reasons: name it by --rationale" in refused.err
    assert not (tmp_path / "other").exists()
    rows_file([{**one, "rationale": None} for one in ROWS])
    refused = train("--way", "two-task", "--steps", 2, "--out", tmp_path / "other")
    assert (refused.code, refused.out) == (2, "")
    assert "two-task: no example has a rationale" in refused.err


def test_labels_that_look_like_options_are_told_to_be_written(train):
    done = train("--steps", 2, plain=PLAIN[: -len(OPTIONS)])
    assert done.code == 0, done.err
    assert "no options were named: the student writes its label, of which there are 10, freely; with --op" in done.out


def test_rows_without_labels_and_files_to_judge_by(train, rows_file, tmp_path):
    rows_file([{name: held for name, held in one.items() if name != "label"} for one in ROWS])
    rows_file(OTHERS, "dev.jsonl")
    rows_file([*OTHERS, *({"text": one["text"], "label": one["label"]} for one in ROWS[:5])], "test.jsonl")
    files = ("--dev", tmp_path / "dev.jsonl", "--test", tmp_path / "dev.jsonl")
    assert "data.jsonl: no column of gold labels: name it by --label" in train(*files, "--steps", 2).err
    refused = train("--unlabelled", *files, "--steps", 2)
    assert refused.code == 2
    assert "dev.jsonl: no rows are left for test, as the texts of all 12" in refused.err, (
        "what dev has is not tested on"
    )
    rows_file([*OTHERS[:6]], "dev.jsonl")
    done = train("--unlabelled", "--dev", tmp_path / "dev.jsonl", "--test", tmp_path / "test.jsonl", "--steps", 2)
    assert done.code == 0, done.err
    assert "80 to train on" in done.out
    assert "6 of dev, 6 of test" in done.out
    assert "warning: on test no better than a guess (" in done.out


def test_adapters_in_a_trained_model_are_merged_in_the_end(train, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_arm, "Spaced", lambda seconds, hook: hook)
    shape = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48}
    base = presets.build(presets.configuration("neox-tiny", 257, 96, **shape), 0)
    pretrained.save(base, byte_tokenizer(), tmp_path / "base")
    done = train("--model", tmp_path / "base", "--lora", 2, "--steps", 4, "--learning-rate", 0.01)
    assert done.code == 0, done.err
    found, before = weights(tmp_path / "student"), weights(tmp_path / "base")
    assert found.keys() == before.keys()
    assert not alike(found, before)


def test_another_model_under_the_name_is_not_gone_on_with(train, tmp_path):
    shape = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48}
    done = []
    for seed in (0, 1):
        base = presets.build(presets.configuration("neox-tiny", 257, 96, **shape), seed)
        pretrained.save(base, byte_tokenizer(), tmp_path / "base")
        done.append(train("--model", tmp_path / "base", "--steps", 2))
    assert [one.code for one in done] == [0, 2]
    assert f"begun on {tmp_path / 'base'} " in done[1].err


def test_a_packed_model_is_unpacked_once(train, tmp_path, monkeypatch):
    shape = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48}
    base, loaded = presets.build(presets.configuration("neox-tiny", 257, 96, **shape), 0), pretrained.load
    packed = []

    def load(name, *rest, **options):
        if str(name).endswith(".gguf"):
            packed.append(name)
            return base, byte_tokenizer()
        return loaded(name, *rest, **options)

    monkeypatch.setattr(pretrained, "load", load)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for _ in range(2):
        done = train("--model", tmp_path / "model.gguf", "--steps", 2)
        assert done.code == 0, done.err
    assert len(packed) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "t5-tinny"), "--model t5-tinny: no preset, and no folder; did you mean 't5-tiny'?"),
        (("--model", "{tmp}/none"), "none: there is no such folder"),
        (("--column", "txt"), "no column 'txt'; it has 'text'"),
        (("--rationale", "reason"), "no column 'reason'"),
        (("--learning-rate", "0"), "--learning-rate 0: expected each once, above zero"),
        (("--learning-rate", "1", "--learning-rate", "1"), "expected each once"),
        (("--weight", "1", "--weight", "1"), "--weight 1, 1: expected each once, above zero"),
        (("--weight", "1", "--weight", "0"), "--weight 1, 0: expected each once, above zero"),
        (("--way", "standard", "--weight", "0.5"), "--weight: the way standard has no loss of reasons apart"),
        (("--lora", "2"), "--lora 2: t5-tiny is a preset, untrained"),
        (("--tokens", "48"), "--tokens '48': expected two numbers"),
        (("--tokens", "4,4"), "train: lessons.tokens.0: expected greater than or equal to 8, got 4"),
        (("--parts", "3"), "expected a batch that 1 processes times 3 parts divide, got 4"),
        (("--way", "two"), "'two' is not one of"),
        (("--unlabelled",), "--unlabelled: give --dev and --test, whose rows have gold labels"),
        (("--dev", "{tmp}/none.jsonl"), "none.jsonl: no such file"),
        (("--tokenizer", "bpe:many"), "expected a vocabulary size after 'bpe:'"),
        (("--out", "{tmp}/data.jsonl"), "data.jsonl: a file: expected a folder"),
        (("--out", "{tmp}/data.jsonl/a"), "data.jsonl is a file"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(train, tmp_path, words, message):
    done = train(*(word.replace("{tmp}", str(tmp_path)) for word in words))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert message in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_a_label_outside_the_options_and_a_folder_of_something_else(train, rows_file, tmp_path):
    rows_file([*ROWS, {**ROWS[0], "label": "eleven"}])
    done = train()
    assert "data.jsonl:81: column 'label' holds 'eleven', expected one of ['0', '1'" in done.err
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "mine.txt").write_text("mine")
    done = train()
    assert "holds files that are no training of this command" in done.err
    assert [path.name for path in (tmp_path / "student").iterdir()] == ["mine.txt"]
