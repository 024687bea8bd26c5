from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from shoestring.methods.permutation.layout import Layout, blockwise
from shoestring.methods.permutation.orders import HIDDEN


def draw_targets(rows: int, length: int, count: int) -> Tensor:
    return torch.stack([torch.randperm(length)[:count].sort()[0] for _ in range(rows)])


# by hand


def test_a_prediction_with_nothing_to_see_reads_its_position_alone(tiny: Callable[..., Any]) -> None:
    """The first target of a sequence without context: its only input is w, through the layers' feed-forward."""
    model = tiny()
    body, states = model.transformer, model.transformer.mask_emb[0]
    for layer in body.layer:
        states = layer.ff(layer.rel_attn.layer_norm(states))
    wanted = model.lm_loss(states)[0]
    rank = torch.tensor([[2, 0, 1], [1, 2, 0]])
    for ids in (torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[7, 8, 9], [9, 9, 9]])):
        found = model(ids, rank=rank, sees=rank, targets=torch.tensor([[1], [2]])).logits
        torch.testing.assert_close(found[:, 0], wanted.expand(2, -1))


def test_the_memory_is_of_the_reused_part_of_all_that_was(tiny: Callable[..., Any]) -> None:
    model = tiny(mem_len=5, reuse_len=3, n_layer=2)
    ids = torch.randint(17, (2, 4))
    first = model(ids, use_mems=True, output_hidden_states=True)
    assert [memory.shape for memory in first.mems] == [(3, 2, 8)] * 2
    for memory, states in zip(first.mems, first.hidden_states, strict=False):
        assert torch.equal(memory, states[:, :3].transpose(0, 1))
        assert not memory.requires_grad
    assert torch.equal(first.mems[0][:, 1], model.transformer.word_embedding(ids[1, :3]))
    second = model(ids.flip(1), mems=first.mems, use_mems=True, output_hidden_states=True)
    for memory, before, states in zip(second.mems, first.mems, second.hidden_states, strict=False):
        assert torch.equal(memory, torch.cat([before, states[:, :3].transpose(0, 1)])[-5:])
    assert torch.equal(second.mems[0][:2], first.mems[0][1:])


@pytest.mark.parametrize("training", [False, True])
def test_the_configuration_says_whether_there_is_a_memory(training: bool, tiny: Callable[..., Any]) -> None:
    model = tiny(use_mems_train=False, use_mems_eval=True).train(training)
    ids = torch.zeros(1, 3, dtype=torch.int64)
    assert (model(ids).mems is None) == training
    assert model(ids, use_mems=False).mems is None
    assert model(ids, use_mems=True).mems is not None


# leaks: the gradient of a prediction in what it must not know is 0, exactly


class Seen(NamedTuple):
    """For each row of the batch, prediction and input: whether any gradient is left, and whether it may be."""

    found: Tensor
    allowed: Tensor

    def exact(self) -> bool:
        return torch.equal(self.found, self.allowed)

    def leaks(self) -> bool:
        return bool((self.found & ~self.allowed).any())


def looked_at(logits: Tensor, inputs: Tensor) -> Tensor:
    """(B, P, inputs) bool: whether the logits of a target have a gradient in an input."""
    weights = torch.randn_like(logits)
    gradients = [
        torch.autograd.grad((logits * weights)[:, one].sum(), inputs, retain_graph=True)[0]
        for one in range(logits.shape[1])
    ]
    return torch.stack([(gradient != 0).any(-1) for gradient in gradients], 1)


def embedded(rows: int, length: int) -> Tensor:
    return torch.randn(rows, length, 8, dtype=torch.float64, requires_grad=True)


def look(model: Any, rank: Tensor, sees: Tensor, targets: Tensor, **others: Any) -> Seen:
    inputs = embedded(*rank.shape)
    logits = model(inputs_embeds=inputs, rank=rank, sees=sees, targets=targets, **others).logits
    return Seen(looked_at(logits, inputs), rank[:, None] < sees.gather(1, targets)[:, :, None])


