"""The commands of the room, as the door knows them."""

from __future__ import annotations

import pytest


def test_the_commands_are_these(call):
    found = call("--help")
    assert found.code == 0
    assert all(f"│ {name} " in found.out for name in ("ask", "filter", "train", "predict", "curve", "export"))


@pytest.mark.parametrize("name", ["ask", "filter", "train", "predict", "curve", "export"])
def test_each_says_what_it_does(call, name):
    found = call(name, "--help")
    assert (found.code, found.err) == (0, "")
    assert f"shoestring rationale {name}" in found.out


@pytest.mark.parametrize(
    "words",
    [
        (
            "ask",
            "none.jsonl",
            "--out",
            "r.jsonl",
            "--teacher",
            "http://127.0.0.1:9/v1",
            "--model",
            "m",
            "--prompt",
            "cqa",
        ),
        ("filter", "none.jsonl", "--out", "f.jsonl", "--agrees"),
        ("train", "none.jsonl", "--out", "s"),
        ("predict", "none", "none.jsonl"),
        ("curve", "none.jsonl", "--out", "c"),
        ("export", "none", "--onnx", "a.onnx"),
    ],
)
def test_what_is_not_there_is_one_line(call, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    found = call(*words)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert found.err.startswith("shoestring: none")
    assert list(tmp_path.iterdir()) == []
