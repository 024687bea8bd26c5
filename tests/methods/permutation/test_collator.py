"""The collator: any examples, and batches that transformers' XLNet learns the right thing from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments, XLNetConfig, XLNetLMHeadModel, set_seed

from shoestring.data import tokenizers
from shoestring.methods.permutation.collator import PermutationCollator
from shoestring.methods.permutation.orders import HIDDEN
from shoestring.methods.permutation.vocabulary import prepared
from shoestring.types import Batch

TEXTS = [f"the cat number {number} sat on the mat. the dog {number * 7} ran over it" for number in range(60)]
TOKENIZER = prepared(tokenizers.train_bpe(TEXTS, 280))[0]
EOS, SEP, CLS, PAD = range(279, 283)


def example(*ids: int, **others: list[int]) -> dict[str, Any]:
    return {"input_ids": list(ids), **others}


def encoded(count: int) -> list[dict[str, Any]]:
    return [{"input_ids": [*TOKENIZER.encode(text), SEP, CLS]} for text in TEXTS[:count]]


def same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def model() -> XLNetLMHeadModel:
    torch.manual_seed(0)
    config = XLNetConfig(vocab_size=len(TOKENIZER), d_model=16, n_layer=2, n_head=2, d_inner=32, dropout=0.0)
    return XLNetLMHeadModel(config)


def test_a_batch_of_rows_of_different_lengths() -> None:
    collator = PermutationCollator(TOKENIZER, predicted=0.5, spans="single", seed=0)
    batch = collator([example(5, 6, 7, 8, 9, SEP, CLS), example(10, 11, 12)])
    assert batch.keys() == {"input_ids", "labels", "rank", "sees", "targets"}
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, SEP, CLS], [10, 11, 12, PAD, PAD, PAD, PAD]]
    targets, labels, rank, sees = (batch[name] for name in ("targets", "labels", "rank", "sees"))
    assert targets.shape == labels.shape == (2, 2)
    assert (targets >= 0).all()
    assert torch.equal(labels, batch["input_ids"].gather(1, targets))
    assert (rank[1, 3:] == HIDDEN).all()
    assert (sees[1, 3:] == 0).all()
    assert (sees[0, 5:] == rank[0, 5:] + 1).all()  # functional
    assert {name: tensor.dtype for name, tensor in batch.items()} == {
        "input_ids": torch.int64,
        "labels": torch.int64,
        "rank": torch.int32,
        "sees": torch.int32,
        "targets": torch.int64,
    }


def test_rows_without_an_ordinary_token_do_no_harm() -> None:
    collator = PermutationCollator(TOKENIZER, seed=0)
    batch = collator([example(), example(SEP, CLS), example(*range(12))])
    assert batch["targets"][:2].tolist() == [[-1, -1]] * 2
    assert batch["labels"][:2].tolist() == [[-100, -100]] * 2
    assert (batch["targets"][2] >= 0).all()
    assert (batch["rank"][0] == HIDDEN).all()


@pytest.mark.parametrize("rows", [[[]], [[SEP, CLS]], [[SEP], [], [CLS]]])
def test_nothing_to_predict(rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"^nothing to predict: all tokens of these examples are special"):
        PermutationCollator(TOKENIZER, seed=0)([example(*row) for row in rows])


@st.composite
def batches(draw: st.DrawFn) -> list[dict[str, Any]]:
    row = st.lists(st.integers(0, 278) | st.sampled_from([EOS, SEP, CLS]), max_size=40)
    return [example(*ids) for ids in [draw(row), [5], *draw(st.lists(row, max_size=3))]]


@given(
    examples=batches(),
    predicted=st.sampled_from([0.01, 0.15, 1 / 6, 0.5, 1.0]),
    spans=st.sampled_from(["words", "tokens", "single"]),
    block=st.none() | st.integers(1, 50),
    unit=st.none() | st.integers(1, 9),
    seed=st.integers(0, 2**64 - 1),
)
def test_whatever_is_collated(
    examples: list[dict[str, Any]], predicted: float, spans: Any, block: int | None, unit: int | None, seed: int
) -> None:
    collator = PermutationCollator(TOKENIZER, predicted, spans, block, unit, seed=seed)
    batch = collator(examples)
    longest = max(1, *(len(one["input_ids"]) for one in examples))
    assert longest <= batch["input_ids"].shape[1] < longest + (unit or 1)
    assert batch["input_ids"].shape[1] % (unit or 1) == 0
    for row, one in enumerate(examples):
        ids, count = one["input_ids"], len(one["input_ids"])
        assert batch["input_ids"][row].tolist() == ids + [PAD] * (batch["input_ids"].shape[1] - count)
        assert (batch["rank"][row] == HIDDEN).tolist() == [False] * count + [True] * (len(batch["rank"][row]) - count)
        ordinary = [at for at, number in enumerate(ids) if number not in (SEP, CLS)]
        targets = batch["targets"][row].tolist()
        there = [at for at in targets if at >= 0]
        assert targets == there + [-1] * (len(targets) - len(there))
        assert there == sorted(set(there))
        assert set(there) <= set(ordinary)
        assert len(there) == (max(1, round(predicted * len(ordinary))) if ordinary else 0)
        assert batch["labels"][row].tolist() == [ids[at] for at in there] + [-100] * (len(targets) - len(there))
        for at in there:
            assert batch["rank"][row, at] == batch["sees"][row, at]


def test_padding_that_is_there_already_is_left_out() -> None:
    collator = PermutationCollator(TOKENIZER, seed=0)
    masked = collator([example(PAD, PAD, 5, 6, 7, attention_mask=[0, 0, 1, 1, 1], token_type_ids=[3, 3, 0, 0, 1])])
    assert masked["input_ids"].tolist() == [[5, 6, 7]]
    assert masked["token_type_ids"].tolist() == [[0, 0, 1]]
    assert collator([example(PAD, 5, 6, 7, PAD)])["input_ids"].tolist() == [[5, 6, 7]]


def test_segments_are_padded_by_the_tokenizers_own() -> None:
    collator = PermutationCollator(TOKENIZER, seed=0)
    batch = collator([example(5, 6, token_type_ids=[0, 1]), example(5, token_type_ids=[2])])
    assert batch["token_type_ids"].tolist() == [[0, 1], [2, TOKENIZER.pad_token_type_id]]


def test_an_example_may_say_which_tokens_are_special() -> None:
    collator = PermutationCollator(TOKENIZER, predicted=1.0, seed=0)
    batch = collator([example(5, 6, 7, SEP, special_tokens_mask=[0, 1, 0, 0])])
    assert batch["targets"].tolist() == [[0, 2, 3]]
    assert collator([example(5, EOS, 7, SEP)])["targets"].tolist() == [[0, 1, 2]]


def test_tensors_and_arrays_are_as_good_as_lists() -> None:
    ids = list(range(20))
    made = [
        PermutationCollator(TOKENIZER, seed=4)([{"input_ids": kind}])
        for kind in (ids, torch.tensor(ids), np.array(ids))
    ]
    assert same(made[0], made[1])
    assert same(made[0], made[2])


def test_a_tokenizer_without_padding() -> None:
    tokenizer = tokenizers.train_bpe(TEXTS, 280)
    assert tokenizer.pad_token_id is None
    batch = PermutationCollator(tokenizer, seed=0)([example(5, 6, 7), example(5)])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [5, 0, 0]]
    assert (batch["rank"][1, 1:] == HIDDEN).all()


def test_spans_are_of_whole_words() -> None:
    ids = TOKENIZER.encode(". ".join(TEXTS[:20]))
    tokens = TOKENIZER.convert_ids_to_tokens(ids)

    def share(spans: Any) -> float:
        """Of predicted tokens that go on in a word: how often the token before is predicted too."""
        collator, together = PermutationCollator(TOKENIZER, spans=spans, seed=0), []
        for _ in range(50):
            targets = collator([example(*ids)])["targets"][0].tolist()
            together += [at - 1 in targets for at in targets if at and tokens[at].isalpha() and tokens[at][0] != "Ġ"]
        return sum(together) / len(together)

    assert share("words") > 0.75 > 0.35 > share("single")


def test_for_transformers_says_the_same() -> None:
    examples = [*encoded(3), example(SEP, CLS), example()]
    ours = PermutationCollator(TOKENIZER, seed=1)(examples)
    theirs = PermutationCollator(TOKENIZER, seed=1, for_transformers=True)(examples)
    assert theirs.keys() == {"input_ids", "labels", "attention_mask", "perm_mask", "target_mapping"}
    assert torch.equal(theirs["input_ids"], ours["input_ids"])
    assert torch.equal(theirs["labels"], ours["labels"])
    assert torch.equal(theirs["attention_mask"] == 0, ours["rank"] == HIDDEN)
    seen = ours["rank"][:, None] < ours["sees"][:, :, None]
    assert torch.equal(theirs["perm_mask"] == 0, seen)
    assert torch.equal(theirs["target_mapping"].sum(2), (ours["targets"] >= 0).float())
    positions = torch.arange(ours["rank"].shape[1]).float()
    assert torch.equal(theirs["target_mapping"] @ positions, ours["targets"].clamp(min=0).float())


def influence(batch: Batch) -> Tensor:
    """(P, S) of the first row: how much each prediction of transformers' model depends on each input."""
    network = model().eval()
    inputs = network.transformer.word_embedding(batch["input_ids"]).detach().requires_grad_()
    masks = {name: batch[name] for name in ("attention_mask", "perm_mask", "target_mapping")}
    logits = network(inputs_embeds=inputs, **masks).logits[0]
    rows = [torch.autograd.grad(one.square().sum(), inputs, retain_graph=True)[0][0] for one in logits]
    return torch.stack([row.abs().sum(-1) for row in rows])


