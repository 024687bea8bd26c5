"""Pretraining from the command line: a model in its folder, gone on with where it was stopped; and what is refused."""

from __future__ import annotations

import fcntl
import json
import math
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, XLNetConfig, XLNetLMHeadModel

from shoestring import runtime
from shoestring.evaluate import report
from shoestring.evaluate.page import page
from shoestring.methods.permutation import tools_pretrain_ground, tools_pretrained
from shoestring.methods.permutation.tools_pretrained import Watch
from shoestring.types import Run

SMALL = ("--model", "xlnet-tiny", "--tokenizer", "bytes", "--length", 16, "--batch", 4, "--steps", 6)
PLAIN = (*SMALL, "--precision", "fp32")
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "one", "red", "dog", "run", "far", "away", "home"]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take as long as all the rest."""
    monkeypatch.setattr(report, "page", lambda *_: "")


def written(place: Path, sentences: int, seed: int) -> None:
    chance = random.Random(seed)
    said = (" ".join(chance.choices(WORDS, k=chance.randint(4, 9))) + "." for _ in range(sentences))
    place.write_text("\n".join(said) + "\n")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    written(folder / "train.txt", 200, 0)
    written(folder / "dev.txt", 20, 1)
    written(folder / "test.txt", 1, 2)  # else half of dev is test
    return folder


@pytest.fixture
def pretrain(tool: Callable[..., SimpleNamespace], text: Path, tmp_path: Path) -> Callable[..., SimpleNamespace]:
    return lambda *words, out="out", plain=PLAIN: tool("pretrain", text, "--out", tmp_path / out, *plain, *words)


def weights(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = load_file(folder / "model.safetensors")
    return found


def alike(one: Path, other: Path) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def loss_of(out: Path) -> tuple[float, float]:
    """On dev, at the end and before."""
    (row,) = json.loads((out / "report.json").read_text())["rows"]
    return row["scores"]["dev loss"]["mean"], row["scores"]["before"]["mean"]


# what comes of it


def test_a_model_comes_of_it_that_transformers_loads(pretrain, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "page", page)
    done = pretrain("--steps", 40, "--learning-rate", 0.01)
    assert done.code == 0, done.err
    out = tmp_path / "out"
    assert "data:image/svg+xml" in (out / "report.html").read_text()
    after, before = loss_of(out)
    assert before == pytest.approx(math.log(260), abs=0.1)
    assert after < before - 1
    assert "step 40 of 40" in done.err
    assert f"The model: {out / 'model'}" in done.out
    assert "nats per predicted token, on" in done.out
    model, found = XLNetLMHeadModel.from_pretrained(out / "model", output_loading_info=True)
    assert not any(found.values())
    assert (model.config.mem_len, model.config.reuse_len) == (12, 8)
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    found = tokenizer("the cat sat")
    assert found["input_ids"][-2:] == [tokenizer.sep_token_id, tokenizer.cls_token_id], "as it is read in fine-tuning"
    assert (tokenizer.padding_side, found["token_type_ids"][-1]) == ("left", 2)
    assert model(torch.tensor([found["input_ids"]])).logits.shape == (1, 13, 260)
    ledger = json.loads((out / "ledger.json").read_text())
    assert ledger["train"]["tokens"] == 40 * 4 * 16
    assert ledger["train"]["flops"] > 0
    points = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [point["step"] for point in points if point["kind"] == "point"] == [*range(0, 41, 4)]
    assert not (out / "runs" / "pretrain" / "checkpoint").exists()


def test_the_same_command_does_nothing_anew(pretrain, tmp_path, text):
    assert pretrain().code == 0
    out = tmp_path / "out"
    before, kept = loss_of(out), weights(out / "model")
    stamp = (out / "model" / "model.safetensors").stat().st_mtime_ns
    again = pretrain(out="./out/")
    assert again.code == 0, again.err
    assert "step" not in again.err
    assert loss_of(out) == before
    assert (out / "model" / "model.safetensors").stat().st_mtime_ns == stamp
    assert pretrain(out="other").code == 0
    assert alike(tmp_path / "other" / "model", out / "model"), "the same seed, the same bits"
    assert kept.keys() == weights(out / "model").keys()
    other = pretrain("--seed", 1, "--batch", 8)
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "it holds a run with batch=4, seed=0, this one has batch=8, seed=1" in other.err
    written(text / "train.txt", 210, 3)
    assert f"begun on {text}" in pretrain().err
    written(text / "train.txt", 200, 0)
    (out / "model").rename(tmp_path / "elsewhere")
    assert "the model is gone: delete" in pretrain().err


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ("permutation", ("--accumulate", 2, "--checkpointing")),
        ("masked", ("--memory", 0, "--spans", "single", "--segments", "one")),
        ("mpnet", ("--one-direction", "--spans", "tokens", "--predicted", 3)),
        ("autoregressive", ("--memory", 5)),
    ],
)
def test_stopped_and_gone_on_with_is_never_stopped(pretrain, tmp_path, monkeypatch, objective, words):
    monkeypatch.setattr(tools_pretrained, "Spaced", lambda seconds, hook: hook)
    look, steps = Watch.__call__, []

    def stopping(self: Watch, run: Run) -> None:
        steps.append(run.step)
        if len(steps) == 4:
            raise KeyboardInterrupt
        look(self, run)

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "__call__", stopping)
        stopped = pretrain("--objective", objective, *words)
    assert stopped.code == 130
    assert "the same command goes on" in stopped.err
    assert not (tmp_path / "out" / "model").exists()
    monkeypatch.setattr(Watch, "__call__", lambda self, run: (steps.append(run.step), look(self, run))[1])
    done = pretrain("--objective", objective, *words)
    assert done.code == 0, done.err
    assert "going on from step 2 of 6" in done.err
    assert steps == [0, 1, 2, 3, 3, 4, 5, 6]
    whole = pretrain("--objective", objective, *words, out="whole")
    assert whole.code == 0, whole.err
    assert alike(tmp_path / "out" / "model", tmp_path / "whole" / "model")
    assert loss_of(tmp_path / "out") == loss_of(tmp_path / "whole")
    spent = [json.loads((tmp_path / out / "ledger.json").read_text())["train"] for out in ("out", "whole")]
    assert spent[0]["tokens"] == spent[1]["tokens"]
    assert spent[0]["flops"] == spent[1]["flops"]


KILLED = """
import os, signal, sys
from shoestring import __main__ as door
from shoestring.methods.permutation import tools_pretrain_ground, tools_pretrained
from shoestring.methods.permutation.tools_pretrained import Watch
tools_pretrained.Spaced = lambda seconds, hook: hook
look = Watch.__call__
def killed(self, run):
    if run.step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    look(self, run)
