"""Exporting from the command line: graphs that `predict` answers by, quietly, or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from shoestring.data.tokenizers import byte_tokenizer
from shoestring.methods.rationale.datasets import Form
from shoestring.methods.rationale.lessons import Taught
from shoestring.methods.rationale.remembered import remember
from shoestring.methods.rationale.student import Student
from shoestring.models import presets, seq2seq

OPTIONS = ("yes", "no")


def saved(model: PreTrainedModel, folder: Path) -> Path:
    taught = Taught("standard", options=OPTIONS, source_tokens=64, target_tokens=32)
    Student.of(model, byte_tokenizer(), taught).save(folder)
    remember(Form(("question",), options=OPTIONS), folder)
    return folder


@pytest.fixture
def student(tmp_path) -> Path:
    shape = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48}
    return saved(presets.build(presets.configuration("neox-tiny", 257, 128, **shape), 0), tmp_path / "s")


@pytest.fixture
def encoding(tmp_path) -> Path:
    shape = {"num_layers": 1, "d_model": 32, "num_heads": 2, "d_kv": 8, "d_ff": 48}
    return saved(seq2seq.build(seq2seq.configuration("t5-tiny", 257, **shape), 0), tmp_path / "s")


def test_predict_answers_by_the_graphs(call, student, rows_file, tmp_path):
    data = rows_file([{"question": f"Is it {place}?"} for place in range(3)])
    done = call("export", student, "--onnx", tmp_path / "new" / "s.onnx")
    assert done.code == 0, done.err
    assert done.err == "", "the exporter's own words are no news"
    assert done.out.startswith(f"{tmp_path}/new/s.onnx: ")
    assert "log-likelihoods differ from torch's by" in done.out
    mine, graphs = call("predict", student, data), call("predict", tmp_path / "new" / "s.onnx", data)
    assert graphs.code == 0, graphs.err
    pairs = zip(mine.out.splitlines(), graphs.out.splitlines(), strict=True)
    for one, other in ((json.loads(one), json.loads(other)) for one, other in pairs):
        assert one["student_label"] == other["student_label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{tmp}/none", "--onnx", "{tmp}/new/a.onnx"), "none: no such folder"),
        (("{tmp}", "--onnx", "{tmp}/new/a.onnx"), "no rationale.json is there"),
        (("{tmp}/s", "--onnx", "{tmp}/a.bin"), "--onnx {tmp}/a.bin: expected the name of a file ending in .onnx"),
        (("{tmp}/s", "--onnx", "{tmp}/s/config.json/a.onnx"), "config.json is a file"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(call, student, tmp_path, words, message):
    done = call("export", *(word.replace("{tmp}", str(tmp_path)) for word in words))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message.replace("{tmp}", str(tmp_path)) in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize(
    ("kind", "name", "kept"),
    [("student", "a.onnx", True), ("student", "a.decoder.onnx", False), ("encoding", "a.decoder.onnx", True)],
)
def test_what_no_export_wrote_is_not_written_over(call, request, tmp_path, kind, name, kept):
    """Nor does it stand in the way where it would not be."""
    folder = request.getfixturevalue(kind)
    (tmp_path / name).write_bytes(b"a graph of mine")
    done = call("export", folder, "--onnx", tmp_path / "a.onnx")
    assert (tmp_path / name).read_bytes() == b"a graph of mine"
    assert (done.code, done.err.count("\n")) == ((2, 1) if kept else (0, 0))
    assert (f"{tmp_path / name} holds what no export wrote" in done.err) is kept


def test_a_folder_stands_where_a_graph_would_go(call, encoding, tmp_path):
    (tmp_path / "a.decoder.onnx").mkdir()
    done = call("export", encoding, "--onnx", tmp_path / "a.onnx")
    assert (done.code, done.err.count("\n")) == (2, 1)


@pytest.mark.parametrize("kind", ["student", "encoding"])
def test_an_export_is_written_over_by_the_next(call, request, tmp_path, kind):
    folder = request.getfixturevalue(kind)
    for _ in range(2):
        done = call("export", folder, "--onnx", tmp_path / "a.onnx")
        assert done.code == 0, done.err


def test_without_onnx(call, student, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    done = call("export", student, "--onnx", tmp_path / "a.onnx")
    assert done.code == 2
    assert "pip install 'shoestring[rationale]'" in done.err