def test_transformers_model_sees_what_comes_before_in_the_order_and_nothing_else() -> None:
    """What the public collator lacks: an earlier target's own token, and no look at a later one."""
    examples = [*encoded(2), example(5)]
    examples[0]["input_ids"] = [*examples[0]["input_ids"][:25], SEP, CLS]
    for seed in range(3):
        ours = PermutationCollator(TOKENIZER, predicted=0.4, seed=seed)(examples)
        theirs = PermutationCollator(TOKENIZER, predicted=0.4, seed=seed, for_transformers=True)(examples)
        targets = ours["targets"][0]
        found = influence(theirs)
        rank, sees = ours["rank"][0], ours["sees"][0]
        for row, at in enumerate(targets.tolist()):
            if at < 0:
                continue
            before = rank < sees[at]
            assert (found[row][~before] == 0).all()
            assert (found[row][before] > 0).all()


def test_one_batch_through_transformers_model() -> None:
    batch = PermutationCollator(TOKENIZER, seed=0, for_transformers=True)([*encoded(3), example(SEP, CLS), example()])
    network = model()
    output = network(**batch)
    assert output.logits.shape == (*batch["labels"].shape, len(TOKENIZER))
    expected = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), batch["labels"].flatten())
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    output.loss.backward()
    gradients = [one.grad for one in network.parameters() if one.grad is not None]
    assert all(one.isfinite().all() for one in gradients)
    assert any((one != 0).any() for one in gradients)


