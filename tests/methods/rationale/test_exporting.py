"""Graphs of a student: they compute what torch does at any length, and are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration

from shoestring.data.tokenizers import byte_tokenizer, train_bpe
from shoestring.methods.rationale import courses, exporting
from shoestring.methods.rationale.encode import language_model
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.exported import Exported, decoder_of
from shoestring.methods.rationale.exporting import export
from shoestring.methods.rationale.lessons import Taught, Way
from shoestring.methods.rationale.student import Student
from shoestring.models import presets, seq2seq

EXAMPLES = [
    Example("Is it?", options=("yes", "no", "it cannot be known")),
    Example("Which of these three is it then? Ünïcödé 犬 <|endoftext|>", options=("a", "b", "neither of these")),
    Example("Say something"),
    Example("long " * 200, options=("yes", "no")),
    Example("Short", rationale="It is short."),
]
FAMILIES = ["encoder-decoder", "decoder"]


def small(family: str) -> nn.Module:
    if family == "encoder-decoder":
        shape = {"num_layers": 1, "d_model": 32, "num_heads": 2, "d_kv": 8, "d_ff": 48}
        model = seq2seq.build(seq2seq.configuration("t5-tiny", 257, **shape), 0)
    else:
        shape = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48}
        model = presets.build(presets.configuration("neox-tiny", 257, 128, **shape), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3.0 if family == "encoder-decoder" else 8.0)
    return model


def student(family: str, way: Way = "two-task") -> Student:
    return Student.of(small(family), byte_tokenizer(), Taught(way, source_tokens=64, target_tokens=12))


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Student, Path]:
    """A student, and the graphs that were made of it."""
    one = student(request.param)
    path = tmp_path_factory.mktemp(request.param) / "student.onnx"
    found = export(one, path, {"form": {"columns": ["text"]}})
    assert found.difference < 1e-4
    assert found.files == ([path, decoder_of(path)] if request.param == FAMILIES[0] else [path])
    assert {file.name for file in path.parent.iterdir()} == {file.name for file in found.files}
    assert one.model.training, "the student is as it was"
    return one, path


def test_it_answers_as_the_student(pair: tuple[Student, Path]) -> None:
    one, path = pair
    graphs = Exported.load(path, threads=1)
    for free in (False, True):
        mine, theirs = one.answers(EXAMPLES, True, free), graphs.answers(EXAMPLES, True, free)
        assert [(answer.label, answer.reason) for answer in theirs] == [
            (answer.label, answer.reason) for answer in mine
        ]
        assert [answer.probability for answer in theirs] == [
            pytest.approx(answer.probability, abs=1e-5) if answer.probability else None for answer in mine
        ]
    assert len({answer.reason for answer in mine}) > 1
    assert [*graphs.stream(iter(EXAMPLES), 2)] == graphs.answers(EXAMPLES[:2]) + graphs.answers(
        EXAMPLES[2:4]
    ) + graphs.answers(EXAMPLES[4:])
    assert graphs.answers([]) == []
    assert graphs.notes == {"form": {"columns": ["text"]}}
    assert graphs.taught == one.taught


def test_texts_become_the_same_ids(pair: tuple[Student, Path]) -> None:
    one, path = pair
    words = Exported.load(path).coder
    texts = ["", "a", "ünï 犬", "<|endoftext|>", "long " * 200]
    assert words.sources(texts) == one.coder.sources(texts)
    assert words.targets(texts) == one.coder.targets(texts)
    assert [words.text(ids) for ids in words.targets(texts)] == [
        one.coder.text(ids) for ids in one.coder.targets(texts)
    ]


@pytest.mark.parametrize(("rows", "source", "target"), [(1, 1, 1), (2, 9, 1), (5, 63, 4), (1, 30, 11)])
def test_logits_are_torchs(pair: tuple[Student, Path], rows: int, source: int, target: int) -> None:
    one, path = pair
    graphs, random = Exported.load(path, threads=1), np.random.default_rng(source)
    sources = [random.integers(0, 256, max(1, source - 3 * row)).tolist() for row in range(rows)]
    targets = random.integers(0, 256, (rows, target))
    course = graphs.begun(sources)
    found = course.logits(targets)
    mask, model = torch.from_numpy(course.mask[:, : max(map(len, sources))]), language_model(one.model).eval()
    filled = [[256] * (max(map(len, sources)) - len(line)) for line in sources]
    first = graphs.coder.family == "decoder"  # what fills a decoder's rows up stands first
    ids = torch.tensor([more + line if first else line + more for more, line in zip(filled, sources, strict=True)])
    with torch.no_grad():
        if graphs.coder.family == "decoder":
            whole = torch.cat([ids, torch.from_numpy(targets)], dim=1)
            seen = torch.cat([mask, torch.ones(rows, target, dtype=torch.int64)], dim=1)
            places = (seen.cumsum(1) - 1).clamp(min=0)
            expected = model(input_ids=whole, attention_mask=seen, position_ids=places).logits[:, source - 1 : -1]
        else:
            begun = torch.cat([torch.full((rows, 1), 256), torch.from_numpy(targets[:, :-1])], dim=1)
            expected = model(input_ids=ids, attention_mask=mask, decoder_input_ids=begun).logits
    model.train()
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_torn_and_foreign_files_are_refused(pair: tuple[Student, Path], tmp_path: Path) -> None:
    one, path = pair
    whole = path.read_bytes()
    with pytest.raises(ValueError, match=r"none\.onnx: no such file"):
        Exported.load(tmp_path / "none.onnx")
    (tmp_path / "torn.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"torn\.onnx: torn, or no graph"):
        Exported.load(tmp_path / "torn.onnx")
    (tmp_path / "foreign.onnx").write_bytes(whole.replace(b"shoestring", b"shoestrung"))
    with pytest.raises(ValueError, match=r"foreign\.onnx: a graph, and of no student"):
        Exported.load(tmp_path / "foreign.onnx")
    (tmp_path / "newer.onnx").write_bytes(whole.replace(b'"version": 1', b'"version": 9'))
    with pytest.raises(ValueError, match=r"newer\.onnx: layout 9, this version of shoestring knows 1"):
        Exported.load(tmp_path / "newer.onnx")
    if one.coder.family == "encoder-decoder":
        (tmp_path / "alone.onnx").write_bytes(whole)
        with pytest.raises(ValueError, match=r"alone\.decoder\.onnx: no such file"):
            Exported.load(tmp_path / "alone.onnx")
        with pytest.raises(ValueError, match=r"the decoder of a student: give the file beside it"):
            Exported.load(decoder_of(path))
        other = decoder_of(path).read_bytes()
        told = json.loads(onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["shoestring"])
        (tmp_path / "alone.decoder.onnx").write_bytes(other.replace(told["of"].encode(), b"0" * 16))
        with pytest.raises(ValueError, match=r"the decoder of another student"):
            Exported.load(tmp_path / "alone.onnx")


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([float("nan")], r"differs from it by nan of a log-likelihood: this model cannot be exported"),
        ([0.0, float("nan")], r"in eight bits a .* differs from itself by nan of a log-likelihood: export it without"),
        ([0.0, 30.0], r"in eight bits a .* differs from itself by 30 of a log-likelihood: export it without int8"),
    ],
)
def test_a_graph_that_computes_something_else_is_refused(
    differences: list[float], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_write_all", lambda *_: None)
    monkeypatch.setattr(exporting, "_in_eight_bits", lambda *_: None)
    monkeypatch.setattr(exporting, "_difference", lambda *_: differences.pop(0))
    with pytest.raises(ValueError, match=said):
        export(student("decoder"), tmp_path / "a.onnx", int8=True)
    assert list(tmp_path.iterdir()) == []
    assert differences == []


@pytest.mark.parametrize(("family", "kind"), [("encoder-decoder", "_After"), ("decoder", "_On")])
def test_graphs_that_go_wrong_only_as_they_write_are_refused(
    family: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(courses, kind).step
    monkeypatch.setattr(getattr(courses, kind), "step", lambda self, before=None: right(self))  # as if nothing was
    with pytest.raises(ValueError, match="of a log-likelihood: this model cannot be exported"):
        export(student(family), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_with_learnt_positions(tmp_path: Path) -> None:
    """BART's takes each column for a position, whatever the mask."""
    sizes = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}
    sides = {f"{side}_{what}": size for side in ("encoder", "decoder") for what, size in sizes.items()}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"), 256)
    torch.manual_seed(0)
    told = {"vocab_size": 257, "d_model": 32, "max_position_embeddings": 128, "forced_eos_token_id": None}
    model = BartForConditionalGeneration(BartConfig(**told, **sides, **special, dropout=0.0))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8.0)
    one = Student.of(model, byte_tokenizer(), Taught("two-task", source_tokens=64, target_tokens=12))
    assert export(one, tmp_path / "a.onnx").difference < 1e-4
    mine, theirs = one.answers(EXAMPLES), Exported.load(tmp_path / "a.onnx").answers(EXAMPLES)
    assert [answer.label for answer in theirs] == [answer.label for answer in mine]


def test_without_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'shoestring\[rationale\]'"):
        export(student("decoder"), tmp_path / "a.onnx")


def test_other_ways_half_precision_eight_bits_and_a_vocabulary(tmp_path: Path) -> None:
    tokenizer = train_bpe([example.text for example in EXAMPLES] * 4, 280)
    shape = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48}
    model = presets.build(presets.configuration("neox-tiny", 280, 128, **shape), 0).to(torch.bfloat16)
    one = Student.of(model, tokenizer, Taught("single-task", source_tokens=64, target_tokens=12))
    found = export(one, tmp_path / "a.onnx", int8=True)
    assert model.dtype == torch.bfloat16, "the student is as it was"
    answers = Exported.load(tmp_path / "a.onnx").answers(EXAMPLES, reasons=True)
    assert len(answers) == len(EXAMPLES)
    assert found.difference < 1.0
