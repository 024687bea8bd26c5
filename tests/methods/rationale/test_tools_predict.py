"""Asking a student from the command line: its answers beside the rows, streamed; and what is refused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from shoestring.data.tokenizers import byte_tokenizer
from shoestring.methods.rationale.datasets import Form
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import Taught, Way
from shoestring.methods.rationale.remembered import remember
from shoestring.methods.rationale.student import Student
from shoestring.models import seq2seq

OPTIONS = ("yes", "no")
ROWS = [{"id": place, "question": f"Is it {place}? ünï 犬", "gold": OPTIONS[place % 2]} for place in range(5)]


def saved(folder: Path, way: Way = "two-task", form: Form | None = None) -> Path:
    shape = {"num_layers": 1, "d_model": 32, "num_heads": 2, "d_kv": 8, "d_ff": 48}
    model = seq2seq.build(seq2seq.configuration("t5-tiny", 257, **shape), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0 if parameter.dim() == 2 else 1.0)
    Student.of(model, byte_tokenizer(), Taught(way, options=OPTIONS, source_tokens=40, target_tokens=8)).save(folder)
    if form is not None:
        remember(form, folder)
    return folder


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    return saved(tmp_path_factory.mktemp("students") / "two", form=Form(("question",), options=OPTIONS))


def test_each_row_comes_back_with_an_answer(call, student, rows_file, tmp_path, read_rows):
    rows_file(ROWS)
    done = call("predict", student, tmp_path / "data.jsonl", "--out", tmp_path / "y.jsonl", "--reasons", "--batch", 2)
    assert done.code == 0, done.err
    assert done.out == ""
    found = read_rows(tmp_path / "y.jsonl")
    assert [{name: row[name] for name in ROWS[0]} for row in found] == ROWS
    examples = [Example(row["question"], options=OPTIONS) for row in ROWS]
    for row, answer in zip(found, Student.load(student).answers(examples, reasons=True), strict=True):
        assert (row["student_label"], row["reason"]) == (answer.label, answer.reason)
        assert row["probability"] == pytest.approx(answer.probability, abs=1e-5)
    assert done.err.startswith("5 rows in ")
    assert {path.name for path in tmp_path.iterdir()} == {"data.jsonl", "y.jsonl"}


def test_to_standard_output_with_gold_labels(call, student, rows_file, tmp_path):
    rows_file(ROWS)
    done = call("predict", student, tmp_path / "data.jsonl", "--label", "gold", "--free")
    assert done.code == 0
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [row["probability"] for row in found] == [None] * 5
    assert "reason" not in found[0]
    assert "of 5 as the gold label (" in done.err


@pytest.mark.parametrize("name", ["student_label", "probability", "reason"])
def test_what_a_row_has_already_is_not_written_over(call, student, rows_file, tmp_path, name):
    rows_file([ROWS[0], {**ROWS[1], name: "mine"}])
    words = ("predict", student, tmp_path / "data.jsonl", "--out", tmp_path / "y.jsonl")
    done = call(*words, "--reasons")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert f"data.jsonl:2: column {name!r} would be written over: rename it, or leave it out" in done.err
    assert not (tmp_path / "y.jsonl").exists()
    assert call(*words).code == (0 if name == "reason" else 2)


def test_a_file_that_no_student_wrote_is_not_written_over(call, student, rows_file, tmp_path, read_rows):
    rows_file(ROWS)
    (tmp_path / "y.jsonl").write_text('{"mine": 1}\n')
    words = ("predict", student, tmp_path / "data.jsonl", "--out", tmp_path / "y.jsonl")
    assert "it holds what no prediction wrote" in call(*words).err
    assert read_rows(tmp_path / "y.jsonl") == [{"mine": 1}]
    (tmp_path / "y.jsonl").unlink()
    assert call(*words).code == call(*words).code == 0


def test_long_texts_are_cut_and_counted(call, student, rows_file, tmp_path):
    rows_file([{"question": "long " * 20000}, {"question": "short"}])
    done = call("predict", student, tmp_path / "data.jsonl")
    assert done.code == 0
    assert "1 longer than 40 tokens, their middle left out" in done.err


def test_columns_and_labels_of_other_rows(call, student, rows_file, tmp_path):
    rows_file([{"text": "a", "may": ["perhaps", "never"]}])
    done = call("predict", student, tmp_path / "data.jsonl", "--column", "text", "--options", "may")
    assert json.loads(done.out)["student_label"] in ("perhaps", "never")


def test_a_run_of_the_experiment_holds_a_student(call, tmp_path, rows_file):
    saved(tmp_path / "run" / "checkpoint")
    rows_file([{"text": "a"}])
    done = call("predict", tmp_path / "run", tmp_path / "data.jsonl")
    assert json.loads(done.out)["student_label"] in OPTIONS


def test_an_informed_student_reads_the_reason(call, tmp_path, rows_file):
    saved(tmp_path / "informed", "informed", Form(("question",), options=OPTIONS))
    rows_file([{**ROWS[0], "rationale": "It is. So the answer is yes."}])
    done = call("predict", tmp_path / "informed", tmp_path / "data.jsonl")
    want = Student.load(tmp_path / "informed").answers([Example(ROWS[0]["question"], None, OPTIONS, "It is.")])
    assert json.loads(done.out)["probability"] == pytest.approx(want[0].probability, abs=1e-5)
    rows_file(ROWS)
    refused = call("predict", tmp_path / "informed", tmp_path / "data.jsonl")
    assert refused.code == 2
    assert "the rows have no column rationale" in refused.err


@pytest.mark.parametrize("label", ["", "gold"])
def test_what_an_informed_student_reads_does_not_hang_on_the_gold_label(call, tmp_path, rows_file, label):
    """Of labels that are no options; and what it reads is what is counted as cut."""
    saved(tmp_path / "informed", "informed", Form(("question",), "gold", expression=True))
    row = {"question": "84 in halves", "gold": "(84 / 2)"}
    rows_file([{**row, "rationale": "Halve. The answer is (84 / 2)."}, {**row, "rationale": "Halve. " * 9}])
    done = call("predict", tmp_path / "informed", tmp_path / "data.jsonl", *(("--label", label) if label else ()))
    assert "1 longer than 40 tokens, their middle left out" in done.err
    want = Student.load(tmp_path / "informed").answers([Example(row["question"], None, (), "Halve.")])
    assert json.loads(done.out.splitlines()[0])["student_label"] == want[0].label


def test_lines_from_standard_input(call, student, monkeypatch):
    text = "\ufeff" + "".join(json.dumps(row) + "\n\n" for row in ROWS)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    done = call("predict", student, "-", "--batch", 2)
    assert done.code == 0, done.err
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == [0, 1, 2, 3, 4]


def test_an_answer_comes_before_the_next_line(student):
    """As who talks to it by a pipe needs it."""
    command = [sys.executable, "-m", "shoestring", "rationale", "predict", str(student), "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        for row in ROWS[:2]:
            running.stdin.write(json.dumps(row) + "\n")
            running.stdin.flush()
            assert json.loads(running.stdout.readline())["id"] == row["id"]
        running.stdin.close()
        assert running.wait(timeout=60) == 0


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("{not json", "not JSON"),
        (json.dumps({"id": 1}), "no column 'question'"),
        (json.dumps({**ROWS[1], "question": " "}), "column 'question' is blank"),
    ],
    ids=["not JSON", "a column less", "blank"],
)
def test_a_bad_line_is_named_and_those_before_it_are_answered(call, student, monkeypatch, bad, says):
    text = f"{json.dumps(ROWS[0])}\n{bad}\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    done = call("predict", student, "-")
    assert done.code == 2
    assert json.loads(done.out)["id"] == 0
    assert done.err.startswith(f"shoestring: standard input:2: {says}")


def test_nothing_from_standard_input(call, student, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    done = call("predict", student, "-")
    assert (done.code, done.out) == (0, "")


@pytest.mark.parametrize(
    ("rows", "words", "message"),
    [
        ([ROWS[0], {"id": 1}], (), "data.jsonl:2: no column 'question'; it has 'id'"),
        (
            [ROWS[0], {**ROWS[0], "question": 3.5, "gold": "perhaps"}],
            ("--label", "gold"),
            "data.jsonl:2: column 'gold'",
        ),
        ([ROWS[0], {**ROWS[0], "question": ["a"]}], (), "data.jsonl:2: column 'question' holds ['a'], expected text"),
        (
            ROWS,
            ("--column", "qestion"),
            "no column 'qestion'; it has 'id', 'question', 'gold'; did you mean 'question'?",
        ),
        (ROWS, ("--label", "golden"), "no column 'golden'"),
        ([], (), "nothing in it"),
        (ROWS, ("--out", "{tmp}/data.jsonl"), "it is what is read"),
        (ROWS, ("--out", "{tmp}/y.csv"), "ending in .jsonl"),
        (ROWS, ("--batch", "0"), "0 is not in the range"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(call, student, rows_file, tmp_path, rows, words, message):
    rows_file(rows)
    out = ("--out", tmp_path / "new" / "y.jsonl") if "--out" not in words else ()
    words = (word.replace("{tmp}", str(tmp_path)) for word in words)
    done = call("predict", student, tmp_path / "data.jsonl", *out, *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


@pytest.mark.parametrize("wrong", ["none", "file", "empty", "torn", "torn form", "no reasons", "no graph"])
def test_students_that_are_none(call, student, rows_file, tmp_path, wrong):
    rows_file(ROWS)
    folder, words, message = tmp_path / "student", (), "no such folder"
    if wrong == "file":
        folder.write_text("a")
        message = "a file, expected that of a student"
    elif wrong == "empty":
        folder.mkdir()
        message = "no rationale.json is there"
    elif wrong == "torn":
        saved(folder)
        (folder / "model.safetensors").write_bytes(b"123")
        message = "torn"
    elif wrong == "torn form":
        saved(folder)
        (folder / "form.json").write_text("{}")
        message = "form.json: not how a student reads rows"
    elif wrong == "no reasons":
        saved(folder, "standard")
        words, message = ("--reasons",), "was taught the way 'standard' and gives none"
    elif wrong == "no graph":
        folder, message = tmp_path / "a.onnx", "no such file"
    done = call("predict", folder, tmp_path / "data.jsonl", "--out", tmp_path / "y.jsonl", *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err
    assert not (tmp_path / "y.jsonl").exists()
