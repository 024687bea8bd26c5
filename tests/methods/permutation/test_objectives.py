"""The objectives: against transformers' own body, and what each can and cannot learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import DataCollatorForPermutationLanguageModeling, PreTrainedTokenizerFast, XLNetLMHeadModel

from shoestring.data.batches import NOT_SCORED
from shoestring.methods.permutation.configurations import build, configuration
from shoestring.methods.permutation.memory import Memory
from shoestring.methods.permutation.objectives import Kind, Pretraining
from shoestring.methods.permutation.orders import perm_mask, permuted
from shoestring.types import Batch

V = 17  # of the models of `pair`
KINDS: tuple[Kind, ...] = ("permutation", "mpnet", "masked", "autoregressive")


class Spy(nn.Module):
    """A model that keeps what it was given and what it gave."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.given: list[dict[str, Any]] = []
        self.found: list[Any] = []

    def forward(self, **given: Any) -> Any:
        self.given.append(given)
        self.found.append(self.model(**given))
        return self.found[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_of_transformers_is_refused(kind: Kind, pair: Callable[..., Any]) -> None:
    theirs, ours = pair(dtype=torch.float32, mem_len=None)
    learnt = Pretraining(kind, Memory(ours.config), block=6)
    batch = sequences(2, 6, 6, 2)
    assert learnt(ours, batch).count > 0
    with pytest.raises(ValueError, match="the model's body is transformers' own"):
        learnt(theirs, batch)


def sequences(rows: int, length: int, block: int, predicted: int, size: int = V, **seeds: int) -> Batch:
    """A batch as `PermutationBatches` gives it: targets in both halves of a row, one functional token at the end."""
    rng = np.random.default_rng(seeds.get("seed", 0))
    orders, targets = [], []
    for _ in range(rows):
        chosen = np.zeros(length, dtype=bool)
        chosen[rng.permutation(length - 1)[:predicted]] = True
        functional = np.arange(length) == length - 1
        orders.append(permuted(chosen, functional, block, rng))
        targets.append(np.flatnonzero(chosen))
    ids = torch.from_numpy(rng.integers(size, size=(rows, length)))
    at = torch.from_numpy(np.stack(targets))
    segments = torch.zeros(rows, length, dtype=torch.int64)
    segments[:, -3:] = 1
    return {
        "input_ids": ids,
        "token_type_ids": segments,
        "rank": torch.from_numpy(np.stack([order.rank for order in orders])),
        "sees": torch.from_numpy(np.stack([order.sees for order in orders])),
        "targets": at,
        "labels": ids.gather(1, at),
        "context": torch.zeros(rows, dtype=torch.int64),
    }


def nats(logits: Tensor, labels: Tensor) -> float:
    """One by one."""
    total = 0.0
    for scores, label in zip(logits.flatten(0, 1), labels.flatten().tolist(), strict=True):
        if label != NOT_SCORED:
            total -= (scores[label] - scores.logsumexp(0)).item()
    return total


def one_hot(targets: Tensor, length: int) -> Tensor:
    return nn.functional.one_hot(targets, length).double()


# by hand


def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_vocabulary(tiny: Callable[..., Any]) -> None:
    model = tiny(reuse_len=5)
    nn.init.zeros_(model.transformer.word_embedding.weight)  # the head's weights, too
    nn.init.zeros_(model.lm_loss.bias)
    batch = sequences(2, 10, 5, 4)
    for kind, count in (("permutation", 8), ("mpnet", 8), ("masked", 8), ("autoregressive", 2 * 9)):
        loss = Pretraining(cast(Kind, kind), Memory(model.config), 5)(model, batch)
        assert (loss.count, loss.tokens) == (count, 20)
        assert loss.total.item() == pytest.approx(count * math.log(V), rel=1e-6)


def test_an_objective_of_another_name() -> None:
    with pytest.raises(
        ValueError,
        match=r"^objective 'masks': expected one of permutation, mpnet, masked, autoregressive$",
    ):
        Pretraining(cast(Kind, "masks"), Memory(configuration("xlnet-tiny", 8)), 4)


@pytest.mark.parametrize("reuse", [None, 4])
def test_a_memory_of_more_than_is_reused_would_tell_the_next_targets(reuse: int | None) -> None:
    memory = Memory(configuration("xlnet-tiny", 8, mem_len=6, reuse_len=reuse))
    with pytest.raises(ValueError, match=rf"^blocks of 5 positions, of a configuration whose reuse_len is {reuse}"):
        Pretraining("permutation", memory, 5)
    assert Pretraining("autoregressive", memory, 5), "which predicts what comes after all that it remembers"


def test_without_a_memory_nothing_is_carried(tiny: Callable[..., Any]) -> None:
    model = tiny(mem_len=None)
    memory, spy, batch = Memory(model.config), Spy(model), sequences(2, 10, 5, 4)
    for kind in KINDS:
        Pretraining(kind, memory, 5)(spy, batch)
    assert memory.slots == []
    assert all("mems" not in given and "context" not in given for given in spy.given)


# against transformers' own body, of the same weights


@pytest.mark.parametrize("memory", [0, 6])
@pytest.mark.parametrize("both", [False, True])
def test_permutation_against_a_square_mask(memory: int, both: bool, pair: Callable[..., Any]) -> None:
    theirs, ours = pair(mem_len=memory or None, reuse_len=4, bi_data=both)
    ours.transformer.config.bi_data = not both  # the objective says it, whatever the configuration does
    learnt = Pretraining("permutation", Memory(ours.config), 4, bidirectional=both)
    past: list[Tensor] | None = [torch.zeros(6, 4, 8).double() for _ in range(3)] if memory else None
    for step in range(3):
        batch = sequences(4, 9, 4, 4, seed=step)
        batch["context"] += min(memory, 4 * step)
        mask = perm_mask(batch["rank"], batch["sees"])
        found = learnt(ours, batch)
        learnt.memory(None)
        # theirs has no `context`: what no batch has filled yet is left out by its length
        expected = theirs(
            batch["input_ids"],
            perm_mask=mask.double(),
            target_mapping=one_hot(batch["targets"], 9),
            token_type_ids=batch["token_type_ids"],
            mems=None if past is None or not step else [layer[-min(6, 4 * step) :] for layer in past],
            use_mems=bool(memory),
        )
        assert found.count == 16
        assert found.total.item() == pytest.approx(nats(expected.logits, batch["labels"]), rel=1e-5)
        if past is not None:
            # the content stream's inputs of each layer, the first block of them
            given = expected.mems
            past = [torch.cat([old, new[-4:]])[-6:] for old, new in zip(past, given, strict=True)]
            for mine, other in zip(learnt.memory.slots[0], past, strict=True):
                assert torch.allclose(mine, other, atol=1e-9, rtol=0)


def test_autoregressive_against_a_square_mask(pair: Callable[..., Any]) -> None:
    theirs, ours = pair(mem_len=None)
    batch = {"input_ids": sequences(3, 9, 9, 1)["input_ids"]}
    found = Pretraining("autoregressive", Memory(ours.config), 9)(ours, batch)
    rank = sees = torch.arange(9).expand(3, 9)
    logits = theirs(batch["input_ids"], perm_mask=perm_mask(rank, sees).double()).logits
    assert found.count == 3 * 8
    assert found.total.item() == pytest.approx(nats(logits[:, :-1], batch["input_ids"][:, 1:]), rel=1e-5)


@pytest.mark.parametrize("memory", [0, 6])
def test_masked_against_embeddings_that_are_masked(memory: int, pair: Callable[..., Any]) -> None:
    theirs, ours = pair(mem_len=memory or None, reuse_len=4)
    learnt, spy = Pretraining("masked", Memory(ours.config), 4), Spy(ours)
    batch = sequences(6, 8, 4, 3)
    torch.manual_seed(0)
    found = learnt(spy, batch)
    ids, masked = spy.given[0]["input_ids"], spy.given[0]["masked"]
    assert masked.any()
    read = theirs.transformer.word_embedding(ids)
    read[masked] = theirs.transformer.mask_emb[0, 0]
    # with a memory a block sees no later one
    later = torch.arange(8)[None, :] // 4 > torch.arange(8)[:, None] // 4
    mask = (later if memory else torch.zeros_like(later)).double().expand(6, 8, 8)
    logits = theirs(inputs_embeds=read, perm_mask=mask, token_type_ids=batch["token_type_ids"]).logits
    at = batch["targets"][..., None].expand(-1, -1, V)
    assert found.total.item() == pytest.approx(nats(logits.gather(1, at), batch["labels"]), rel=1e-5)
    assert (found.count, found.tokens) == (18, 48)


def test_position_compensation_is_asked_for_by_blocks(tiny: Callable[..., Any]) -> None:
    model = tiny(mem_len=None)
    spy, batch = Spy(model), sequences(2, 10, 10, 4)
    found = Pretraining("mpnet", Memory(model.config), 5)(spy, batch)
    names = ("input_ids", "rank", "sees", "targets", "token_type_ids")
    logits = model(**{name: batch[name] for name in names}, compensate=10).logits
    assert spy.given[0]["compensate"] == 10  # without a memory the sequence is one block
    remembering = Spy(tiny(mem_len=4, reuse_len=5))
    Pretraining("mpnet", Memory(remembering.model.config), 5)(remembering, sequences(2, 10, 5, 4))
    assert remembering.given[0]["compensate"] == 5
    assert found.total.item() == pytest.approx(nats(logits, batch["labels"]), rel=1e-5)
    plain = Pretraining("permutation", Memory(model.config), 5)(model, batch)
    assert abs(plain.total.item() - found.total.item()) > 1e-3


@given(st.integers(0, 2**16), st.integers(1, 3), st.sampled_from(KINDS))
def test_padded_targets_change_nothing(seed: int, more: int, kind: Kind) -> None:
    config = configuration("xlnet-tiny", 8, d_model=8, n_head=1, d_inner=8, reuse_len=4)
    model = build(config, 0)
    batch = sequences(3, 8, 4, 2, size=8, seed=seed)
    wider = {
        **batch,
        "targets": nn.functional.pad(batch["targets"], (0, more), value=-1),
        "labels": nn.functional.pad(batch["labels"], (0, more), value=NOT_SCORED),
    }
    losses = []
    for some in (batch, wider):
        torch.manual_seed(seed)
        losses.append(Pretraining(kind, Memory(config), 4)(model, some))
    assert losses[0][1:] == losses[1][1:]
    assert losses[0].total.item() == pytest.approx(losses[1].total.item(), rel=1e-5)


# what a masked model reads


def test_eighty_percent_are_masked_ten_another_token_and_ten_themselves() -> None:
    config = configuration("xlnet-tiny", 1000, n_layer=1, d_model=8, n_head=1, d_inner=8, mem_len=None)
    spy, learnt = Spy(build(config, 0)), Pretraining("masked", Memory(config), 64)
    batch = sequences(64, 128, 64, 40, size=900)
    batch["input_ids"] += 50  # nothing below it, and nothing from 950 on, stands in the text
    torch.manual_seed(0)
    with torch.no_grad():
        learnt(spy, batch)
    given, ids = spy.given[0], batch["input_ids"]
    chosen = torch.zeros(64, 128, dtype=torch.bool).scatter(1, batch["targets"], True)
    assert not (given["masked"] & ~chosen).any()
    assert torch.equal(given["input_ids"][~chosen], ids[~chosen]), "what is not chosen never changes"
    changed = (given["input_ids"] != ids) & chosen
    assert not (changed & given["masked"]).any()
    assert given["input_ids"].min() >= 50, "another token is one of the text's own"
    assert given["input_ids"].max() < 950
    assert len(given["input_ids"][changed].unique()) > 150, "and not always the same"
    count = int(chosen.sum())
    deviation = math.sqrt(0.8 * 0.2 / count)
    assert abs(given["masked"].sum().item() / count - 0.8) < 4 * deviation
    assert abs(changed.sum().item() / count - 0.1) < 4 * deviation


def test_each_step_masks_anew() -> None:
    config = configuration("xlnet-tiny", 32, mem_len=None)
    spy, learnt = Spy(build(config, 0)), Pretraining("masked", Memory(config), 16)
    batch = sequences(8, 32, 16, 10, size=32)
    learnt(spy, batch)
    learnt(spy, batch)
    assert not torch.equal(spy.given[0]["masked"], spy.given[1]["masked"])


@pytest.mark.parametrize("kind", ["permutation", "mpnet", "masked"])
def test_what_the_memory_keeps_knows_nothing_of_what_comes_after_it(kind: Kind, tiny: Callable[..., Any]) -> None:
    model = tiny(mem_len=8, reuse_len=6)
    read: list[Tensor] = []
    kept: list[Tensor] = []

    def embedded(_: nn.Module, __: Any, found: Tensor) -> Tensor:
        read.append(found.detach().requires_grad_())
        return read[0]

    def layer(_: nn.Module, given: Any) -> None:
        kept.append(given[1])  # the rows that the layer reads; the first of them are the sequence's own

    model.transformer.word_embedding.register_forward_hook(embedded)
    for one in model.transformer.layer:
        one.register_forward_pre_hook(layer)
    learnt = Pretraining(kind, Memory(model.config), 6)
    learnt(model, sequences(4, 12, 6, 5))
    assert len(kept) == 3
    (gradient,) = torch.autograd.grad(sum(states[:, :6].square().sum() for states in kept), read)
    assert (gradient[:, 6:] == 0).all(), "exactly"
    assert (gradient[:, :6] != 0).any()
    for states, layer_kept in zip(kept, learnt.memory.slots[0], strict=True):
        assert torch.equal(layer_kept[-6:], states[:, :6].transpose(0, 1).detach())
        assert not layer_kept.requires_grad


# what can be learnt


def optimized(model: nn.Module, rate: float) -> Callable[[Tensor], None]:
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.98))

    def step(mean: Tensor) -> None:
        mean.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


