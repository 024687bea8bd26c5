"""Scoring from the command line: the numbers that the model gives, as a table and as JSON lines; what is refused."""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, XLNetLMHeadModel

from shoestring.data import tokenizers
from shoestring.methods.permutation import configurations, vocabulary
from shoestring.methods.permutation.convert import from_transformers
from shoestring.methods.permutation.heads import with_head
from shoestring.methods.permutation.scoring import span_log_prob
from shoestring.models import pretrained

TEXT = "the old town is new"


@pytest.fixture
def call(tool: Callable[..., SimpleNamespace]) -> Callable[..., SimpleNamespace]:
    """`shoestring permutation score …`, on a terminal of 100 columns."""
    return partial(tool, "score", columns=100)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of weights so large that no two tokens are as likely."""
    tokenizer, _ = vocabulary.prepared(tokenizers.train_bpe([f"{TEXT} and so on"] * 5, 265))
    shape = configurations.configuration("xlnet-tiny", len(tokenizer), initializer_range=0.5)
    folder = tmp_path_factory.mktemp("scored") / "model"
    pretrained.save(configurations.build(shape, 0), tokenizer, folder)
    return folder


def wanted(folder: Path, spans: list[tuple[int, int]], order: Any = "left-to-right") -> list[Any]:
    model = from_transformers(XLNetLMHeadModel.from_pretrained(folder))
    return span_log_prob(model, AutoTokenizer.from_pretrained(folder), TEXT, spans, order)


@pytest.mark.parametrize("order", ["left-to-right", "right-to-left"])
def test_a_table_has_each_token_and_the_whole(call, model, order):
    done = call(model, "--text", TEXT, "--span", "4:12", "--span", "0:3", "--order", order)
    assert done.code == 0, done.err
    for span in wanted(model, [(4, 12), (0, 3)], order):
        for token, likely in zip(span.tokens, span.log_probabilities, strict=True):
            assert any(line.split() == [*repr(token).split(), f"{likely:.4f}"] for line in done.out.splitlines())
        assert f"{sum(span.log_probabilities):.4f}" in done.out
    assert done.out.index("4:12 'old town'") < done.out.index("0:3 'the'")
    assert order.replace("-", " ") in done.out


def test_lines_of_a_file(call, model, tmp_path):
    row = {"id": 7, "text": TEXT, "spans": [[4, 12], [0, 3]]}
    said = (json.dumps(row) + "\n\n" + json.dumps({**row, "id": 8})).encode()
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(said))
    done = call(model, "--file", tmp_path / "rows.jsonl.gz")
    assert done.code == 0, done.err
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [one["id"] for one in found] == [7, 8]
    for one, span in zip(found[0]["scores"], wanted(model, [(4, 12), (0, 3)]), strict=True):
        assert one["total"] == pytest.approx(sum(span.log_probabilities), abs=1e-5)
        assert (one["text"], one["tokens"]) == (span.text, [*span.tokens])
    out = tmp_path / "new" / "scores.jsonl"
    assert call(model, "--file", tmp_path / "rows.jsonl.gz", "--out", out).out == ""
    assert [json.loads(line) for line in out.read_text().splitlines()] == found
    done = call(model, "--text", TEXT, "--span", "4:12", "--out", out)
    assert "it is there already: give another name" in done.err
    out.unlink()
    done = call(model, "--text", TEXT, "--span", "4:12", "--out", out)
    assert "old town" in done.out
    (again,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert again["scores"] == found[0]["scores"][:1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "expected either --text with --span FROM:TO, or --file"),
        (("--text", TEXT, "--file", "a.jsonl"), "expected either --text"),
        (("--file", "a.jsonl", "--span", "1:2"), "expected either --text"),
        (("--text", TEXT), "--text without --span: expected one, such as --span 0:19"),
        (("--text", TEXT, "--span", "4-12"), "--span '4-12': expected FROM:TO in characters, such as 4:9"),
        (("--text", TEXT, "--span", "4:20"), "--text: span 4:20 of 19 characters: expected one inside the text"),
        (("--text", TEXT, "--span", "4:4"), "span 4:4 of 19 characters"),
        (("--text", TEXT, "--span", "4:9", "--order", "up"), "'up' is not one of"),
        (("--text", TEXT, "--span", "4:9", "--out", "{tmp}"), "expected the name of a file ending in .jsonl"),
        (("--file", "{tmp}/none.jsonl"), "none.jsonl: no such file"),
        (("--file", "{tmp}/bad.jsonl"), "bad.jsonl:2: expected {text, spans: [[from, to], ...]}"),
        (("--file", "{tmp}/beyond.jsonl"), "beyond.jsonl:2: span 4:20 of 19 characters"),
        (("--file", "{tmp}/over.jsonl"), "over.jsonl:1: its 'scores' would be written over"),
        (("--file", "{tmp}/blank.jsonl"), "blank.jsonl: no rows"),
        (("--file", "{tmp}/torn.jsonl.gz"), "torn.jsonl.gz: the gzip file is damaged or cut short"),
    ],
)
def test_what_is_wrong_is_one_line_and_writes_nothing(call, model, tmp_path, words, message):
    good = {"text": TEXT, "spans": [[4, 9]]}
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(json.dumps(good).encode())[:-9])
    for name, rows in {
        "bad": [good, {"text": TEXT, "spans": [[4]]}],
        "beyond": [good, {"text": TEXT, "spans": [[4, 20]]}],
        "over": [{**good, "scores": []}],
        "blank": [],
    }.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    done = call(model, *(word.replace("{tmp}", str(tmp_path)) for word in words))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert message in done.err


def test_a_model_that_is_none(call, model, tmp_path):
    words = ("--text", TEXT, "--span", "4:9")
    assert "there is no such folder" in call(tmp_path / "none", *words).err
    lm, tokenizer = XLNetLMHeadModel.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    with torch.no_grad():
        lm.lm_loss.bias[0] = torch.nan
    pretrained.save(lm, tokenizer, tmp_path / "nan")
    assert "tensor lm_loss.bias holds NaN or infinity" in call(tmp_path / "nan", *words).err
    lm.save_pretrained(tmp_path / "torn")
    weights = load_file(tmp_path / "torn" / "model.safetensors")
    del weights["transformer.layer.0.ff.layer_1.weight"]
    save_file(weights, tmp_path / "torn" / "model.safetensors", {"format": "pt"})
    done = call(tmp_path / "torn", *words)
    assert done.err.endswith("torn: the weights lack transformer.layer.0.ff.layer_1.weight\n")
    assert done.err.count("\n") == 1, "without the table of transformers"
    with_head(lm, "classification", ["a", "b"]).save_pretrained(tmp_path / "headed")
    done = call(tmp_path / "headed", *words)
    assert (done.code, done.out) == (2, "")
    assert "an XLNetForSequenceClassification: expected a language model, XLNetLMHeadModel" in done.err


def test_a_model_that_sees_nothing_behind_a_span(call, model, tmp_path):
    lm = XLNetLMHeadModel.from_pretrained(model)
    lm.config.attn_type = "uni"
    pretrained.save(lm, AutoTokenizer.from_pretrained(model), tmp_path / "uni")
    done = call(tmp_path / "uni", "--text", TEXT, "--span", "4:12")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "uni: autoregressive: it sees nothing after a span" in done.err


def test_a_folder_that_may_not_be_written(call, model, tmp_path, monkeypatch):
    def forbidden(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    words = (model, "--text", TEXT, "--span", "4:12", "--out", tmp_path / "a.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", forbidden)
        done = call(*words)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"--out {tmp_path / 'a.jsonl'}: cannot be written (Permission denied): give another" in done.err
    assert [*tmp_path.iterdir()] == []
    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", full)
        assert f"--out {tmp_path / 'a.jsonl'}: cannot be written (No space left on device)" in call(*words).err
    assert [*tmp_path.iterdir()] == []
    assert call(*words).code == 0


def test_a_model_of_masks_is_told_a_span_token_by_token(call, model, tmp_path):
    folder = tmp_path / "masked"
    lm = XLNetLMHeadModel.from_pretrained(model)
    lm.config.pretraining_objective = "masked"
    pretrained.save(lm, AutoTokenizer.from_pretrained(model), folder)
    done = call(folder, "--text", TEXT, "--span", "4:12")
    assert done.code == 0, done.err
    (span,), (other,) = wanted(folder, [(4, 12)]), wanted(model, [(4, 12)])
    assert f"{span.total:.4f}" in done.out
    assert span.total != pytest.approx(other.total, abs=1e-2)


def test_help_says_what_a_folder_may_not(call):
    assert "of any other, permutation is taken for granted" in " ".join(call("--help").out.split())