@pytest.mark.parametrize("block", [9, 5])
@pytest.mark.parametrize(
    "others", [{}, {"bidirectional": True}, {"compensate": True}, {"token_type_ids": True}], ids=str
)
def test_a_prediction_sees_what_is_before_it_and_nothing_else(
    block: int, others: dict[str, Any], tiny: Callable[..., Any], ordered: Callable[..., Any]
) -> None:
    others = dict(others)
    if "compensate" in others:
        others["compensate"] = block
    if "token_type_ids" in others:
        others["token_type_ids"] = torch.randint(2, (4, 9))
    for seed in range(2):
        rank, sees = ordered(4, 9, block)
        assert look(tiny(seed=seed, n_layer=4), rank, sees, draw_targets(4, 9, 4), **others).exact()


def test_padding_is_seen_by_nobody(tiny: Callable[..., Any], ordered: Callable[..., Any]) -> None:
    rank, sees = ordered(4, 9)
    real = (torch.arange(9) >= torch.tensor([0, 1, 3, 8])[:, None]).long()
    inputs, targets = embedded(4, 9), torch.tensor([[8, 1], [8, 3], [8, 4], [8, 8]])
    logits = tiny()(inputs_embeds=inputs, rank=rank, sees=sees, targets=targets, attention_mask=real).logits
    allowed = (rank[:, None] < sees.gather(1, targets)[:, :, None]) & real.bool()[:, None]
    assert Seen(looked_at(logits, inputs), allowed).exact()
    states = tiny()(inputs_embeds=inputs, attention_mask=real).logits
    assert torch.equal(looked_at(states, inputs)[real.bool()], real.bool().repeat_interleave(real.sum(1), 0))


def test_the_content_stream_does_not_know_what_is_masked(tiny: Callable[..., Any]) -> None:
    inputs, targets = embedded(2, 7), torch.tensor([[1, 4], [0, 6]])
    masked = torch.zeros(2, 7, dtype=torch.bool).scatter(1, targets, True)
    given = {"inputs_embeds": inputs, "targets": targets, "stream": "content"}
    found = looked_at(tiny()(masked=masked, **given).logits, inputs)
    assert Seen(found, ~masked[:, None].expand(2, 2, 7)).exact()
    rank, sees = blockwise(masked, 3)
    found = looked_at(tiny()(masked=masked, rank=rank, sees=sees, **given).logits, inputs)
    earlier = torch.arange(7) // 3 <= targets[:, :, None] // 3
    assert Seen(found, ~masked[:, None] & earlier).exact()


@pytest.mark.parametrize("how", ["uni", "rank"])
def test_from_left_to_right_a_row_sees_itself_and_what_is_before(how: str, tiny: Callable[..., Any]) -> None:
    inputs, targets = embedded(2, 6), torch.tensor([[0, 3, 5], [1, 2, 4]])
    places = torch.arange(6).expand(2, 6)
    model = tiny(attn_type="uni" if how == "uni" else "bi")
    order = {} if how == "uni" else {"rank": places, "sees": places}
    logits = model(inputs_embeds=inputs, targets=targets, stream="content", **order).logits
    assert Seen(looked_at(logits, inputs), places[:, None] <= targets[:, :, None]).exact()
    logits = model(inputs_embeds=inputs, **order).logits
    assert Seen(looked_at(logits, inputs), places[:, None] <= places[:, :, None]).exact()
    query = model(inputs_embeds=inputs, targets=targets, **order).logits
    assert Seen(looked_at(query, inputs), places[:, None] < targets[:, :, None]).exact()


