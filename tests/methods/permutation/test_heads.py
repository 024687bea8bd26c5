"""Heads: what they are made of, against transformers' own bodies, saved and loaded, and fitted in a bare loop."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    XLNetConfig,
    XLNetLMHeadModel,
    XLNetModel,
)

from shoestring.data import tokenizers
from shoestring.methods.permutation.answers import best_spans, spans
from shoestring.methods.permutation.backbone import TwoStream
from shoestring.methods.permutation.convert import from_transformers, to_transformers
from shoestring.methods.permutation.features import choices, classification, collate
from shoestring.methods.permutation.heads import Kind, with_head
from shoestring.methods.permutation.vocabulary import Vocabulary, prepared

KINDS: tuple[Kind, ...] = ("classification", "spans", "choices")
LABELS: dict[Kind, list[str] | None] = {"classification": ["no", "maybe", "yes"], "spans": None, "choices": None}
AUTO: dict[Kind, Any] = {
    "classification": AutoModelForSequenceClassification,
    "spans": AutoModelForQuestionAnswering,
    "choices": AutoModelForMultipleChoice,
}
TOKENIZER = prepared(tokenizers.byte_tokenizer())[0]
VOCABULARY = Vocabulary.of(TOKENIZER)
ENCODE = tokenizers.encoder(TOKENIZER)


def pretrained(**changes: Any) -> XLNetLMHeadModel:
    given = {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32, "initializer_range": 0.2, "reuse_len": 3}
    config = XLNetConfig(vocab_size=VOCABULARY.size, **{**given, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: XLNetLMHeadModel = from_transformers(XLNetLMHeadModel(config)).eval()
    return model


def a_batch(kind: Kind) -> dict[str, torch.Tensor]:
    if kind == "classification":
        texts = [("a text", "and more", "no"), ("longer than all the others", None, "yes"), ("b", "c", "maybe")]
        labels = ["no", "maybe", "yes"]
        rows = [classification(VOCABULARY, ENCODE, *two, 30, label, labels) for *two, label in texts]
        return collate(rows, VOCABULARY.pad)
    if kind == "choices":
        questions = [("a story", "who?", ["he", "she"], 1), ("another one", "_ went", ["nobody", "he"], 0)]
        return collate([choices(VOCABULARY, ENCODE, *one, 30, right) for *one, right in questions], VOCABULARY.pad)
    windows = spans(VOCABULARY, TOKENIZER, "who?", "Anna came and went.", 20, 6, [(0, "Anna")])
    return collate(windows, VOCABULARY.pad)


def logits(output: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What is not of padding: of spans, whose heads read every token, that is another in each body."""
    if "logits" in output:
        return torch.as_tensor(output.logits)
    there = batch["attention_mask"].bool()
    return torch.cat([output.start_logits[there], output.end_logits[there]])


def test_a_head_by_hand() -> None:
    model = pretrained(dropout=0.1)
    headed = with_head(model, "classification", ["no", "maybe", "yes"], dropout=0.3, seed=1)
    config = headed.config
    assert type(headed).__name__ == "XLNetForSequenceClassification"
    assert isinstance(headed.transformer, TwoStream)
    assert config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    assert config.label2id == {"no": 0, "maybe": 1, "yes": 2}
    assert (config.use_mems_train, config.use_mems_eval, config.mem_len, config.reuse_len) == (False, False, None, None)
    assert not config.bi_data
    assert {part.p for part in headed.modules() if isinstance(part, torch.nn.Dropout)} == {0.3}
    assert headed.logits_proj.weight.shape == (3, 16)
    assert not headed.logits_proj.bias.any()
    frozen = [name for name, parameter in headed.named_parameters() if not parameter.requires_grad]
    assert frozen == ["transformer.mask_emb"]


def test_the_body_is_copied_and_the_model_left_as_it_was() -> None:
    model = pretrained()
    before = model.config.to_dict()
    first, second = (with_head(model, "classification", ["a", "b"], seed=seed) for seed in (0, 1))
    for name, weight in model.transformer.state_dict().items():
        for headed in (first, second):
            copied = headed.transformer.state_dict()[name]
            assert torch.equal(copied, weight)
            assert copied.data_ptr() != weight.data_ptr()
    assert model.config.to_dict() == before
    assert first.config is not second.config
    assert first.transformer.config is first.config
    assert not torch.equal(first.logits_proj.weight, second.logits_proj.weight)


