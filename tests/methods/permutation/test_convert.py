from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    Trainer,
    TrainingArguments,
    XLNetConfig,
    XLNetForMultipleChoice,
    XLNetForQuestionAnswering,
    XLNetForQuestionAnsweringSimple,
    XLNetForSequenceClassification,
    XLNetForTokenClassification,
    XLNetLMHeadModel,
    XLNetModel,
)

from shoestring.methods.permutation.backbone import TwoStream
from shoestring.methods.permutation.convert import from_transformers, to_transformers
from shoestring.methods.permutation.orders import perm_mask


def draw_targets(rows: int, length: int, count: int) -> Tensor:
    return torch.stack([torch.randperm(length)[:count].sort()[0] for _ in range(rows)])


def near(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def near_gradients(theirs: nn.Module, ours: nn.Module) -> None:
    """As near as the sums they are of allow: gradients of up to some hundred, in fp64."""
    weights = dict(ours.named_parameters())
    assert list(weights) == [name for name, _ in theirs.named_parameters()]
    for name, weight in theirs.named_parameters():
        if weight.grad is None:
            assert weights[name].grad is None, name
            continue
        torch.testing.assert_close(weights[name].grad, weight.grad, rtol=0, atol=1e-10, msg=name)


# the same numbers


@pytest.mark.parametrize(
    "changes",
    [
        {"mem_len": 7, "reuse_len": 6},
        {"mem_len": 20, "reuse_len": 6},
        {"mem_len": None, "reuse_len": None},
        {"mem_len": 5, "reuse_len": 0, "clamp_len": 4},
        {"mem_len": 7, "reuse_len": 6, "bi_data": True},
        {"mem_len": 7, "reuse_len": 6, "bi_data": True, "clamp_len": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("segments", [False, True])
def test_two_streams_with_memory(
    changes: dict[str, Any], segments: bool, pair: Callable[..., Any], ordered: Callable[..., Any]
) -> None:
    theirs, ours = pair(**changes, use_mems_train=True)
    their_memory = our_memory = None
    for _ in range(3):
        ids, kinds = torch.randint(17, (4, 11)), torch.randint(3, (4, 11)) if segments else None
        rank, sees = ordered(4, 11)
        targets = draw_targets(4, 11, 5)
        mapping = nn.functional.one_hot(targets, 11).double()
        wanted = theirs(
            ids,
            perm_mask=perm_mask(rank, sees).double(),
            target_mapping=mapping,
            token_type_ids=kinds,
            mems=their_memory,
            use_mems=True,
        )
        found = ours(ids, rank=rank, sees=sees, targets=targets, token_type_ids=kinds, mems=our_memory, use_mems=True)
        near(found.logits, wanted.logits)
        for one, other in zip(found.mems, wanted.mems, strict=True):
            near(one, other)
        their_memory, our_memory = wanted.mems, found.mems
        upstream = torch.randn_like(wanted.logits) / 10
        theirs.zero_grad()
        ours.zero_grad()
        wanted.logits.backward(upstream)
        found.logits.backward(upstream)
        near_gradients(theirs, ours)


def test_as_many_targets_as_tokens(pair: Callable[..., Any], ordered: Callable[..., Any]) -> None:
    theirs, ours = pair()
    ids, (rank, sees) = torch.randint(17, (2, 6)), ordered(2, 6)
    targets = torch.stack([torch.randperm(6) for _ in range(2)])
    mapping = nn.functional.one_hot(targets, 6).double()
    wanted = theirs(ids, perm_mask=perm_mask(rank, sees).double(), target_mapping=mapping).logits
    near(ours(ids, rank=rank, sees=sees, targets=targets).logits, wanted)


@pytest.mark.parametrize("kind", ["bi", "uni"])
@pytest.mark.parametrize("both", [False, True])
def test_the_content_stream_alone(kind: str, both: bool, pair: Callable[..., Any]) -> None:
    theirs, ours = pair(attn_type=kind, bi_data=both, mem_len=None)
    their_memory = our_memory = None
    for _ in range(3):
        ids, kinds = torch.randint(17, (2, 7)), torch.randint(3, (2, 7))
        given = {"token_type_ids": kinds, "use_mems": True, "output_hidden_states": True, "labels": ids}
        wanted, found = theirs(ids, mems=their_memory, **given), ours(ids, mems=our_memory, **given)
        near(found.logits, wanted.logits)
        assert len(found.hidden_states) == len(wanted.hidden_states) == 4
        for one, other in zip(found.hidden_states, wanted.hidden_states, strict=True):
            near(one, other)
        their_memory, our_memory = wanted.mems, found.mems
    wanted.loss.backward()
    found.loss.backward()
    near_gradients(theirs, ours)


@pytest.mark.parametrize("kind", ["bi", "uni"])
def test_padding_at_the_left(kind: str, pair: Callable[..., Any]) -> None:
    theirs, ours = pair(attn_type=kind)
    for start in (0, 3, 5):  # row by row: from left to right, theirs fails on more
        ids, real = torch.randint(17, (1, 8)), (torch.arange(8) >= start).long()[None]
        wanted, found = (model(ids, attention_mask=real.double()).logits for model in (theirs, ours))
        near(found[:, start:], wanted[:, start:])


def test_an_order_and_padding(pair: Callable[..., Any], ordered: Callable[..., Any]) -> None:
    theirs, ours = pair()
    ids, (rank, sees) = torch.randint(17, (3, 8)), ordered(3, 8)
    rank[:, 5], sees[:, 5] = -1, 0
    real = (torch.arange(8) >= torch.tensor([[0], [3], [5]])).long()
    targets = torch.tensor([[5, 7], [6, 7], [5, 6]])
    mapping = nn.functional.one_hot(targets, 8).double()
    order = {"perm_mask": perm_mask(rank, sees).double(), "target_mapping": mapping}
    wanted = theirs(ids, attention_mask=real.double(), **order).logits
    near(ours(ids, attention_mask=real, rank=rank, sees=sees, targets=targets).logits, wanted)


@pytest.mark.parametrize("switch", ["call", "configuration"])
def test_tuples_and_hidden_states_where_they_are_asked_for(switch: str, pair: Callable[..., Any]) -> None:
    wishes = {"return_dict": False, "output_hidden_states": True}
    theirs, ours = pair()
    if switch == "configuration":
        for model in (theirs, ours):
            model.config.return_dict, model.config.output_hidden_states = False, True
    ids = torch.randint(17, (2, 5))
    given = wishes if switch == "call" else {}
    wanted, found = theirs(ids, **given), ours(ids, **given)
    assert isinstance(found, tuple)
    assert len(found) == len(wanted) == 3  # logits, memory, states
    near(found[0], wanted[0])
    assert len(found[2]) == 4


HEADS: dict[type, dict[str, Any]] = {
    XLNetForSequenceClassification: {"labels": torch.tensor([0, 2, 1])},
    XLNetForTokenClassification: {"labels": torch.tensor([[-100] * 4 + [0, 2, 1]] * 3)},
    XLNetForQuestionAnsweringSimple: {
        "start_positions": torch.tensor([4, 5, 6]),
        "end_positions": torch.tensor([6] * 3),
    },
    XLNetForQuestionAnswering: {"start_positions": torch.tensor([4, 5, 6]), "end_positions": torch.tensor([6] * 3)},
    XLNetForMultipleChoice: {"labels": torch.tensor([1])},
}


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
@pytest.mark.parametrize("padded", [False, True])
def test_heads_give_what_they_gave(head: type, padded: bool, pair: Callable[..., Any]) -> None:
    theirs, ours = pair(head, num_labels=2 if head is XLNetForQuestionAnsweringSimple else 3, summary_last_dropout=0.0)
    given = HEADS[head]
    ids, kinds = torch.randint(17, (3, 7)), torch.randint(3, (3, 7))
    real = (torch.arange(7) >= torch.tensor([[0], [2], [4]])).double() if padded else None
    positions = "start_positions" in given
    if head is XLNetForMultipleChoice:
        ids, kinds = ids[None], kinds[None]
        real = None if real is None else real[None]
    if positions and padded:
        given = {}  # their loss is over padding, too, whose states differ
    inputs = {"token_type_ids": kinds, "attention_mask": real, **given}
    wanted, found = theirs(ids, **inputs), ours(ids, **inputs)
    loss, their_loss = found.get("loss"), wanted.get("loss")
    if loss is not None:
        near(loss, their_loss)
        loss.backward()
        their_loss.backward()
        near_gradients(theirs, ours)
    for name in ("logits", "start_logits", "end_logits"):
        if name in wanted:
            by_token = real is not None and wanted[name].shape[:2] == ids.shape
            some = real.bool() if by_token and real is not None else ...
            near(found[name][some], wanted[name][some])


# the same weights


def test_nothing_is_copied_and_names_stay(pair: Callable[..., Any]) -> None:
    theirs, _ = pair()
    before = {name: weight.data_ptr() for name, weight in theirs.state_dict().items()}
    embedding = theirs.transformer.word_embedding
    assert from_transformers(theirs) is theirs
    assert isinstance(theirs.transformer, TwoStream)
    assert theirs.base_model is theirs.transformer
    assert theirs.get_input_embeddings() is embedding
    assert theirs.lm_loss.weight is embedding.weight
    assert {name: weight.data_ptr() for name, weight in theirs.state_dict().items()} == before
    assert from_transformers(theirs) is theirs  # once more changes nothing
    assert to_transformers(theirs) is theirs
    assert isinstance(theirs.transformer, XLNetModel)
    assert {name: weight.data_ptr() for name, weight in theirs.state_dict().items()} == before
    assert not any(weight.is_meta for weight in [*theirs.parameters(), *theirs.buffers()])


@pytest.mark.parametrize("training", [False, True])
def test_there_and_back_logits_and_mode_stay(training: bool, pair: Callable[..., Any]) -> None:
    theirs, ours = pair(dtype=torch.float32, dropout=0.1)
    ids = torch.randint(17, (2, 6))
    wanted = theirs(ids).logits
    kinds = dict(ours.named_modules())
    back = to_transformers(ours.train(training))
    assert all(module.training == training for module in back.modules())
    assert back.transformer.layer[0].rel_attn is kinds["transformer.layer.0.rel_attn"]
    assert torch.equal(back.eval()(ids).logits, wanted)
    assert not back.supports_gradient_checkpointing
    torch.testing.assert_close(from_transformers(back)(ids).logits, wanted, rtol=1e-4, atol=1e-5)


def test_saved_it_is_a_model_of_transformers(tmp_path: Path, pair: Callable[..., Any]) -> None:
    theirs, ours = pair(dtype=torch.float32)
    ids = torch.randint(17, (2, 6))
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    config, plain = ((tmp_path / name / "config.json").read_text() for name in ("ours", "theirs"))
    assert config == plain
    loaded = XLNetLMHeadModel.from_pretrained(tmp_path / "ours").eval()
    assert torch.equal(loaded(ids).logits, theirs(ids).logits)
    reverse = from_transformers(XLNetLMHeadModel.from_pretrained(tmp_path / "theirs")).eval()
    assert torch.equal(reverse(ids).logits, ours(ids).logits)
    assert reverse.lm_loss.weight is reverse.transformer.word_embedding.weight
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


def test_a_copy_is_a_model_of_its_own(tiny: Callable[..., Any]) -> None:
    model, ids = tiny(), torch.randint(17, (2, 6))
    other = copy.deepcopy(model)
    assert other.lm_loss.weight is other.transformer.word_embedding.weight
    assert torch.equal(other(ids).logits, model(ids).logits)
    nn.init.zeros_(other.lm_loss.weight)
    assert not torch.equal(other(ids).logits, model(ids).logits)


@pytest.mark.parametrize("size", [12, 25])
def test_the_vocabulary_can_grow_and_shrink(size: int, tmp_path: Path, pair: Callable[..., Any]) -> None:
    theirs, ours = pair(dtype=torch.float32)
    ids = torch.randint(12, (2, 6))
    for model in (theirs, ours):
        model.resize_token_embeddings(size, mean_resizing=False)
    found = ours(ids).logits
    assert found.shape == (2, 6, size)
    assert ours.config.vocab_size == size
    assert ours.lm_loss.weight is ours.transformer.word_embedding.weight is ours.get_input_embeddings().weight
    few = min(size, 17)
    torch.testing.assert_close(found[..., :few], theirs(ids).logits[..., :few], rtol=1e-4, atol=1e-5)
    ours.save_pretrained(tmp_path)
    loaded = XLNetLMHeadModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(ids).logits, found, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_in_bfloat16(tmp_path: Path, pair: Callable[..., Any], ordered: Callable[..., Any]) -> None:
    """As transformers loads one: weights that it makes by themselves stay in fp32, and its own body fails on them."""
    theirs, _ = pair(dtype=torch.float32, initializer_range=0.2)
    theirs.to(torch.bfloat16).save_pretrained(tmp_path)
    model = from_transformers(XLNetLMHeadModel.from_pretrained(tmp_path, dtype=torch.bfloat16)).eval()
    assert model.lm_loss.weight.dtype == torch.bfloat16
    ids, targets = torch.randint(17, (2, 6)), draw_targets(2, 6, 3)
    order = dict(zip(("rank", "sees"), ordered(2, 6), strict=True))
    found = model(ids, **order, targets=targets, use_mems=True)
    assert found.logits.dtype == found.mems[0].dtype == torch.bfloat16
    model.to(torch.bfloat16)
    assert torch.equal(model(ids, **order, targets=targets).logits, found.logits)
    wanted = model.float()(ids, **order, targets=targets).logits
    assert (found.logits - wanted).norm() < 0.03 * wanted.norm()


# training


@pytest.mark.filterwarnings("ignore:.*checkpointing.* is deprecated:FutureWarning")  # the old name is in all versions
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(
    reentrant: bool, tiny: Callable[..., Any], ordered: Callable[..., Any]
) -> None:
    model, ids = tiny(dropout=0.2).train(), torch.randint(17, (2, 7))
    order = dict(zip(("rank", "sees"), ordered(2, 7), strict=True))
    mems = [torch.randn(3, 2, 8, dtype=torch.float64) for _ in range(3)]
    gradients, calls = [], []
    for layer in model.transformer.layer:
        layer.ff.register_forward_pre_hook(lambda *_: calls.append(1))
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.zero_grad()
        calls.clear()
        torch.manual_seed(1)
        found = model(ids, **order, targets=torch.tensor([[1, 2], [3, 4]]), token_type_ids=ids % 2, mems=mems)
        found.logits.square().sum().backward()
        assert len(calls) == (6 if checkpointing else 3)
        gradients.append([weight.grad.clone() for weight in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*checkpointing.* is deprecated:FutureWarning")
def test_trainer_trains_it_and_gathers_gradients_as_of_one_batch(tmp_path: Path, pair: Callable[..., Any]) -> None:
    """Two batches of a step are one of twice the size; their counts of tokens go to no part of the model."""
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(17, (4, 6))]
    weights = []
    for batch, gathered in ((4, 1), (2, 2)):
        _, model = pair(dtype=torch.float32)
        arguments = TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=gathered,
            gradient_checkpointing=gathered > 1,
            max_steps=1,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0.0,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        before = model.transformer.mask_emb.clone(), model.transformer.word_embedding.weight.clone()
        Trainer(model, arguments, train_dataset=rows).train()
        assert not torch.equal(model.transformer.word_embedding.weight, before[1])
        weights.append([weight.detach().clone() for weight in model.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


# mistakes


def bare(**changes: Any) -> XLNetConfig:
    return XLNetConfig(vocab_size=5, d_model=8, n_layer=1, n_head=2, d_inner=8, **changes)


def test_models_without_such_a_body_are_refused() -> None:
    bert = BertForMaskedLM(
        BertConfig(vocab_size=5, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    )
    with pytest.raises(
        ValueError, match="BertForMaskedLM: expected an XLNet of transformers, such as XLNetLMHeadModel"
    ):
        from_transformers(bert)
    with pytest.raises(
        ValueError, match="BertForMaskedLM: its body is no two-stream one: there is nothing to turn back"
    ):
        to_transformers(bert)
    body = XLNetModel(bare())
    with pytest.raises(
        ValueError, match="XLNetModel alone: give it a head, or take `TwoStream` itself: expected an XLNet"
    ):
        from_transformers(body)
    plain = XLNetLMHeadModel(bare())
    with pytest.raises(
        ValueError, match="XLNetLMHeadModel: its body is no two-stream one: there is nothing to turn back"
    ):
        to_transformers(plain)


def test_kinds_of_attention_that_are_not_computed_here_are_refused() -> None:
    model = XLNetLMHeadModel(bare(same_length=True))
    with pytest.raises(
        ValueError, match="attn_type 'bi' with same_length True: expected 'bi' or 'uni', without same_le"
    ):
        from_transformers(model)
    model = XLNetLMHeadModel(bare(attn_type="new"))
    with pytest.raises(ValueError, match="attn_type 'new' with same_length False: expected 'bi' or 'uni'"):
        from_transformers(model)


def test_a_body_alone_gives_states(pair: Callable[..., Any]) -> None:
    theirs, ours = pair()
    ids = torch.randint(17, (2, 5))
    body = TwoStream(theirs.transformer).eval()
    near(body(ids).last_hidden_state, theirs.transformer(ids).last_hidden_state)
    near(body(ids).last_hidden_state, ours.transformer(ids).last_hidden_state)


def test_generation_is_for_the_body_of_transformers(pair: Callable[..., Any]) -> None:
    theirs, ours = pair(dtype=torch.float32)
    ids = torch.randint(17, (1, 4))
    with pytest.raises(ValueError, match="perm_mask: expected rank and sees"):
        ours.generate(ids, max_new_tokens=2)
    back = to_transformers(ours)
    back.transformer.relative_positional_encoding = theirs.transformer.relative_positional_encoding
    wanted = theirs.generate(ids, max_new_tokens=2, do_sample=False)
    assert torch.equal(back.generate(ids, max_new_tokens=2, do_sample=False), wanted)