Watch.__call__ = killed
door.main()
"""


def test_killed_and_gone_on_with_is_never_stopped(pretrain, tmp_path, text):
    words = [str(word) for word in ("permutation", "pretrain", text, "--out", tmp_path / "out", *PLAIN)]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in (tmp_path / "out" / "runs" / "pretrain" / "checkpoint").iterdir()] == [
        "step-00000003"
    ]
    assert pretrain().code == 0
    assert pretrain(out="whole").code == 0
    assert alike(tmp_path / "out" / "model", tmp_path / "whole" / "model")


def test_a_new_tokenizer_is_learnt_of_the_text_and_precision_is_measured(pretrain, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "faster_precision", lambda step: "bf16")
    words = ("--model", "xlnet-tiny", "--tokenizer", "bpe:300", "--length", 16, "--batch", 4, "--steps", 2)
    done = pretrain(plain=words)
    assert done.code == 0, done.err
    assert XLNetLMHeadModel.from_pretrained(tmp_path / "out" / "model").config.vocab_size == 303
    assert json.loads((tmp_path / "out" / "settled.json").read_text())["precision"] == "bf16"


# on from a folder


def test_on_from_a_folder_of_ours(pretrain, tmp_path):
    assert pretrain("--steps", 40, "--learning-rate", 0.01).code == 0
    gone_on = ("--model", tmp_path / "out", "--length", 24, "--memory", 6, "--batch", 2, "--steps", 2)
    done = pretrain(out="more", plain=gone_on)
    assert done.code == 0, done.err
    assert loss_of(tmp_path / "more")[1] < loss_of(tmp_path / "out")[1] - 1, "it knows what it learnt"
    assert XLNetLMHeadModel.from_pretrained(tmp_path / "more" / "model").config.mem_len == 6
    assert not alike(tmp_path / "more" / "model", tmp_path / "out" / "model")
    refused = pretrain("--tokenizer", "bytes", out="other", plain=gone_on)
    assert "--tokenizer bytes: " in refused.err
    assert "has its own: leave it out" in refused.err


def test_on_from_a_published_checkpoint_with_its_pieces(pretrain, tmp_path, text):
    """Weights of torch's own kind, and a SentencePiece file beside them."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path / "published"
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        input=str(text / "train.txt"),
        model_prefix=str(folder / "spiece"),
        vocab_size=40,
        model_type="unigram",
        control_symbols=["<cls>", "<sep>", "<pad>", "<mask>", "<eod>"],
        user_defined_symbols=["<eop>"],
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    torch.manual_seed(0)
    config = XLNetConfig(vocab_size=80, d_model=16, n_layer=2, n_head=2, d_inner=32)
    model = XLNetLMHeadModel(config)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    config.architectures = ["XLNetLMHeadModel"]
    config.save_pretrained(folder)
    done = pretrain(plain=("--model", folder, "--length", 16, "--batch", 2, "--steps", 2, "--precision", "fp32"))
    assert done.code == 0, done.err
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "model")
    assert tokenizer.convert_ids_to_tokens(tokenizer("the cat")["input_ids"])[-2:] == ["<sep>", "<cls>"]
    XLNetLMHeadModel.from_pretrained(tmp_path / "out" / "model")