def test_the_head_is_drawn_from_the_seed_alone() -> None:
    torch.manual_seed(3)
    first, state = with_head(pretrained(), "choices", seed=5), torch.get_rng_state()
    torch.manual_seed(4)
    second = with_head(pretrained(), "choices", seed=5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    torch.manual_seed(3)
    assert torch.equal(state, torch.get_rng_state())
    wide = with_head(pretrained(d_model=64, initializer_range=0.02), "choices")
    assert wide.sequence_summary.summary.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_a_head_replaces_another() -> None:
    entailment = with_head(pretrained(), "classification", ["no", "maybe", "yes"])
    answers = with_head(entailment, "spans")
    assert answers.config.id2label == {0: "start", 1: "end"}
    assert answers.config.problem_type is None
    assert answers.qa_outputs.weight.shape == (2, 16)
    assert with_head(answers, "classification", ["a", "b"]).config.num_labels == 2


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluating"])
def test_precision_and_mode_are_the_models(mode: bool) -> None:
    headed = with_head(pretrained().to(torch.bfloat16).train(mode), "spans")
    assert {parameter.dtype for parameter in headed.parameters()} == {torch.bfloat16}
    assert {part.training for part in headed.modules()} == {mode}


def test_bodies_of_transformers_and_bare_ones_give_the_same() -> None:
    model = pretrained()
    wanted = with_head(model, "choices")(**a_batch("choices")).logits
    plain = to_transformers(model)
    assert torch.equal(with_head(plain, "choices")(**a_batch("choices")).logits, wanted)
    assert isinstance(plain.transformer, XLNetModel)
    assert torch.equal(with_head(plain.transformer, "choices")(**a_batch("choices")).logits, wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("attention", "padded"),
    [("bi", True), ("bi", False), ("uni", False)],  # the masks of transformers do not fit together in the fourth case
    ids=["bi, padded", "bi", "uni"],
)
def test_against_transformers(kind: Kind, padded: bool, attention: str) -> None:
    headed = with_head(pretrained(attn_type=attention).double(), kind, LABELS[kind])
    reference = type(headed)(headed.config).double().eval()
    reference.load_state_dict(headed.state_dict())
    assert isinstance(reference.transformer, XLNetModel)
    batch = a_batch(kind)
    given = {name: tensor for name, tensor in batch.items() if padded or name != "attention_mask"}
    found, wanted = headed(**given), reference(**given)
    torch.testing.assert_close(logits(found, batch), logits(wanted, batch), rtol=0, atol=1e-10)
    if not padded or kind != "spans":  # transformers' loss of spans counts padding among what is no answer
        torch.testing.assert_close(found.loss, wanted.loss, rtol=0, atol=1e-10)
    assert found.mems is None


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_as_any_model_of_transformers(kind: Kind, tmp_path: Path) -> None:
    headed = with_head(pretrained(), kind, LABELS[kind])
    headed.save_pretrained(tmp_path)
    loaded = AUTO[kind].from_pretrained(tmp_path)
    assert type(loaded) is type(headed)
    assert loaded.config.id2label == headed.config.id2label
    batch = a_batch(kind)
    wanted = logits(headed(**batch), batch)
    torch.testing.assert_close(logits(loaded(**batch), batch), wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(logits(from_transformers(loaded)(**batch), batch), wanted)


def fit(model: PreTrainedModel, batch: dict[str, torch.Tensor], steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.eval()


WORDS = [f"{first}{second}" for first in ("ka", "lo", "mi", "nu") for second in ("ra", "se", "ti", "vo")]


def test_a_bare_loop_fits_a_classification() -> None:
    labels = ["left", "right"]
    told = [labels[place % 3 == 0] for place in range(16)]
    rows = [
        classification(VOCABULARY, ENCODE, word, WORDS[-place], 24, label, labels)
        for place, (word, label) in enumerate(zip(WORDS, told, strict=True))
    ]
    model = with_head(pretrained(), "classification", labels, dropout=0.0)
    batch = collate(rows, VOCABULARY.pad)
    fit(model, batch, 100)
    found = model(**batch).logits.argmax(1).tolist()
    assert [model.config.id2label[place] for place in found] == told


def test_a_bare_loop_fits_choices() -> None:
    rows = [
        choices(
            VOCABULARY, ENCODE, f"it is {word}", "which?", [WORDS[place - 1], word, WORDS[place - 2]], 40, place % 3
        )
        for place, word in enumerate(WORDS)
    ]
    model = with_head(pretrained(), "choices", dropout=0.0)
    batch = collate(rows, VOCABULARY.pad)
    fit(model, batch, 200)
    assert model(**batch).logits.argmax(1).tolist() == [place % 3 for place in range(16)]


def test_a_bare_loop_fits_spans() -> None:
    contexts = [f"so {word} met {7 * place + 10} of {WORDS[place - 1]}" for place, word in enumerate(WORDS)]
    golds = [str(7 * place + 10) for place in range(16)]
    asked = [
        spans(VOCABULARY, TOKENIZER, "how many?", context, 26, 8, [(context.index(gold), gold)])
        for context, gold in zip(contexts, golds, strict=True)
    ]
    model = with_head(pretrained(), "spans", dropout=0.0)
    fit(model, collate([window for windows in asked for window in windows], VOCABULARY.pad), 150)
    said = []
    for windows in asked:
        output = model(**collate(windows, VOCABULARY.pad))
        said.append(best_spans(windows, output.start_logits, output.end_logits).best())
    assert said == golds


def test_a_trainer_fits_it(tmp_path: Path) -> None:
    labels = ["left", "right"]
    rows = [classification(VOCABULARY, ENCODE, word, None, 24, labels["a" in word], labels) for word in WORDS]
    model = with_head(pretrained(), "classification", labels, dropout=0.0)
    settings = TrainingArguments(
        str(tmp_path),
        max_steps=60,
        learning_rate=3e-3,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(model, settings, partial(collate, pad=VOCABULARY.pad), rows, rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before / 10


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("tags", {}, "head 'tags': expected one of classification, spans, choices"),
        ("classification", {}, "labels of a classification: none: expected two or more"),
        ("classification", {"labels": ["one"]}, r"\['one'\]: expected two or more, all different"),
        ("classification", {"labels": ["a", "a"]}, "all different"),
        ("spans", {"labels": ["a", "b"]}, "labels of spans: .* expected none"),
        ("choices", {"dropout": 1.0}, "dropout 1.0: expected a share"),
    ],
)
def test_what_is_refused(kind: Any, given: dict[str, Any], message: str) -> None:
    model = pretrained()
    with pytest.raises(ValueError, match=message):
        with_head(model, kind, **given)


def test_only_an_xlnet_gets_a_head() -> None:
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    with pytest.raises(ValueError, match="a BertModel: expected an XLNet"):
        with_head(model, "choices")
