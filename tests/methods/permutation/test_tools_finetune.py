"""Fine-tuning from the command line: each kind of rows, gone on with where it was stopped; and what is refused."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    XLNetForQuestionAnsweringSimple,
    XLNetForSequenceClassification,
    pipeline,
)

from shoestring.data import tokenizers
from shoestring.evaluate import report
from shoestring.evaluate.page import page
from shoestring.methods.permutation import configurations, features, tools_finetuned, vocabulary
from shoestring.methods.permutation.tools_finetuned import Watch
from shoestring.models import pretrained
from shoestring.types import Run

PLAIN = ("--batch", 8, "--length", 48, "--epochs", 2)
CLASSES = ("--task", "classification", "--train", "{tmp}/train.jsonl", *PLAIN)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take as long as all the rest."""
    monkeypatch.setattr(report, "page", lambda *_: "")


@pytest.fixture
def call(tool: Callable[..., SimpleNamespace], tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """`shoestring permutation …`, {tmp} put in."""
    return lambda *words: tool(*(str(word).replace("{tmp}", str(tmp_path)) for word in words))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model, untrained."""
    tokenizer, _ = vocabulary.prepared(tokenizers.byte_tokenizer())
    shape = configurations.configuration("xlnet-tiny", len(tokenizer), mem_len=8, reuse_len=8)
    folder = tmp_path_factory.mktemp("base") / "model"
    pretrained.save(configurations.build(shape, 0), tokenizer, folder)
    return folder


@pytest.fixture
def finetune(call: Callable[..., SimpleNamespace], base: Path) -> Callable[..., SimpleNamespace]:
    return lambda *words, out="out", plain=CLASSES: call("finetune", base, "--out", f"{{tmp}}/{out}", *plain, *words)


@pytest.fixture
def rows_file(tmp_path: Path) -> Callable[..., Path]:
    def made(rows: Iterable[dict[str, Any]], name: str = "train.jsonl") -> Path:
        path = tmp_path / name
        said = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(gzip.compress(said.encode()) if name.endswith(".gz") else said.encode())
        return path

    return made


def classes(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """What is good has a + at its end."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        label = chance.choice(["good", "bad"])
        rows.append({"text": f"{chance.randint(0, 9999)} {'+' if label == 'good' else '-'}", "label": label})
    return rows


def told(folder: Path) -> dict[str, float]:
    (row,) = json.loads((folder / "report.json").read_text())["rows"]
    return {name: score["mean"] for name, score in row["scores"].items()}


def notes_of(done: SimpleNamespace, out: Path) -> list[str]:
    assert done.code == 0, done.err
    return [*report.read(out).notes]


def alike(one: Path, other: Path) -> bool:
    mine, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


ROWS = [*enumerate(classes(40))]

# what comes of it


def test_classes_are_learnt_and_transformers_tells_them(finetune, rows_file, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "page", page)
    rows_file(classes(200))
    rows_file(classes(40, 1), "test.jsonl.gz")
    words = ("--test", "{tmp}/test.jsonl.gz", "--epochs", 8, "--learning-rate", 0.01)
    done = finetune(*words)
    assert done.code == 0, done.err
    out = tmp_path / "out"
    assert "data:image/svg+xml" in (out / "report.html").read_text()
    found = told(out)
    assert found.keys() == {"test accuracy", "dev accuracy"}
    assert found["test accuracy"] == 1.0
    assert ", said always, would be right on " in done.out
    assert "of 8 is taken, the best on dev" in done.out
    ledger = json.loads((out / "ledger.json").read_text())
    assert ledger[""]["labels"] == 200
    model, loading = AutoModelForSequenceClassification.from_pretrained(out / "model", output_loading_info=True)
    assert not any(loading.values())
    assert model.config.id2label == {0: "bad", 1: "good"}
    rows = classes(40, 1)
    # of different lengths, so that it is padded; the class token is the last all the same
    said = pipeline("text-classification", str(out / "model"), device="cpu")(
        [row["text"] for row in rows], batch_size=8
    )
    assert [one["label"] for one in said] == [row["label"] for row in rows]
    again = finetune(*words)
    assert (again.code, told(out)) == (0, found)
    assert "step" not in again.err


def test_the_tokenizer_reads_as_the_model_was_taught_to(finetune, rows_file, tmp_path):
    rows = [{"premise": one["text"], "hypothesis": one["text"] * 2, "label": 1} for one in classes(40)]
    rows_file([{**row, "label": place % 11} for place, row in enumerate(rows)])
    words = (
        "--columns",
        "premise,hypothesis",
        "--epochs",
        1,
        "--length",
        40,
        "--memory",
        8,
        "--dev",
        "{tmp}/train.jsonl",
    )
    done = finetune(*words)
    assert done.code == 0, done.err
    folder = tmp_path / "out" / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.padding_side == "left"
    ours = vocabulary.Vocabulary.of(tokenizer)
    wanted = features.classification(ours, tokenizers.encoder(tokenizer), "a text", "another")
    found = tokenizer("a text", "another")
    assert (found["input_ids"], found["token_type_ids"]) == (wanted.ids, wanted.segments)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert [*model.config.id2label.values()] == [str(number) for number in range(11)], "numbers by their value"


def test_answers_are_found(finetune, rows_file, tmp_path):
    """The answer is the number in angle brackets; of what has none, nothing."""
    chance = random.Random(0)
    rows = []
    for place in range(60):
        number, context = str(chance.randint(10, 99)), "so it was said"
        context = f"{'well ' * chance.randint(0, 2)}{context}"
        answers: Any = [{"start": len(context) + 1, "text": f"<{number}>"}]
        if place % 3 == 0:
            answers = {"text": [f"<{number}>"], "answer_start": [len(context) + 1]}
        rows.append({"context": f"{context} <{number}> then", "question": "Which?", "answers": answers})
    rows += [{"context": "so it was said then", "question": "Which?", "answers": {"text": [], "answer_start": []}}]
    rows_file(rows)
    rows_file(rows[:6], "dev.jsonl")
    words = ("--task", "spans", "--train", "{tmp}/train.jsonl", "--dev", "{tmp}/dev.jsonl", "--test", "{tmp}/dev.jsonl")
    done = finetune(*words, *PLAIN, "--epochs", 12, "--learning-rate", 0.01, "--length", 32, plain=())
    assert done.code == 0, done.err
    found = told(tmp_path / "out")
    assert found.keys() == {f"{split} {name}" for split in ("test", "dev") for name in ("F1", "exact match")}
    assert found["test F1"] > 0.8
    XLNetForQuestionAnsweringSimple.from_pretrained(tmp_path / "out" / "model")


def test_choices_by_place_and_by_letter(finetune, rows_file, tmp_path):
    asked = {"question": "Is it _?", "options": ["yes", "no", "maybe"]}
    rows_file({**asked, "article": f"{number}", "answer": 1 if number % 2 else "B"} for number in range(24))
    columns = ("--columns", "article, question,options", "--label", "answer")
    words = ("--task", "choices", *columns, "--train", "{tmp}/train.jsonl", "--dev", "{tmp}/train.jsonl", *PLAIN)
    done = finetune(*words, "--learning-rate", 0.01, "--epochs", 3, "--length", 16, "--memory", 4, plain=())
    assert done.code == 0, done.err
    assert told(tmp_path / "out")["dev accuracy"] == 1.0
    AutoModelForMultipleChoice.from_pretrained(tmp_path / "out" / "model")


def test_texts_that_are_cut_are_counted_and_few_first_texts_are_cut_row_by_row(finetune, rows_file, tmp_path):
    rows_file({"a": "the same", "b": one["text"] * (1 + place % 2 * 9), "c": place % 2} for place, one in ROWS)
    words = ("--columns", "a,b", "--label", "c", "--epochs", 1, "--length", 40)
    notes = notes_of(finetune(*words), tmp_path / "out")
    assert notes[0] == "36 rows to learn from, 4 of dev, 0 of test."
    assert notes[1].endswith("train.jsonl by a hash: row by row, as first texts are few or uneven.")
    assert notes[2] == (
        "20 of 40 rows are longer than --length 40, and cut. A larger one reads more, or windows of it, by --memory."
    )
    far = notes_of(finetune(*words, "--memory", 8, out="far"), tmp_path / "far")
    assert not any("rows are longer" in note for note in far)
    near = notes_of(finetune(*words, "--memory", 8, "--length", 16, out="near"), tmp_path / "near")
    assert near[2].startswith("20 of 40 rows are longer than the 40 tokens that are seen through a memory of 8 in wind")


def test_documents_longer_than_the_length_are_read_through_the_memory(finetune, rows_file, tmp_path):
    """What tells the class stands in the first of two windows."""
    signs = {"good": "+" * 8, "bad": "-" * 8}
    rows_file([{"text": signs[row["label"]] + "." * 20, "label": row["label"]} for row in classes(80)])
    words = ("--epochs", 4, "--learning-rate", 0.01, "--length", 16, "--dev", "{tmp}/train.jsonl", "--memory", 32)
    done = finetune(*words)
    assert done.code == 0, done.err
    assert told(tmp_path / "out")["dev accuracy"] == 1.0
    config = XLNetForSequenceClassification.from_pretrained(tmp_path / "out" / "model").config
    assert config.long_documents == {"window": 16, "memory": 32}
    assert AutoTokenizer.from_pretrained(tmp_path / "out" / "model").model_max_length == 80, "all that it can see"


def test_stopped_and_gone_on_with_is_never_stopped(finetune, call, base, rows_file, tmp_path, monkeypatch):
    rows_file(classes(60))
    monkeypatch.setattr(tools_finetuned, "Spaced", lambda seconds, hook: hook)
    look, steps = Watch.__call__, []

    def stopping(self: Watch, run: Run) -> None:
        steps.append(run.step)
        if len(steps) == 2:
            raise KeyboardInterrupt
        look(self, run)
        self.points[-1]["dev"]["accuracy"] = 1.0  # the first epoch is the best

    def looking(self: Watch, run: Run) -> None:
        steps.append(run.step)
        look(self, run)
        self.points[-1]["dev"]["accuracy"] = 1.0 if len(self.points) == 1 else 0.0

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "__call__", stopping)
        assert finetune("--layer-decay", 0.75).code == 130
    assert not (tmp_path / "out" / "model").exists()
    monkeypatch.setattr(Watch, "__call__", looking)
    done = finetune("--layer-decay", 0.75)
    assert done.code == 0, done.err
    assert "going on from step " in done.err
    assert steps == [6, 12, 12]
    assert "Epoch 1 of 2 is taken" in done.out
    assert finetune("--layer-decay", 0.75, out="whole").code == 0
    assert alike(tmp_path / "out" / "model", tmp_path / "whole" / "model"), "the first epoch's weights, kept"
    again = call("finetune", f"{base}/", "--out", "{tmp}/out/", *CLASSES, "--layer-decay", 0.75)
    assert (again.code, "step" in again.err) == (0, False), "the same, in another spelling"
    refused = finetune("--layer-decay", 0.5)
    assert "it holds a run with layer_decay=0.75, this one has layer_decay=0.5" in refused.err
    rows_file(classes(61))
    assert "begun on " in finetune("--layer-decay", 0.75).err


