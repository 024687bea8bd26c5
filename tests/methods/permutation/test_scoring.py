"""Joint probabilities: they sum to one over all spans, under any order, and are what the model says token by token."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import permutations, product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from shoestring.data import tokenizers
from shoestring.methods.permutation.configurations import build, configuration
from shoestring.methods.permutation.convert import to_transformers
from shoestring.methods.permutation.scoring import (
    SpanScore,
    causal,
    compensated,
    independent,
    masked,
    masked_in_turn,
    memories,
    permuted,
    span_log_prob,
)

Score = Callable[..., Tensor]
V = 4
SCORES: list[Score] = [permuted, compensated, independent, masked, masked_in_turn, causal]
JOINT: list[Score] = [permuted, compensated, masked_in_turn]


@pytest.fixture
def model(tiny: Callable[..., Any]) -> Any:
    return tiny(vocab_size=V)


def every(row: list[int], places: list[int]) -> Tensor:
    """The row with all spans there can be at the places."""
    rows = torch.tensor(row).repeat(V ** len(places), 1)
    for at, span in enumerate(product(range(V), repeat=len(places))):
        rows[at, places] = torch.tensor(span)
    return rows


def at(places: list[int], rows: int = 1) -> Tensor:
    return torch.tensor(places).repeat(rows, 1)


# by hand


def test_a_model_that_knows_nothing(model: Any) -> None:
    nn.init.zeros_(model.transformer.word_embedding.weight)
    nn.init.zeros_(model.lm_loss.bias)
    ids = torch.tensor([[0, 1, 2, 3, 0], [3, 3, 3, 3, 3]])
    for score in SCORES:
        found = score(model, ids, at([1, 2, 4], 2))
        assert torch.allclose(found, torch.full((2, 3), -math.log(V), dtype=torch.float64), atol=1e-12)


def test_what_is_told_first_is_told_without_the_others(model: Any) -> None:
    ids = torch.tensor([[0, 1, 2, 3, 0, 2]])
    for places in permutations([1, 2, 4]):
        found, apart = permuted(model, ids, at([*places])), independent(model, ids, at([*places]))
        assert torch.allclose(found[:, 0], apart[:, 0], atol=1e-12)
        assert (found[:, 1:] - apart[:, 1:]).abs().min() > 1e-6


def test_of_several_blocks_the_earlier_is_told_first(model: Any) -> None:
    """Whatever the order says: an earlier block is seen by a later one, and not the other way."""
    ids = torch.tensor([[0, 1, 2, 3, 0, 2]])
    found, other = permuted(model, ids, at([1, 2, 4]), 3)[0], permuted(model, ids, at([4, 1, 2]), 3)[0]
    assert torch.allclose(found, other[[1, 2, 0]], atol=1e-12)
    assert torch.allclose(permuted(model, ids, at([0, 5, 3, 2, 1, 4]), 1).sum(), causal_like(model, ids), atol=1e-12)


def causal_like(model: Any, ids: Tensor) -> Tensor:
    """Blocks of one token are told from left to right."""
    rank = torch.arange(ids.shape[1])[None]
    logits = model(ids, rank=rank, sees=rank, targets=rank).logits
    found: Tensor = logits.log_softmax(-1).gather(2, ids[..., None]).sum()
    return found


# the chain rule


@pytest.mark.parametrize("block", [None, 3])
@pytest.mark.parametrize("score", SCORES)
def test_probabilities_of_all_spans_sum_to_one_under_any_order(score: Score, block: int | None, model: Any) -> None:
    row = [0, 1, 2, 3, 1, 0]
    for chosen in ([1, 2, 4], [3, 4, 5], [2, 3], [5]):  # within a block of three, and across two
        orders = [chosen] if score is causal else [list(order) for order in permutations(chosen)]
        for places in orders:
            rows = every(row, places)
            found = score(model, rows, at(places, len(rows)), block)
            assert found.dtype == torch.float64
            assert found.sum(1).exp().sum().item() == pytest.approx(1, abs=1e-9), (places, block)


@pytest.mark.parametrize("score", [permuted, masked_in_turn])
def test_all_sequences_from_nothing(score: Score, model: Any) -> None:
    """Nothing is given: the whole row is the span."""
    for places in ([0, 1, 2], [2, 0, 1]):
        rows = every([0, 0, 0], places)
        assert score(model, rows, at(places, len(rows))).sum(1).exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("score", [*JOINT, causal])
def test_each_is_given_those_before_it(score: Score, model: Any) -> None:
    places = [3, 4] if score is causal else [4, 3]
    rows = every([0, 1, 2, 3, 1, 0], places)
    found = score(model, rows, at(places, len(rows))).view(V, V, 2)
    assert torch.allclose(found[:, :, 0], found[:, :1, 0], atol=1e-12), "the first hangs on itself alone"
    given_first = found[..., 1].exp()
    assert torch.allclose(given_first.sum(1), torch.ones(V).double(), atol=1e-12), "a distribution, whatever the first"
    assert (given_first[0] - given_first[1]).abs().max() > 1e-4


@pytest.mark.parametrize("block", [None, 3])
@pytest.mark.parametrize("score", [independent, masked])
def test_apart_no_place_is_told_to_another(score: Score, block: int | None, model: Any) -> None:
    for places in ([4, 3], [1, 2], [2, 3], [3, 2]):  # the last two in blocks of their own
        rows = every([0, 1, 2, 3, 1, 0], places)
        found = score(model, rows, at(places, len(rows)), block).view(V, V, 2)
        assert torch.allclose(found[:, :, 0], found[:, :1, 0], atol=1e-12)
        assert torch.allclose(found[:, :, 1], found[:1, :, 1], atol=1e-12)


# against what is slow and obvious


@pytest.mark.parametrize("score", [permuted, compensated])
def test_against_an_order_spelled_out(score: Score, model: Any) -> None:
    ids = torch.randint(V, (3, 7), generator=torch.Generator().manual_seed(0))
    for places in permutations([1, 4, 5]):
        rank, sees = torch.full((1, 7), -1), torch.zeros(1, 7, dtype=torch.int64)
        rank[0, [*places]] = sees[0, [*places]] = torch.arange(3)
        extra = {"compensate": 7} if score is compensated else {}
        for row in range(3):
            found = score(model, ids[row : row + 1], at([*places]))[0]
            logits = model(ids[row : row + 1], rank=rank, sees=sees, targets=at([*places]), **extra).logits[0]
            for turn, place in enumerate(places):
                likely = logits[turn].log_softmax(0)[ids[row, place]]
                assert found[turn].item() == pytest.approx(likely.item(), abs=1e-12)


def test_masked_against_embeddings_that_are_masked(pair: Callable[..., Any]) -> None:
    theirs, ours = pair(vocab_size=V)
    ids, places = torch.tensor([[0, 1, 2, 3, 1, 0]]), [4, 1, 2]

    def likely(hidden: list[int], place: int) -> float:
        read = theirs.transformer.word_embedding(ids)
        read[:, hidden] = theirs.transformer.mask_emb[0, 0]
        scores: Tensor = theirs(inputs_embeds=read).logits[0, place].log_softmax(0)
        return scores[ids[0, place]].item()

    with torch.no_grad():
        assert masked(ours, ids, at(places))[0].tolist() == pytest.approx(
            [likely(places, one) for one in places], abs=1e-9
        )
        expected = [likely(places[turn:], one) for turn, one in enumerate(places)]
        assert masked_in_turn(ours, ids, at(places))[0].tolist() == pytest.approx(expected, abs=1e-9)


def test_causal_against_a_loop_that_cuts_the_text(pair: Callable[..., Any]) -> None:
    theirs, ours = pair(vocab_size=V)
    ids, places = torch.tensor([[0, 1, 2, 3, 1, 0]]), [1, 2, 5]
    later = torch.triu(torch.ones(6, 6, dtype=torch.float64), 1)
    expected = []
    for place in places:
        scores = theirs(ids[:, :place], perm_mask=later[None, :place, :place]).logits[0, -1].log_softmax(0)
        expected.append(scores[ids[0, place]].item())
    assert causal(ours, ids, at(places))[0].tolist() == pytest.approx(expected, abs=1e-9)


BUILT = build(configuration("xlnet-tiny", 9, d_model=8, n_head=1, d_inner=8), 0).double().eval()


@settings(max_examples=40)
@given(st.integers(0, 2**16), st.integers(1, 4), st.integers(1, 8))
def test_a_block_sees_none_after_it(seed: int, count: int, block: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(9, (1, 8), generator=generator)
    places = torch.randperm(8, generator=generator)[None, :count]
    end = (int(places.max()) // block + 1) * block
    other = ids.clone()
    other[:, end:] = (other[:, end:] + 1) % 9
    for score in (permuted, compensated, independent, masked, masked_in_turn):
        assert torch.equal(score(BUILT, ids, places, block), score(BUILT, other, places, block))


@pytest.mark.parametrize("score", SCORES)
def test_it_is_read_from_left_to_right_whatever_pretraining_did(score: Score, tiny: Callable[..., Any]) -> None:
    ids = torch.tensor([[0, 1, 2, 3, 1, 0], [1, 1, 2, 0, 1, 3]])
    found = [score(tiny(vocab_size=V, bi_data=both), ids, at([1, 3], 2)) for both in (False, True)]
    assert torch.equal(*found)
    assert score(tiny(vocab_size=V, bi_data=True), ids[:1], at([1, 3])).shape == (1, 2), "a row has no half"


# text


@pytest.mark.parametrize("order", ["blocks", "causal"])
def test_what_is_remembered_is_what_the_model_leaves_step_by_step(order: str, tiny: Callable[..., Any]) -> None:
    model = tiny(vocab_size=V, mem_len=6, reuse_len=None)
    before = torch.randint(V, (2, 8))
    found = memories(model, before, 3, causal=order == "causal")
    mems = None
    for part in (before[:, :3], before[:, 3:6], before[:, 6:]):
        places = torch.arange(part.shape[1], dtype=torch.int32).expand_as(part)
        seen = {"rank": places, "sees": places} if order == "causal" else {}
        mems = model(part, **seen, mems=mems, use_mems=True).mems
    assert [layer.shape for layer in found] == [(6, 2, model.config.d_model)] * model.config.n_layer
    assert all(torch.equal(one, two) for one, two in zip(found, mems, strict=True))
    row, places = torch.randint(V, (2, 5)), at([2, 3], 2)
    assert not torch.allclose(permuted(model, row, places, past={"mems": found}), permuted(model, row, places))


@pytest.fixture(scope="module")
def spelled() -> PreTrainedTokenizerFast:
    """Words of two letters and more are one token where they are frequent."""
    return tokenizers.train_bpe(["the cat sat on the mat, the cat sat " * 5], 262)


@pytest.fixture(scope="module")
def reader(spelled: PreTrainedTokenizerFast) -> Any:
    return build(configuration("xlnet-tiny", len(spelled), initializer_range=0.5), 0).double()


TEXT = "the cat sat on the mat"


def pieces(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[Tensor, list[tuple[int, int]]]:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return torch.tensor([encoded["input_ids"]]), encoded["offset_mapping"]


def test_spans_of_a_text_are_what_permuted_says(spelled: PreTrainedTokenizerFast, reader: Any) -> None:
    ids, offsets = pieces(spelled, TEXT)
    spans = [(4, 11), (0, len(TEXT)), (5, 6)]
    for order in ("left-to-right", "right-to-left"):
        found = span_log_prob(reader, spelled, TEXT, spans, order)  # type: ignore[arg-type]
        for (start, end), one in zip(spans, found, strict=True):
            places = [place for place, (first, last) in enumerate(offsets) if first < end and last > start]
            if order == "right-to-left":
                places.reverse()
            assert one.text == TEXT[start:end]
            assert one.tokens == tuple(TEXT[slice(*offsets[place])] for place in places)
            expected = permuted(reader, ids, at(places))[0].tolist()
            assert one.log_probabilities == pytest.approx(expected, abs=1e-12)
            assert one.total == pytest.approx(sum(expected), abs=1e-12)
    assert reader.training, "it is in the mode that it was in"


def test_a_body_of_transformers_is_refused(spelled: PreTrainedTokenizerFast, reader: Any) -> None:
    """It would ignore the order, and say nothing."""
    plain = to_transformers(copy.deepcopy(reader))
    with pytest.raises(ValueError, match="the model's body is transformers' own, not two-stream: pass it to from_tr"):
        span_log_prob(plain, spelled, TEXT, [(4, 11)])


def test_an_order_of_ones_own(spelled: PreTrainedTokenizerFast, reader: Any) -> None:
    ids, offsets = pieces(spelled, TEXT)
    count = sum(first < 11 and last > 4 for first, last in offsets)
    own = [*range(1, count), 0]
    first, second = span_log_prob(reader, spelled, TEXT, [(4, 11), (0, 1)], [own, [0]])
    places = [place for place, (one, last) in enumerate(offsets) if one < 11 and last > 4]
    expected = permuted(reader, ids, at([places[place] for place in own]))[0].tolist()
    assert first.log_probabilities == pytest.approx(expected, abs=1e-12)
    assert len(second.tokens) == 1
    straight = span_log_prob(reader, spelled, TEXT, [(4, 11)])[0]
    assert sorted(straight.tokens) == sorted(first.tokens)
    assert straight.log_probabilities != first.log_probabilities


def test_a_token_that_a_span_cuts_is_scored_whole(spelled: PreTrainedTokenizerFast, reader: Any) -> None:
    _, offsets = pieces(spelled, TEXT)
    first, last = next((first, last) for first, last in offsets if last - first > 2)
    (found,) = span_log_prob(reader, spelled, TEXT, [(first + 1, first + 2)])
    assert found.text == TEXT[first + 1 : first + 2]
    assert found.tokens == (TEXT[first:last],)


def test_letters_of_more_than_a_byte(reader: Any) -> None:
    """Each byte is a token, all of the same letter."""
    (found,) = span_log_prob(reader, tokenizers.byte_tokenizer(), "the café", [(7, 8)])
    assert found.tokens == ("é", "é")


def test_a_total_is_a_sum() -> None:
    assert SpanScore("ab", ("a", "b"), (-1.5, -0.25)).total == -1.75


@pytest.mark.parametrize("span", [(-1, 2), (3, 3), (5, 4), (0, 99)])
def test_a_span_that_is_none(span: tuple[int, int], spelled: PreTrainedTokenizerFast, reader: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"^span {span[0]} to {span[1]} of a text of 22 characters: expected one inside it$"
    ):
        span_log_prob(reader, spelled, TEXT, [(0, 1), span])


def test_a_model_that_sees_nothing_after_a_token(spelled: PreTrainedTokenizerFast, reader: Any) -> None:
    reader.config.attn_type = "uni"
    try:
        with pytest.raises(ValueError, match=r"^the model sees nothing after a token"):
            span_log_prob(reader, spelled, "abc", [(0, 1)])
    finally:
        reader.config.attn_type = "bi"


@pytest.mark.parametrize(
    ("objective", "how"), [("permutation", permuted), ("mpnet", compensated), ("masked", masked_in_turn)]
)
def test_told_as_the_configuration_says_that_it_was_taught(objective: str, how: Score, reader: Any) -> None:
    reader.config.pretraining_objective = objective
    try:
        (found,) = span_log_prob(reader, tokenizers.byte_tokenizer(), "abcde", [(1, 4)], "right-to-left")
    finally:
        del reader.config.pretraining_objective
    ids = torch.tensor([list(b"abcde")])
    with torch.no_grad():
        expected = how(reader, ids, torch.tensor([[3, 2, 1]]))[0]
    assert found.log_probabilities == tuple(expected.tolist())


def test_an_objective_that_is_none(reader: Any) -> None:
    reader.config.pretraining_objective = "guessing"
    try:
        with pytest.raises(ValueError, match=r"^the configuration's pretraining_objective is 'guessing': expected one"):
            span_log_prob(reader, tokenizers.byte_tokenizer(), "abc", [(0, 1)])
    finally:
        del reader.config.pretraining_objective


def test_a_span_that_holds_no_token(reader: Any) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="b")
    with pytest.raises(ValueError, match=r"^span 1 to 2, ' ', holds no token: expected text$"):
        span_log_prob(reader, words, "a b", [(1, 2)])


def test_what_the_tokenizer_does_not_know_is_not_scored(reader: Any) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert len(span_log_prob(reader, words, "a zebra", [(0, 1)])) == 1, "it may stand beside"
    with pytest.raises(ValueError, match=r"^span 2 to 7, 'zebra', has what the tokenizer does not know"):
        span_log_prob(reader, words, "a zebra", [(2, 7)])


def test_letters_of_a_special_token_are_letters(reader: Any) -> None:
    (found,) = span_log_prob(reader, tokenizers.byte_tokenizer(), "a <|endoftext|>", [(2, 15)])
    assert "".join(found.tokens) == "<|endoftext|>"
    assert len(found.tokens) == 13


@pytest.mark.parametrize("order", [[[0, 0]], [[0]], [[1, 2]], [], "backwards"])
def test_an_order_that_is_none(order: Any, reader: Any) -> None:
    with pytest.raises(ValueError, match=r"^the order \[.*\] of span 0: expected each of its 2 tokens once, from 0$"):
        span_log_prob(reader, tokenizers.byte_tokenizer(), "abc", [(0, 2)], order)
