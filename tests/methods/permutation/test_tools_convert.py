"""Converting from the command line: whatever a folder holds, both bodies are seen to agree before it is written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, XLNetConfig, XLNetLMHeadModel

from shoestring.data import tokenizers
from shoestring.methods.permutation import tools_opened, vocabulary
from shoestring.methods.permutation.convert import from_transformers
from shoestring.methods.permutation.tools_converted import TOLERANCE, compared
from shoestring.models import pretrained
from shoestring.train import checkpoint, optim
from shoestring.types import Run


@pytest.fixture
def call(tool: Callable[..., SimpleNamespace]) -> Callable[..., SimpleNamespace]:
    """`shoestring permutation convert …`."""
    return partial(tool, "convert")


def made(kind: str = "XLNetLMHeadModel", **changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    shape = {"vocab_size": 260, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32, "initializer_range": 0.2}
    return getattr(transformers, kind)(XLNetConfig(**shape | {"mem_len": 20, "reuse_len": 8} | changes)).eval()


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    "kind",
    [
        "XLNetLMHeadModel",
        "XLNetModel",
        "XLNetForSequenceClassification",
        "XLNetForMultipleChoice",
        "XLNetForQuestionAnsweringSimple",
        "XLNetForQuestionAnswering",
        "XLNetForTokenClassification",
    ],
)
def test_any_head_of_transformers(call, tmp_path, kind):
    model = made(kind)
    model.save_pretrained(tmp_path / "from")
    done = call(tmp_path / "from", "--out", tmp_path / "to")
    assert done.code == 0, done.err
    assert done.out.startswith("largest difference: ")
    assert float(done.out.split()[2]) < 1e-5
    assert f"{kind}, {sum(one.numel() for one in model.parameters()):,} parameters in float32" in done.out
    assert "it holds no tokenizer" in done.out
    loaded, found = getattr(transformers, kind).from_pretrained(tmp_path / "to", output_loading_info=True)
    assert not any(found.values())
    assert same(loaded, model)


@pytest.mark.parametrize(
    "changes",
    [
        {"mem_len": None, "reuse_len": None},
        {"bi_data": True, "clamp_len": 5},
        {"attn_type": "uni"},
        {"dropout": 0.5, "use_mems_eval": False},
    ],
    ids=str,
)
def test_the_bodies_agree_and_the_model_is_left_as_it_was(changes):
    model = made(**changes)
    body = type(model.transformer)
    difference, largest, what = compared(model)
    assert difference < 1e-5 < 0.1 < largest
    assert what == "logits"
    assert type(model.transformer) is body


def test_weights_of_torchs_own_kind_and_a_tokenizer(call, tmp_path):
    model, (tokenizer, _) = made(), vocabulary.prepared(tokenizers.byte_tokenizer())
    (tmp_path / "from").mkdir()
    torch.save(model.state_dict(), tmp_path / "from" / "pytorch_model.bin")
    model.config.save_pretrained(tmp_path / "from")
    tokenizer.save_pretrained(tmp_path / "from")
    done = call(tmp_path / "from", "--out", tmp_path / "to", "--dtype", "bfloat16")
    assert done.code == 0, done.err
    assert "in bfloat16\n" in done.out
    assert "say .to(torch.bfloat16) of what is loaded" in done.out
    loaded = XLNetLMHeadModel.from_pretrained(tmp_path / "to").to(torch.bfloat16)
    assert same(loaded, model.to(torch.bfloat16))
    assert {weight.dtype for weight in load_file(tmp_path / "to" / "model.safetensors").values()} == {torch.bfloat16}
    assert AutoTokenizer.from_pretrained(tmp_path / "to").sep_token == "<sep>"
    stored = call(tmp_path / "to", "--out", tmp_path / "again")
    assert "in bfloat16" in stored.out, "as it is stored"


def test_a_checkpoint_of_a_run(call, tmp_path):
    model, (tokenizer, _) = from_transformers(made()).train(), vocabulary.prepared(tokenizers.byte_tokenizer())

    class Nothing:
        def __iter__(self):
            return iter(())

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    saved = checkpoint.save(tmp_path / "run", Run(model, optim.adamw(model, 1e-3), Nothing()), tokenizer=tokenizer)
    done = call(saved, "--out", tmp_path / "to")
    assert done.code == 0, done.err
    assert same(XLNetLMHeadModel.from_pretrained(tmp_path / "to"), made())
    model, tokenizer = pretrained.load(tmp_path / "to")
    assert len(tokenizer) == 260
    (saved / "config.json").write_text((saved / "config.json").read_text() + " ")
    assert "config.json: " in call(saved, "--out", tmp_path / "other").err
    assert not (tmp_path / "other").exists()


def test_bodies_that_differ_are_refused(call, tmp_path, monkeypatch):
    made().save_pretrained(tmp_path / "from")
    monkeypatch.setattr("shoestring.methods.permutation.layout.distances", lambda *_: torch.zeros(1, 1, 1))
    monkeypatch.setattr(
        "shoestring.methods.permutation.backbone.distances",
        lambda width, length, memory, *_: torch.zeros(1, 2 * length + memory, width),
    )
    done = call(tmp_path / "from", "--out", tmp_path / "to")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "the bodies differ by " in done.err
    assert f"expected {TOLERANCE:g} of that at most; nothing was written" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["from"]


def test_weights_that_are_none_or_too_large(call, tmp_path):
    model = made()
    with torch.no_grad():
        model.lm_loss.bias[3] = 1e6
    model.save_pretrained(tmp_path / "large")
    done = call(tmp_path / "large", "--out", tmp_path / "to", "--dtype", "float16")
    assert done.code == 2
    assert "--dtype float16: weights of" in done.err
    with torch.no_grad():
        model.lm_loss.bias[3] = torch.nan
    model.save_pretrained(tmp_path / "nan")
    assert "tensor lm_loss.bias holds NaN or infinity" in call(tmp_path / "nan", "--out", tmp_path / "to").err
    assert not (tmp_path / "to").exists()


def test_what_is_not_whole_is_refused(call, tmp_path):
    model = made()
    model.save_pretrained(tmp_path / "from")
    config = (tmp_path / "from" / "config.json").read_text()
    words = (tmp_path / "from", "--out", tmp_path / "to")
    (tmp_path / "from" / "config.json").write_text(config.replace("XLNetLMHeadModel", "XLNetWeird"))
    assert "its architectures are ['XLNetWeird']: expected one of XLNetLMHeadModel" in call(*words).err
    (tmp_path / "from" / "config.json").write_text(config.replace("LMHeadModel", "ForSequenceClassification"))
    assert "the weights lack logits_proj.bias and 3 more" in call(*words).err
    (tmp_path / "from" / "config.json").write_text(config.replace('"d_inner": 32', '"d_inner": 48'))
    assert "has shape (32,) in the file, (48,) by config.json" in call(*words).err
    (tmp_path / "from" / "config.json").write_text(config.replace('"same_length": false', '"same_length": true'))
    assert "expected 'bi' or 'uni', without same_length" in call(*words).err
    (tmp_path / "to").mkdir()
    done = call(*words)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "it exists already: give the name of a new folder" in done.err


def test_the_folder_of_a_finished_run_is_that_of_its_model(tmp_path):
    made().save_pretrained(tmp_path / "run" / "model")
    assert tools_opened.folder_of(str(tmp_path / "run")) == tmp_path / "run" / "model"
    with pytest.raises(ValueError, match=r"holds no config.json, nor a model's folder"):
        tools_opened.folder_of(str(tmp_path))