PAIRED, PAIRS, ROWS = 16, 4, 64  # a vocabulary of 16, rows of four pairs of twice the same token


def paired(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (rows, 8), the places (rows, 2) of one pair, and the turn of each."""
    ids = torch.randint(PAIRED, (ROWS, PAIRS), generator=generator).repeat_interleave(2, 1)
    which = torch.randint(PAIRS, (ROWS,), generator=generator)
    first = torch.randint(2, (ROWS, 1), generator=generator)
    return ids, torch.stack([2 * which, 2 * which + 1], 1), torch.cat([first, 1 - first], 1).int()


@pytest.mark.parametrize("kind", ["permutation", "mpnet", "masked inputs"])
def test_pairs_that_are_twice_the_same_token(kind: str) -> None:
    """ln 16 nats a pair are its entropy, 2 ln 16 what it costs who tells each token without the other."""
    config = configuration("xlnet-tiny", PAIRED, mem_len=None)
    model, generator = build(config, 0), torch.Generator().manual_seed(0)
    step, told = optimized(model, 1e-2), []
    for _ in range(400):
        ids, places, turns = paired(generator)
        labels = ids.gather(1, places)
        if kind == "masked inputs":
            masked = torch.zeros_like(ids, dtype=torch.bool).scatter(1, places, True)
            logits = model(ids, masked=masked, stream="content", targets=places).logits
            mean = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        else:
            nothing = torch.zeros(ROWS, 2 * PAIRS, dtype=torch.int32)
            rank, sees = (nothing - 1).scatter(1, places, turns), nothing.scatter(1, places, turns)
            batch = {"input_ids": ids, "rank": rank, "sees": sees, "targets": places, "labels": labels}
            loss = Pretraining(cast(Kind, kind), Memory(config), 2 * PAIRS)(model, batch)
            mean = loss.total / loss.count
        step(mean)
        told.append(2 * mean.item())
    found = sum(told[-50:]) / 50
    if kind == "masked inputs":
        assert 5.4 <= found < 5.7
    else:
        assert found <= 3.0


def letters() -> PreTrainedTokenizerFast:
    """Sixteen tokens, and those that the collator of transformers asks for."""
    vocabulary = {str(number): number for number in range(PAIRED)} | {"<mask>": PAIRED, "<pad>": PAIRED + 1}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="<mask>", pad_token="<pad>", unk_token="<pad>")


def collated(generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
    """Batches of the rows that transformers' collator makes of pairs, where it has chosen one pair and nothing else."""
    collator = DataCollatorForPermutationLanguageModeling(letters(), plm_probability=0.25, max_span_length=2)
    names = ("input_ids", "perm_mask", "target_mapping", "labels")
    kept: dict[str, Tensor] = {}
    while True:
        while not kept or len(kept["labels"]) < ROWS:
            made = collator([{"input_ids": row.tolist()} for row in paired(generator)[0]])
            chosen = made["labels"] != NOT_SCORED
            pairs = chosen.view(ROWS, PAIRS, 2)
            good = (chosen.sum(1) == 2) & (pairs.all(2).sum(1) == 1)
            kept = {name: torch.cat([kept[name], made[name][good]] if kept else [made[name][good]]) for name in names}
        yield {name: rows[:ROWS] for name, rows in kept.items()}
        kept = {name: rows[ROWS:] for name, rows in kept.items()}


@pytest.mark.slow
def test_the_inputs_of_transformers_collator_cannot_be_learnt_from_the_same_pairs() -> None:
    """It masks the predicted tokens in the content stream: a later target never sees the earlier ones' tokens."""
    torch.manual_seed(0)
    config = configuration("xlnet-tiny", PAIRED + 2, mem_len=None)
    model = XLNetLMHeadModel(config).train()
    step, told = optimized(model, 1e-2), []
    for batch in islice(collated(torch.Generator().manual_seed(0)), 400):
        chosen = batch["labels"] != NOT_SCORED
        assert (batch["input_ids"][chosen] == PAIRED).all()
        mean = model(**batch).loss
        step(mean)
        told.append(2 * mean.item())
    assert 5.4 <= sum(told[-50:]) / 50 < 5.7


COPIED, PERIOD, BLOCK = 8, 24, 8  # a vocabulary of 8; a text repeats its last 24 tokens, sequences have 16


def copies(steps: int, memory: int) -> Iterator[Batch]:
    """Streams of 24 random tokens, then the same again; labels are of the second time alone."""
    rng = np.random.default_rng(1)
    rows, length = 16, 2 * BLOCK
    repeats = range((steps * BLOCK + length) // (2 * PERIOD) + 1)
    ids = np.stack(
        [np.concatenate([np.tile(rng.integers(COPIED, size=PERIOD), 2) for _ in repeats]) for _ in range(rows)]
    )
    again = np.arange(ids.shape[1]) // PERIOD % 2 == 1
    for step in range(steps):
        here = slice(step * BLOCK, step * BLOCK + length)
        orders, targets = [], []
        for _ in range(rows):
            chosen = np.zeros(length, dtype=bool)
            for block in range(2):
                chosen[block * BLOCK + rng.permutation(BLOCK)[:2]] = True
            orders.append(permuted(chosen, np.zeros(length, dtype=bool), BLOCK, rng))
            targets.append(np.flatnonzero(chosen))
        at, tokens = torch.from_numpy(np.stack(targets)), torch.from_numpy(ids[:, here])
        yield {
            "input_ids": tokens,
            "rank": torch.from_numpy(np.stack([order.rank for order in orders])),
            "sees": torch.from_numpy(np.stack([order.sees for order in orders])),
            "targets": at,
            "labels": torch.where(torch.from_numpy(again[here])[at], tokens.gather(1, at), NOT_SCORED),
            "context": torch.full((rows,), min(memory, step * BLOCK)),
        }


@pytest.mark.parametrize("memory", [32, 0])
def test_a_copy_task_beyond_the_sequence(memory: int) -> None:
    """What is to be copied stands 24 tokens back, in sequences of 16: only a memory holds it."""
    config = configuration("xlnet-tiny", COPIED, mem_len=memory or None, reuse_len=BLOCK)
    model, kept = build(config, 0), Memory(config)
    learnt, step, told = Pretraining("permutation", kept, BLOCK), optimized(model, 1e-2), []
    for batch in copies(600, memory):
        loss = learnt(model, batch)
        if loss.count:
            step(loss.total / loss.count)
            told.append(loss.total.item() / loss.count)
    found = sum(told[-50:]) / 50
    assert found < 0.1 if memory else 2.0 < found < 2.2