# what is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "xlnet-tinny"), "--model xlnet-tinny: no shape and no folder; did you mean 'xlnet-tiny'?"),
        (("--tokenizer", "bpe:many"), "expected a vocabulary size after 'bpe:'"),
        (("--tokenizer", "{tmp}/none"), "none: no such folder"),
        (("--batch", "3"), "--batch 3: expected a number that 2 divides, --accumulate times directions"),
        (("--accumulate", "4"), "--batch 4: expected a number that 8 divides"),
        (("--objective", "autoregressive", "--spans", "words"), "--spans words: an autoregressive model predicts"),
        (("--length", "4096"), "tokens, and a batch takes"),
        (("--batch", "2000", "--one-direction"), "tokens do not fill 2000 rows"),
        (("none.txt", "--reuse", "12"), "12 of 16 tokens are reused, which leaves 4 for two segments"),
        (("--length", "8"), "8 is not in the range x>=10"),
        (("--reuse", "14"), "14 of 16 tokens are reused, which leaves 2 for two segments"),
        (("--predicted", "16"), "16 predicted of 16 tokens"),
        (("--warmup", "5"), "--warmup 5 of 6 steps: expected at most half"),
        (("--learning-rate", "0"), "learning_rate: expected greater than 0"),
        (("--objective", "bert"), "'bert' is not one of"),
        (("--out", "{tmp}/text/dev.txt"), "dev.txt: a file: expected a folder"),
        (("--out", "{tmp}/text"), "it holds 'dev.txt' and no run"),
        (("none.txt",), "none.txt: no such file"),
        (("{tmp}/text",), "expected each source once"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(pretrain, tmp_path, words, message):
    done = pretrain(*(word.replace("{tmp}", str(tmp_path)) for word in words))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert message in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text"]
    assert sorted(path.name for path in (tmp_path / "text").iterdir()) == ["dev.txt", "test.txt", "train.txt"]


def test_files_one_by_one_are_as_their_folder(tool, pretrain, text, tmp_path):
    assert pretrain().code == 0
    done = tool("pretrain", *sorted(text.iterdir()), "--out", tmp_path / "apart", *PLAIN)
    assert done.code == 0, done.err
    assert "tokens: 1 of the files, by name; 1 named test is left alone." in done.out
    assert alike(tmp_path / "out" / "model", tmp_path / "apart" / "model")
    for name in ("train", "test"):
        (text / f"{name}.txt").unlink()
    (text / "rows.jsonl").write_text('{"body": "a cat sat on the mat and saw a dog."}\n' * 80)
    done = tool("pretrain", text / "dev.txt", text / "rows.jsonl", "--out", tmp_path / "rows", *PLAIN)
    assert "rows.jsonl:1: no field 'text'; it has 'body'" in done.err
    (text / "rows.jsonl").write_text('{"body": "a cat sat on the mat and saw a dog."}\n' * 80)
    done = tool("pretrain", text / "rows.jsonl", "--text-field", "body", "--out", tmp_path / "rows", *PLAIN)
    assert "rows.jsonl: no dev text: what no name calls train, dev or test is cut by a hash of each row" in done.err


def test_what_is_dev_is_told(tool, text, tmp_path):
    (text / "dev.txt").unlink()
    written(text / "train.txt", 4000, 0)
    done = tool("pretrain", text, "python", "--out", tmp_path / "out", *SMALL, "--steps", 2)
    assert done.code == 0, done.err
    said = (
        "a twentieth of 1 of the files, by a hash of each document; 1 named test is left alone; of python, some modules"
    )
    assert said in " ".join(done.out.split())


def test_a_file_without_text(tool, tmp_path):
    (tmp_path / "empty.txt").touch()
    done = tool("pretrain", tmp_path / "empty.txt", "--out", tmp_path / "out", *PLAIN)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "the file is empty: expected text" in done.err


def test_a_loss_that_is_none(pretrain, tmp_path):
    done = pretrain("--learning-rate", 1e30, "--warmup", 0)
    assert (done.code, done.out) == (2, "")
    assert "lower " in done.err.splitlines()[-1]
    assert not (tmp_path / "out" / "model").exists()


def test_a_folder_in_use_a_torn_checkpoint_and_settings(pretrain, tmp_path, monkeypatch):
    monkeypatch.setattr(tools_pretrained, "Spaced", lambda seconds, hook: hook)

    def stopping(self: Watch, run: Run) -> None:
        if run.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "__call__", stopping)
        assert pretrain().code == 130
    out = tmp_path / "out"
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process is running there" in pretrain().err
    (saved,) = (out / "runs" / "pretrain" / "checkpoint").glob("step-*")
    held = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(held[:-10])
    torn = pretrain()
    assert (torn.code, torn.err.count("\n")) == (2, 2)
    assert torn.err.startswith("going on from step 2 of 6\nshoestring: ")
    assert "model.safetensors" in torn.err
    assert "torn" in torn.err
    (out / "settled.json").write_text("{")
    assert "settled.json: torn" in pretrain().err


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes."""
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_text_that_was_packed_stays_where_it_is_stopped_before_the_first_step(pretrain, tmp_path, monkeypatch, error):
    with monkeypatch.context() as patch:
        patch.setattr(tools_pretrain_ground, "settle", lambda *_, **__: (_ for _ in ()).throw(error))
        assert pretrain().code != 0
    packed = tmp_path / "out" / "tokens" / "train"
    before = {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    assert before
    assert pretrain().code == 0
    assert {path: path.stat().st_mtime_ns for path in packed.iterdir()} == before


def test_a_folder_that_another_process_makes_meanwhile_is_its_own(pretrain, tmp_path, monkeypatch):
    def made_by_another(out: Path) -> list[Path]:
        new = missing(out)
        out.mkdir()
        lock.append((out / ".lock").open("w"))
        fcntl.flock(lock[0], fcntl.LOCK_EX)
        return new

    missing, lock = tools_pretrained.missing, []
    monkeypatch.setattr(tools_pretrained, "missing", made_by_another)
    done = pretrain()
    lock[0].close()
    assert "another process is running there" in done.err
    assert (tmp_path / "out").is_dir()


@pytest.mark.parametrize("spaced", [True, False])
def test_a_full_disk(pretrain, tmp_path, monkeypatch, spaced):
    if not spaced:
        monkeypatch.setattr(tools_pretrained, "Spaced", lambda seconds, hook: hook)
    with small_disk(50_000):
        done = pretrain()
    assert done.code == 2, done.err
    assert "File too large" in done.err.splitlines()[-1]
    assert not (tmp_path / "out" / "model").exists()
    assert pretrain().code == 0