# what is refused

ROW = {"text": "a b", "label": "x"}
QUESTION = {"context": "a cat", "question": "Who?", "answers": [{"start": 2, "text": "cat"}]}
CHOICE = {"context": "a cat", "question": "Who?", "options": ["cat", "dog"], "label": 0}


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        ("classification", [ROW, {**ROW, "text": None}], "train.jsonl:2: text: expected text, got None"),
        ("classification", [ROW, {"text": "a"}], "train.jsonl:2: no 'label'; it has 'text'"),
        ("classification", [ROW, {**ROW, "label": 0.5}], "train.jsonl:2: label: expected text or a whole number"),
        ("classification", [ROW] * 30, "the labels are 'x': expected two or more"),
        ("classification", [], "train.jsonl: the file is empty"),
        ("classification", [ROW, {**ROW, "label": "y"}], "dev.jsonl:1: the label 'z' is none of train's: 'x', 'y'"),
        (
            "classification",
            [{**ROW, "label": "z"}, {"text": " ", "label": "y"}],
            "jsonl:2: text: empty: leave such rows out",
        ),
        ("classification", [{**ROW, "label": "z"}, ROW], "2 examples to learn from: expected --batch 8 or more"),
        ("spans", [{**QUESTION, "answers": [{"start": 1, "text": "cat"}]}], "train.jsonl:1: the answer 'cat' does not"),
        ("spans", [{**QUESTION, "answers": "cat"}], "answers: expected [{start, text}], or {text: [...], answer_start"),
        ("spans", [{**QUESTION, "answers": [{"text": "cat"}]}], "answers: expected [{start, text}]"),
        ("spans", [{**QUESTION, "answers": {"text": ["cat"]}}], "answers: expected [{start, text}]"),
        ("choices", [{**CHOICE, "label": "C"}], "train.jsonl:1: label: expected 0 to 1, or A to B, got 'C'"),
        ("choices", [{**CHOICE, "label": True}], "label: expected 0 to 1, or A to B, got True"),
        ("choices", [{**CHOICE, "options": ["cat"]}], "options: expected a list of two texts or more"),
        ("choices", [CHOICE] * 2 + [{**CHOICE, "options": ["a", "b", "c"]}], "jsonl:3: 3 options, where others have 2"),
    ],
)
def test_rows_that_are_not_what_they_should_be(finetune, rows_file, tmp_path, task, rows, message):
    rows_file(rows)
    other = {"classification": {**ROW, "label": "z"}, "spans": QUESTION, "choices": CHOICE}[task]
    rows_file([other], "dev.jsonl")
    words = ("--task", task, "--train", "{tmp}/train.jsonl", "--dev", "{tmp}/dev.jsonl", *PLAIN)
    done = finetune(*words, plain=())
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert message in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev.jsonl", "train.jsonl"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--train", "{tmp}/none.jsonl"), "none.jsonl: no such file"),
        (("--columns", "a,b,c"), "shoestring: --columns a,b,c: expected one or two texts, such as premise,hypothesis"),
        (("--columns", "a,"), "columns.1: expected"),
        (("--columns", "txt"), "train.jsonl:1: no 'txt'; it has 'text', 'label'"),
        (("--task", "spans", "--columns", "text"), "--columns text: expected three, for context,question,answers"),
        (("--label", "text"), "'text' has 30 labels in 30 rows, such as"),
        (("--task", "spans", "--memory", "8"), "--memory 8: spans reads a long context window by window"),
        (("--layer-decay", "0"), "layer_decay: expected greater than 0"),
        (("--batch", "500"), "examples to learn from: expected --batch 500 or more"),
        (("--learning-rate", "0"), "learning_rate: expected greater than 0"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(finetune, rows_file, tmp_path, words, message):
    rows_file(classes(30))
    done = finetune(*words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert message in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


def test_a_file_of_another_kind(finetune, tmp_path):
    (tmp_path / "squad.json").write_text('{"version": "1.1", "data": []}')
    done = finetune("--train", "{tmp}/squad.json")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "squad.json: expected JSON lines, .jsonl or .jsonl.gz: an object a line" in done.err


def test_a_run_whose_model_is_gone_or_not_there_yet(finetune, call, rows_file, tmp_path):
    rows_file(classes(30))
    assert finetune().code == 0
    (tmp_path / "out" / "model" / "model.safetensors").unlink()
    assert "holds no weights: expected model.safetensors, its shards, or pytorch_model.bin; delete " in finetune().err
    (tmp_path / "begun" / "runs").mkdir(parents=True)
    done = call("finetune", tmp_path / "begun", "--out", "{tmp}/other", *CLASSES)
    assert "begun: a run that has not ended: go on with its own command first" in done.err


def test_a_damaged_file(finetune, rows_file, tmp_path):
    path = rows_file(classes(30), "train.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-20])
    done = finetune("--train", path)
    assert done.code == 2
    assert "train.jsonl.gz: the gzip file is damaged or cut short" in done.err


def test_a_model_that_is_none(call, rows_file, base, tmp_path):
    rows_file(classes(30))
    torn = tmp_path / "torn"
    torn.mkdir()
    words = ("--out", "{tmp}/out", *CLASSES)
    assert "holds no config.json" in call("finetune", torn, *words).err
    (torn / "config.json").write_text('{"model_type": "gpt2"}')
    assert "its model_type is 'gpt2': expected 'xlnet'" in call("finetune", torn, *words).err
    (torn / "config.json").write_bytes((base / "config.json").read_bytes())
    assert "holds no weights" in call("finetune", torn, *words).err
    (torn / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes()[:-8])
    assert "is torn or not safetensors" in call("finetune", torn, *words).err
    (torn / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    assert "holds no tokenizer" in call("finetune", torn, *words).err
    larger, _ = vocabulary.prepared(tokenizers.train_bpe(["the cat sat on the mat"] * 9, 265))
    larger.save_pretrained(torn)
    assert "the tokenizer has 268 tokens but the model's embedding only 260 rows" in call("finetune", torn, *words).err
    config = json.loads((torn / "config.json").read_text())
    (torn / "config.json").write_text(json.dumps({**config, "pad_token_id": 259}))
    smaller = tokenizers.byte_tokenizer()
    smaller.add_special_tokens({"sep_token": "<sep>", "cls_token": "<sep>", "pad_token": "<sep>"})
    smaller.save_pretrained(torn)
    assert "pad_token_id is 259 in config.json but 257 of the tokenizer:" in call("finetune", torn, *words).err
    (torn / "config.json").write_text(json.dumps({**config, "pad_token_id": 5, "eos_token_id": 2}))
    assert "pad_token_id is 5 in config.json but 257 of the tokenizer:" in call("finetune", torn, *words).err
    (torn / "config.json").write_text(json.dumps(config))
    (torn / "tokenizer_config.json").unlink()
    assert "no tokenizer could be read" in call("finetune", torn, *words).err
    lacking = tokenizers.byte_tokenizer()
    lacking.save_pretrained(torn)
    assert "torn: the tokenizer has no sep_token: expected sep, cls" in call("finetune", torn, *words).err