def test_a_seed_gives_the_same_again_and_goes_on() -> None:
    one, other = PermutationCollator(TOKENIZER, seed=3), PermutationCollator(TOKENIZER, seed=3)
    first, second = one(encoded(4)), one(encoded(4))
    assert same(first, other(encoded(4)))
    assert not same(first, second)
    assert not same(first, PermutationCollator(TOKENIZER, seed=4)(encoded(4)))


def test_without_a_seed_torch_decides() -> None:
    collator = PermutationCollator(TOKENIZER)
    set_seed(5)
    first, second = collator(encoded(4)), collator(encoded(4))
    set_seed(5)
    assert same(first, collator(encoded(4)))
    assert not same(first, second)


@pytest.mark.parametrize("seed", [None, 3], ids=["of torch", "given"])
def test_workers_and_epochs_draw_anew(seed: int | None) -> None:
    collator = PermutationCollator(TOKENIZER, seed=seed)
    collator(encoded(1))  # what a worker must not go on from
    rows: Any = encoded(1) * 8
    set_seed(0)
    loader: DataLoader[Any] = DataLoader(rows, batch_size=2, num_workers=2, collate_fn=collator)
    drawn = [batch["rank"] for _ in range(2) for batch in loader]
    assert len({tuple(rank.flatten().tolist()) for rank in drawn}) == 8
    set_seed(0)
    again = [batch["rank"] for _ in range(2) for batch in loader]
    assert all(map(torch.equal, drawn, again))


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_trainer(workers: int, tmp_path: Path) -> None:
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        max_steps=4,
        learning_rate=1e-2,
        dataloader_num_workers=workers,
        dataloader_pin_memory=False,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        use_cpu=True,
        disable_tqdm=True,
    )
    collator = PermutationCollator(TOKENIZER, for_transformers=True)
    trainer = Trainer(model=model(), args=arguments, train_dataset=encoded(16), data_collator=collator)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 4
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": 0}, "predicted 0: expected a share of the tokens, above 0 and at most 1"),
        ({"predicted": 6}, "predicted 6: expected a share"),
        ({"spans": "phrases"}, "spans 'phrases': expected one of words, tokens, single"),
        ({"block": 0}, "block is 0: expected one or more"),
        ({"pad_to_multiple_of": 0}, "pad_to_multiple_of is 0: expected one or more"),
        ({"seed": -1}, "seed -1: expected a number from 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_misuse(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PermutationCollator(TOKENIZER, **change)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "no examples: expected one or more"),
        ([{"text": "a", "label": 1}], "an example has no input_ids, but text, label: expected tokenized text"),
        ([{"input_ids": [[1, 2]]}], r"input_ids of an example are of shape \(1, 2\): expected one row of ids"),
        ([example(1, 2, token_type_ids=[0])], r"token_type_ids of an example are of shape \(1,\): expected \(2,\)"),
        ([example(1, token_type_ids=[0]), example(1)], "some of the examples have token_type_ids and some have none"),
        ([example(1, 283)], "tokens from 1 to 283 in a vocabulary of 283: of another tokenizer"),
        ([example(-1)], "tokens from -1 to -1 in a vocabulary of 283: of another tokenizer"),
    ],
    ids=["none", "text", "two rows", "lengths", "some segments", "too large", "negative"],
)
def test_examples_that_are_none(examples: list[dict[str, Any]], message: str) -> None:
    collator = PermutationCollator(TOKENIZER)
    with pytest.raises(ValueError, match=message):
        collator(examples)


def test_a_tokenizer_whose_words_are_not_known_takes_single_tokens() -> None:
    from tokenizers import Tokenizer, models

    backend = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert PermutationCollator(tokenizer, spans="single")([example(0, 1, 1)])["targets"].shape == (1, 1)
    collator = PermutationCollator(tokenizer)
    with pytest.raises(ValueError, match="a BPE vocabulary: expected SentencePiece"):
        collator([example(0, 1, 1)])