@contextmanager
def memory_with_gradients() -> Iterator[None]:
    """The memory is not detached, so that what it knows can be seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "detach", lambda tensor: tensor)
        yield


def look_through_memory(
    model: Any,
    order: Callable[[], tuple[Tensor, Tensor]],
    rows: int,
    length: int,
    reuse: int,
    steps: int,
    **others: Any,
) -> Seen:
    """Predictions in the last of several windows of a stream, each `reuse` tokens on, in all inputs of the stream."""
    stream = embedded(rows, length + (steps - 1) * reuse)
    mems = None
    for step in range(steps):
        rank, sees = order()
        targets = draw_targets(rows, length, 4)
        window = stream[:, step * reuse : step * reuse + length]
        more = {name: value(rank, targets) if callable(value) else value for name, value in others.items()}
        with memory_with_gradients():
            found = model(inputs_embeds=window, rank=rank, sees=sees, targets=targets, mems=mems, use_mems=True, **more)
        mems = found.mems
    assert mems is not None
    assert mems[-1].requires_grad
    past = torch.ones(rows, 4, (steps - 1) * reuse, dtype=torch.bool)
    return Seen(
        looked_at(found.logits, stream),
        torch.cat([past, rank[:, None] < sees.gather(1, targets)[:, :, None]], 2),
    )


@pytest.mark.parametrize("others", [{}, {"bidirectional": True}, {"compensate": 4}], ids=str)
@pytest.mark.parametrize(("steps", "memory"), [(2, 4), (3, 8), (2, None)])
def test_the_memory_knows_nothing_of_what_is_to_come(
    steps: int,
    memory: int | None,
    others: dict[str, Any],
    tiny: Callable[..., Any],
    ordered: Callable[..., Any],
) -> None:
    model = tiny(reuse_len=4, mem_len=memory)
    assert look_through_memory(model, lambda: ordered(2, 8, 4), 2, 8, 4, steps, **others).exact()


def test_the_memory_of_masked_inputs_knows_nothing_of_what_is_to_come(tiny: Callable[..., Any]) -> None:
    def masked(rank: Tensor, targets: Tensor) -> Tensor:
        return torch.zeros(rank.shape, dtype=torch.bool).scatter(1, targets, True)

    found = look_through_memory(
        tiny(reuse_len=4, mem_len=4),
        lambda: blockwise(torch.zeros(2, 8), 4),
        2,
        8,
        4,
        2,
        masked=masked,
        stream="content",
    )
    assert not found.leaks()
    assert found.found[:, :, :4].any()


def test_padding_in_the_reused_part_tells_the_memory_nothing(
    tiny: Callable[..., Any], ordered: Callable[..., Any]
) -> None:
    """What stands at padding is kept in the memory as all else is."""
    real = torch.ones(2, 8, dtype=torch.int64)
    real[:, :2] = 0
    model = tiny(reuse_len=4, mem_len=4)
    assert not look_through_memory(model, lambda: ordered(2, 8, 4), 2, 8, 4, 2, attention_mask=real).leaks()


def test_context_hides_the_memory_of_other_documents(tiny: Callable[..., Any], ordered: Callable[..., Any]) -> None:
    rank, sees = ordered(3, 5)
    mems = [torch.randn(6, 3, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    context, ids = torch.tensor([0, 2, 6]), torch.randint(17, (3, 5))
    targets = torch.tensor([[4], [4], [4]])
    found = tiny()(ids, rank=rank, sees=sees, targets=targets, mems=mems, context=context).logits
    allowed = torch.arange(6, 0, -1) <= context[:, None]
    for layer in mems:
        (gradient,) = torch.autograd.grad(found.sum(), layer, retain_graph=True)
        assert torch.equal((gradient != 0).any(-1).T, allowed)


# the same tests on what does leak


def test_the_tests_find_an_order_without_blocks_that_leaks_through_the_memory(
    tiny: Callable[..., Any], ordered: Callable[..., Any]
) -> None:
    """As of the public collator: one permutation of the whole, of whose first half the memory is."""
    found = look_through_memory(tiny(reuse_len=4, mem_len=4), lambda: ordered(2, 8, 8), 2, 8, 4, 2)
    assert found.leaks()
    whole = look_through_memory(tiny(reuse_len=None, mem_len=8), lambda: ordered(2, 8, 4), 2, 8, 4, 2)
    assert whole.leaks()


def test_the_tests_find_content_that_sees_one_too_many(
    tiny: Callable[..., Any], ordered: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rank, sees = ordered(4, 9, context=0.1)
    targets = draw_targets(4, 9, 6)
    assert look(tiny(), rank, sees, targets).exact()
    own = Layout._own
    monkeypatch.setattr(Layout, "_own", lambda layout: own(layout)._replace(sees=own(layout).sees + 1))
    assert look(tiny(), rank, sees, targets).leaks()


# chain rule: over all sequences, probabilities in an order sum to 1


def total(model: Any, ids: Tensor, order: list[int], **others: Any) -> float:
    """The summed probability of sequences (B, T), of the positions in the order given the others."""
    rank = torch.full(ids.shape[1:], -1)
    rank[order] = torch.arange(len(order))
    sees = rank.clamp(min=0)
    rank, sees, targets = (row.expand(len(ids), -1) for row in (rank, sees, torch.tensor(order)))
    with torch.no_grad():
        logits = model(ids, rank=rank, sees=sees, targets=targets, **others).logits
    return float(logits.log_softmax(-1).gather(2, ids[:, order, None]).sum((1, 2)).exp().sum())


def sequences(tokens: int = 4) -> Tensor:
    return torch.tensor(list(itertools.product(range(3), repeat=tokens)))


@pytest.mark.parametrize("memory", [0, 2])
@pytest.mark.parametrize("compensate", [None, 4])
def test_probabilities_in_any_order_sum_to_one(memory: int, compensate: int | None, tiny: Callable[..., Any]) -> None:
    model, ids = tiny(vocab_size=3), sequences()
    mems = [torch.randn(memory, 1, 8, dtype=torch.float64).expand(-1, len(ids), -1) for _ in range(3)]
    for order in itertools.permutations(range(4)):
        found = total(model, ids, list(order), mems=mems if memory else None, compensate=compensate)
        assert found == pytest.approx(1, abs=1e-9)


def test_they_depend_on_the_order(tiny: Callable[..., Any]) -> None:
    """Nothing makes a model agree with itself over orders: the sums above are of different numbers."""
    model, ids = tiny(vocab_size=3), torch.tensor([[0, 1, 2, 0]])
    assert len({round(total(model, ids, list(order)), 9) for order in itertools.permutations(range(4))}) > 20


def test_probabilities_of_a_part_given_the_rest_sum_to_one(tiny: Callable[..., Any]) -> None:
    model = tiny(vocab_size=3)
    for order in itertools.permutations(range(4), 2):
        ids = torch.tensor([[1, 2, 0, 2]]).repeat(9, 1)
        ids[:, list(order)] = sequences(2)
        assert total(model, ids, list(order)) == pytest.approx(1, abs=1e-9)


def test_probabilities_from_left_to_right_sum_to_one(tiny: Callable[..., Any]) -> None:
    model, ids = tiny(vocab_size=3, attn_type="uni"), sequences()
    ids = torch.cat([torch.ones(len(ids), 1, dtype=torch.int64), ids], 1)
    with torch.no_grad():
        logits = model(ids).logits[:, :-1]
        chosen = model(ids, targets=torch.arange(4).expand(81, 4), stream="content").logits
    torch.testing.assert_close(chosen, logits)
    found = logits.log_softmax(-1).gather(2, ids[:, 1:, None]).sum((1, 2)).exp().sum()
    assert float(found) == pytest.approx(1, abs=1e-9)


def test_they_do_not_sum_to_one_where_a_row_sees_itself(
    tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = Layout._asking
    monkeypatch.setattr(
        Layout, "_asking", lambda layout, targets: asking(layout, targets)._replace(sees=layout.sees + 1)
    )
    assert abs(total(tiny(vocab_size=3), sequences(), [0, 1, 2, 3]) - 1) > 1e-3


# against slow, obvious references


def slow_logits(
    model: Any,
    ids: Tensor,
    allowed: Tensor,
    targets: Tensor,
    segments: Tensor | None = None,
    backward: Tensor | None = None,
) -> Tensor:
    """Of S tokens, P masked positions and P queries, as one square attention of S + 2 P rows, by their distances.

    allowed   (B, S + 2 P, S + P) bool
    backward  (B,) bool: rows of negated distances
    """
    body, config = model.transformer, model.config
    rows, length = ids.shape
    count = targets.shape[1]
    at = torch.cat([torch.arange(length).expand(rows, -1), targets, targets], 1)
    apart = (at[:, :, None] - at[:, None, : length + count]).double()
    apart = apart if backward is None else torch.where(backward[:, None, None], -apart, apart)
    frequency = 1 / torch.pow(10000, torch.arange(0, config.d_model, 2.0) / config.d_model)
    angle = (apart[..., None].float() * frequency).double()
    sinusoid = torch.cat([angle.float().sin(), angle.float().cos()], -1).double()
    states = torch.cat([body.word_embedding(ids), body.mask_emb.expand(rows, 2 * count, -1)], 1)
    for layer in body.layer:
        own = layer.rel_attn
        keyed = states[:, : length + count]
        query, key, value = (
            torch.einsum("bih,hnd->bnid", given, weight)
            for given, weight in ((states, own.q), (keyed, own.k), (keyed, own.v))
        )
        far = torch.einsum("bijh,hnd->bnijd", sinusoid, own.r)
        scores = torch.einsum("bnid,bnjd->bnij", query + own.r_w_bias[:, None], key)
        scores = scores + torch.einsum("bnid,bnijd->bnij", query + own.r_r_bias[:, None], far)
        if segments is not None:
            kinds = torch.cat([segments, segments.gather(1, targets), segments.gather(1, targets)], 1)
            other = (kinds[:, :, None] != kinds[:, None, : length + count]).long()
            by_kind = torch.einsum("bnid,snd->bnis", query + own.r_s_bias[:, None], own.seg_embed)
            scores = scores + torch.where(other[:, None] == 1, by_kind[..., 1:], by_kind[..., :1])
        scores = (scores / math.sqrt(config.d_head)).masked_fill(~allowed[:, None], -math.inf)
        read = torch.einsum("bnij,bnjd->bnid", scores.softmax(-1), value)
        states = layer.ff(own.layer_norm(torch.einsum("bnid,hnd->bih", read, own.o) + states))
    return model.lm_loss(states[:, length + count :])


def compensated(rank: Tensor, sees: Tensor, targets: Tensor) -> Tensor:
    """(B, S + 2 P, S + P) bool, of one block: Song et al. 2020, figure 2 and section 2.3.

    A token sees the tokens up to itself and masks of what comes after it; a mask the context and all masks; a query the
    tokens before it and masks of itself and what comes after it.
    """
    place = rank.gather(1, targets)
    token_sees = torch.maximum(sees, rank + 1)
    tokens = [rank[:, None] < token_sees[:, :, None], place[:, None] >= token_sees[:, :, None]]
    masks = [(rank < 0)[:, None].expand(-1, targets.shape[1], -1), torch.ones_like(place, dtype=torch.bool)[:, None]]
    masks[1] = masks[1].expand(-1, targets.shape[1], -1)
    queries = [rank[:, None] < place[:, :, None], place[:, None] >= place[:, :, None]]
    return torch.cat([torch.cat(part, 2) for part in (tokens, masks, queries)], 1)


def uncompensated(rank: Tensor, sees: Tensor, targets: Tensor) -> Tensor:
    """The same, where nobody but they themselves sees the masks."""
    allowed = compensated(rank, sees, targets)
    length, count = rank.shape[1], targets.shape[1]
    allowed[:, :, length:] = False
    allowed[:, length : length + count, length:] = torch.eye(count, dtype=torch.bool)
    return allowed


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("compensate", [False, True])
def test_logits_and_gradients_are_those_of_square_masks(
    both: bool, compensate: bool, tiny: Callable[..., Any], ordered: Callable[..., Any]
) -> None:
    model = tiny(n_layer=3)
    ids, segments = torch.randint(17, (4, 9)), torch.randint(2, (4, 9))
    rank, sees = ordered(4, 9)
    predicted = (rank >= 0) & (rank == sees)
    predicted[:, 1:4] |= ~predicted.any(1, keepdim=True)
    count = int(predicted.sum(1).min())
    targets = torch.stack([row.nonzero().flatten()[:count] for row in predicted])
    # masks stand for the targets alone: what is predicted elsewhere is of no concern
    allowed = (compensated if compensate else uncompensated)(rank, sees, targets)
    backward = torch.tensor([False, False, True, True]) if both else None
    wanted = slow_logits(model, ids, allowed, targets, segments, backward)
    upstream = torch.randn_like(wanted)
    wanted_gradients = torch.autograd.grad(wanted, [*model.parameters()], upstream)
    found = model(
        ids,
        rank=rank,
        sees=sees,
        targets=targets,
        token_type_ids=segments,
        bidirectional=both,
        compensate=9 if compensate else None,
    ).logits
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    gradients = torch.autograd.grad(found, [*model.parameters()], upstream)
    for gradient, wanted_gradient in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-9, atol=1e-10)


# properties


@settings(max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    length=st.integers(1, 9),
    padding=st.integers(0, 4),
    side=st.sampled_from(["left", "right"]),
    causal=st.booleans(),
    seed=st.integers(0, 99),
)
def test_padding_changes_nothing(
    length: int, padding: int, side: str, causal: bool, seed: int, tiny: Callable[..., Any]
) -> None:
    model, whole = tiny(attn_type="uni" if causal else "bi"), length + padding
    start = padding if side == "left" else 0
    torch.manual_seed(seed)
    ids, kinds = torch.randint(17, (2, whole)), torch.randint(2, (2, whole))
    real = torch.zeros(2, whole, dtype=torch.int64)
    real[:, start : start + length] = 1
    with torch.no_grad():
        found = model(ids, attention_mask=real, token_type_ids=kinds).logits[:, start : start + length]
        inner = (given[:, start : start + length] for given in (ids, kinds))
        wanted = model(next(inner), token_type_ids=next(inner)).logits
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_targets_are_asked_for_in_any_number_and_sequence(
    count: int, tiny: Callable[..., Any], ordered: Callable[..., Any]
) -> None:
    model, ids = tiny(), torch.randint(17, (2, 7))
    order = dict(zip(("rank", "sees"), ordered(2, 7), strict=True))
    whole = model(ids, **order, targets=torch.arange(7).expand(2, 7)).logits
    targets = torch.stack([torch.randperm(7)[:count] for _ in range(2)])
    for compensate in (None, 7) if count == 0 else (None,):
        found = model(ids, **order, targets=targets, compensate=compensate).logits
        assert found.shape == (2, count, 17)
        torch.testing.assert_close(found, whole.gather(1, targets[..., None].expand(-1, -1, 17)))
    padded = torch.nn.functional.pad(targets, (0, 7 - count), value=-1)
    torch.testing.assert_close(model(ids, **order, targets=padded).logits[:, :count], found)


@pytest.mark.parametrize("stream", ["query", "content"])
def test_rows_of_padding_or_of_special_tokens_alone_are_finite(stream: str, tiny: Callable[..., Any]) -> None:
    model, ids = tiny(), torch.randint(17, (3, 5))
    rank = torch.tensor([[HIDDEN] * 5, [2, 0, 1, 4, 3], [-1] * 5])  # padding, functional tokens, context
    sees = torch.tensor([[0] * 5, [3, 1, 2, 5, 4], [0] * 5])
    targets = torch.tensor([[0, 3], [-1, -1], [-1, -1]])
    for others in ({}, {"attention_mask": torch.zeros(3, 5)}):
        model.zero_grad()
        logits = model(ids, rank=rank, sees=sees, targets=targets, stream=stream, **others).logits
        logits.square().sum().backward()
        assert logits.isfinite().all()
        assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)
    assert model(ids, attention_mask=torch.zeros(3, 5)).logits.isfinite().all()


def test_a_batch_of_no_rows(tiny: Callable[..., Any]) -> None:
    none = torch.zeros(0, 5, dtype=torch.int64)
    assert tiny()(none, rank=none, sees=none, targets=none[:, :2]).logits.shape == (0, 2, 17)


def test_dropout_is_for_training_alone(tiny: Callable[..., Any], ordered: Callable[..., Any]) -> None:
    model, ids = tiny(dropout=0.3), torch.randint(17, (2, 7))
    given = {**dict(zip(("rank", "sees"), ordered(2, 7), strict=True)), "targets": draw_targets(2, 7, 3)}
    assert torch.equal(model(ids, **given).logits, model(ids, **given).logits)
    assert torch.equal(model(ids, **given).logits, tiny(dropout=0.0)(ids, **given).logits)
    model.train()
    assert not torch.equal(model(ids, **given).logits, model(ids, **given).logits)
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(model(ids, **given).logits)
    assert torch.equal(*found)


def test_dropout_is_where_transformers_has_it(tiny: Callable[..., Any], ordered: Callable[..., Any]) -> None:
    """Of the rows that go in, of the sinusoids, of what each layer reads, and of what comes out."""
    model, ids = tiny(dropout=0.3, n_layer=2).train(), torch.randint(17, (2, 7))
    shapes: list[tuple[int, ...]] = []
    for dropout in (model.transformer.dropout, *(layer.rel_attn.dropout for layer in model.transformer.layer)):
        dropout.register_forward_hook(lambda _, given, found: shapes.append(tuple(found.shape)))
    order = dict(zip(("rank", "sees"), ordered(2, 7), strict=True))
    model(ids, **order, targets=draw_targets(2, 7, 3))
    assert shapes == [(2, 10, 8), (1, 14, 8), (2, 10, 8), (2, 3, 8), (2, 3, 8)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_near_and_never_nan(
    dtype: torch.dtype, autocast: bool, pair: Callable[..., Any], ordered: Callable[..., Any]
) -> None:
    model = pair(initializer_range=0.2, dtype=torch.float32).ours
    ids, context = torch.randint(17, (4, 9)), torch.tensor([0, 3, 3, 1])
    rank, sees = ordered(4, 9)
    rank[0], sees[0] = torch.arange(9), torch.arange(9)  # whose first target sees nothing
    targets = torch.cat([torch.zeros(4, 1, dtype=torch.int64), draw_targets(4, 9, 3)], 1)
    mems = [torch.randn(3, 4, 8) for _ in range(3)]
    given = {"rank": rank, "sees": sees, "targets": targets, "token_type_ids": ids % 2, "bidirectional": True}
    given |= {"mems": mems, "context": context, "use_mems": True, "compensate": 9, "labels": ids[:, :4].clone()}
    wanted = model(ids, **given)
    if autocast:
        with torch.autocast("cpu", dtype=dtype):
            found = model(ids, **given)
    else:
        found = model.to(dtype)(ids, **given)
    found.loss.backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())
    assert (found.logits - wanted.logits).norm() < 8 * torch.finfo(dtype).eps * wanted.logits.norm()
    assert all(memory.isfinite().all() for memory in found.mems)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # by dynamo itself
def test_compiled_it_gives_the_same(tiny: Callable[..., Any], ordered: Callable[..., Any]) -> None:
    model, ids = tiny(n_layer=2), torch.randint(17, (2, 8))
    given = {**dict(zip(("rank", "sees"), ordered(2, 8), strict=True)), "targets": draw_targets(2, 8, 3)}
    given["token_type_ids"] = ids % 2
    wanted = model(ids, **given).logits
    upstream = torch.randn_like(wanted)
    gradients = torch.autograd.grad(wanted, [*model.parameters()], upstream)
    model.compile(backend="eager")
    found = model(ids, **given).logits
    torch.testing.assert_close(found, wanted)
    for one, other in zip(torch.autograd.grad(found, [*model.parameters()], upstream), gradients, strict=True):
        torch.testing.assert_close(one, other)
    torch.compiler.reset()


# mistakes

IDS = torch.zeros(2, 4, dtype=torch.int64)
RANK = torch.zeros(2, 4, dtype=torch.int64)


def memory(*shapes: tuple[int, int, int]) -> list[Tensor]:
    return [torch.zeros(*shape, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rank": RANK}, "expected both of rank and sees, or neither"),
        ({"sees": RANK}, "expected both of rank and sees, or neither"),
        ({"rank": RANK[:, :3], "sees": RANK[:, :3]}, r"rank is of shape \(2, 3\): expected \(2, 4\), as the input"),
        ({"rank": RANK[:1], "sees": RANK[:1]}, r"rank is of shape \(1, 4\): expected \(2, 4\), as the input"),
        ({"rank": RANK, "sees": RANK[:, :3]}, r"sees is of shape \(2, 3\): expected \(2, 4\), as the input"),
        ({"rank": RANK.double(), "sees": RANK}, "rank is of torch.float64: expected int32 or int64"),
        ({"attention_mask": RANK[:, 1:]}, r"attention_mask is \(2, 3\): expected \(2, 4\), as the input"),
        ({"token_type_ids": RANK[:, 1:]}, r"token_type_ids are \(2, 3\): expected \(2, 4\), as the input"),
        ({"masked": IDS[:, 1:] > 0}, r"masked is torch.bool \(2, 3\): expected torch.bool \(2, 4\), as the input"),
        ({"masked": IDS}, r"masked is torch.int64 \(2, 4\): expected torch.bool \(2, 4\), as the input"),
        ({"context": RANK[0]}, r"context is \(4,\): expected \(2,\), one a row"),
        ({"targets": IDS[0]}, r"targets are torch.int64 \(4,\): expected integers \(2, P\)"),
        ({"stream": "none"}, "stream is 'none': expected one of query, content"),
        ({"compensate": 4}, "compensate is 4: expected a block's length, 1 or more, and query targets"),
        ({"inputs_embeds": torch.zeros(2, 4, 8)}, "expected either input_ids or inputs_embeds"),
        ({"input_ids": None}, "expected either input_ids or inputs_embeds"),
        ({"input_ids": IDS[0]}, r"the input is of shape \(4,\): expected rows of one token or more"),
        ({"input_ids": IDS[:, :0]}, r"the input is of shape \(2, 0\): expected rows of one token or more"),
        ({"input_ids": IDS[:1], "bidirectional": True}, "bidirectional with 1 rows: expected an even number"),
        ({"mems": memory((3, 2, 8))}, "mems are of 1 layers: expected 3"),
        ({"mems": memory(*[(3, 4, 8)] * 3)}, r"mems hold \(3, 4, 8\): expected \(3, 2, 8\), .* of another batch\?"),
        ({"mems": memory((3, 2, 8), (3, 2, 8), (2, 2, 8))}, r"mems hold \(2, 2, 8\): expected \(3, 2, 8\)"),
        ({"mems": memory(*[(3, 2, 9)] * 3)}, r"mems hold \(3, 2, 9\): expected \(3, 2, 8\)"),
        ({"perm_mask": torch.zeros(2, 4, 4)}, "perm_mask: expected rank and sees, the order as integers"),
        (
            {"target_mapping": torch.zeros(2, 1, 4)},
            "target_mapping: expected targets, the positions that are predicted",
        ),
        ({"input_mask": torch.zeros(2, 4)}, "input_mask: a two-stream body has none: turn it back by to_transformers"),
        ({"output_attentions": True}, "output_attentions: a two-stream body has none: turn it back by to_transformers"),
        ({"memory": RANK}, "memory: a two-stream body has none: no such argument"),
    ],
    ids=lambda given: given if isinstance(given, str) else "-".join(given),
)
def test_what_does_not_fit_is_said(given: dict[str, Any], words: str, tiny: Callable[..., Any]) -> None:
    model = tiny()
    with pytest.raises(ValueError, match=words):
        model(**{"input_ids": IDS, **given})


def test_an_odd_batch_is_refused_where_the_configuration_says_both_directions(tiny: Callable[..., Any]) -> None:
    model = tiny(bi_data=True)
    with pytest.raises(ValueError, match="bidirectional with 1 rows: expected an even number, half of them backward"):
        model(IDS[:1])
    assert model(IDS[:1], bidirectional=False).logits.shape == (1, 4, 17)
