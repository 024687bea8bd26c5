"""The curve from the command line: a report with its twin, by labels and by size; and what is refused."""

from __future__ import annotations

import json

import pytest

from shoestring import runtime
from shoestring.evaluate import report
from shoestring.methods.rationale.chains import DIGITS, Shape, chains, taught

PLAIN = (
    *("--model", "t5-tiny", "--batch", 4, "--steps", 2, "--every", 1, "--tokens", "48,24", "--held-out", "6,8"),
    *("--precision", "fp32", "--workers", 1, "--seeds", 1, "--fractions", "0.5,1", "--arms", "standard,two-task"),
    *(word for digit in DIGITS for word in ("--option", digit)),
)
ROWS = [
    {"text": example.text, "label": example.label, "rationale": taught(example.text)[0], "teacher_label": example.label}
    for example in chains(Shape(2, 1), 80, 1)
]


@pytest.fixture
def curve(call, rows_file, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 1)
    rows_file(ROWS)
    return lambda *words: call("curve", tmp_path / "data.jsonl", "--out", tmp_path / "out", *PLAIN, *words)


def test_by_labels_and_by_size(curve, tmp_path):
    done = curve("--model", "neox-tiny")
    assert done.code == 0, done.err
    assert done.err.startswith("8 runs of at most 2 steps")
    found = report.read(tmp_path / "out")
    assert {scatter.x for scatter in found.scatters} == {"labels", "million parameters"}
    assert len(found.rows) == 8
    assert {row.label for row in found.rows} == {"standard", "two-task"}
    assert {row.group.split(", ")[-1] for row in found.rows} == {"t5-tiny", "neox-tiny"}
    assert all(row.cost.flops > 0 for row in found.rows)
    assert "The report: " in done.out
    assert found.facts["data"].startswith(f"{tmp_path}/data.jsonl ")
    assert found.scatters[0].title == "data.jsonl, t5-tiny"
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (told["room"], told["recipe"]) == ("rationale", "curve")
    assert (tmp_path / "out" / "report.html").exists()
    assert (tmp_path / "out" / "ledger.json").exists()
    again = curve("--model", "neox-tiny")
    assert again.code == 0
    assert again.out == done.out
    other = curve("--steps", 3, "--model", "neox-tiny")
    assert other.code == 2
    assert "give another --out" in other.err


def test_of_several_lambdas_each_arm_that_has_one_gets_its_own(curve, tmp_path):
    done = curve("--weight", 0.1, "--weight", 1, "--fractions", "1")
    assert done.code == 0, done.err
    tried = {path.name.split("-t5-tiny")[0] for path in (tmp_path / "out" / "runs" / "tuning").iterdir()}
    assert tried == {"rate0.001-weight0.1", "rate0.001-weight1"}
    assert any(note.startswith("λ of two-task: ") for note in report.read(tmp_path / "out").notes)


def test_its_student_reads_rows_as_it_was_trained(call, rows_file, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 1)
    rows_file(
        [
            {"about": row["text"], **{name: row[name] for name in ("label", "rationale")}, "may": [*DIGITS]}
            for row in ROWS
        ]
    )
    words = (*PLAIN[: -2 * len(DIGITS)], "--fractions", "1", "--column", "about", "--options", "may")
    done = call("curve", tmp_path / "data.jsonl", "--out", tmp_path / "out", *words)
    assert done.code == 0, done.err
    kept = json.loads((tmp_path / "out" / "checkpoint" / "form.json").read_text())
    assert (kept["columns"], kept["options"]) == (["about"], "may")
    told = call("predict", tmp_path / "out", tmp_path / "data.jsonl")
    assert told.code == 0, told.err
    assert {json.loads(line)["student_label"] for line in told.out.splitlines()} <= {*DIGITS}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--arms", "standard,two-tasks"), "--arms 'two-tasks': no such arm; did you mean 'two-task'?"),
        (("--arms", "two-task,distilled"), "expected the arms 'standard', the twin, and 'two-task'"),
        (("--arms", "standard,two-task,human"), "--arms 'human': no column of people's reasons"),
        (("--fractions", "half,1"), "--fractions 'half,1': expected numbers above 0, up to 1, each once"),
        (("--fractions", "2"), "--fractions '2': expected numbers above 0"),
        (("--fractions", "0.5,0.5"), "--fractions '0.5,0.5': expected numbers above 0, up to 1, each once"),
        (("--model", "t5-tinny"), "did you mean 't5-tiny'?"),
        (("--column", "txt"), "no column 'txt'"),
        (("--out", "{tmp}/data.jsonl"), "a file: expected a folder"),
        (("--test", "{tmp}/none.jsonl"), "none.jsonl: no such file"),
    ],
)
def test_what_is_wrong_leaves_nothing(curve, tmp_path, words, message):
    done = curve(*(word.replace("{tmp}", str(tmp_path)) for word in words))
    assert (done.code, done.out) == (2, "")
    assert message in done.err.splitlines()[-1]
    assert done.err.splitlines()[-1].startswith("shoestring: ")
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_rows_without_reasons_are_missed_before_runs_are_announced(curve, rows_file):
    rows_file([{"text": row["text"], "label": row["label"]} for row in ROWS])
    done = curve()
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "data.jsonl: no column of reasons: name it by --rationale, or let `ask` write them" in done.err
