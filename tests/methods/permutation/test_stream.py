"""The stream: rows that go on where they stopped, what of the memory is their own, and what is predicted."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data import tokenizers
from shoestring.data.splits import Document
from shoestring.data.tokens import Tokens, pack
from shoestring.methods.permutation.stream import PermutationBatches
from shoestring.methods.permutation.vocabulary import Vocabulary, prepared
from shoestring.types import Batch

SEP, CLS, PAD, EOS, FIRST = 0, 1, 2, 3, 4


def counted(count: int, documents: int = 0, sha256: str = "0" * 64) -> Tokens:
    """Tokens whose ids are their own places, from FIRST on; one end of text after so many tokens."""
    ids = np.arange(FIRST, FIRST + count, dtype=np.uint32)
    if documents:
        ids[documents - 1 :: documents] = EOS
    return Tokens(Path("here"), ids, count, text_bytes=count, documents=1, tokenizer="", source="", sha256=sha256)


def vocabulary(count: int, word: int = 2, sentence: int = 7) -> Vocabulary:
    """Words of so many tokens, and sentences."""
    places = np.arange(FIRST + count) - FIRST
    special = places < 0
    return Vocabulary(
        sep=SEP,
        cls=CLS,
        pad=PAD,
        eos=EOS,
        size=FIRST + count,
        starts_word=special | (places % word == 0),
        closes_word=special,
        ends_sentence=(places % sentence == sentence - 1) & ~special,
    )


def stream(count: int = 2000, documents: int = 0, **changes: Any) -> PermutationBatches:
    arguments: dict[str, Any] = {"batch_size": 4, "length": 32, "reuse": 16, "predicted": 7, "seed": 0} | changes
    tokens = arguments.pop("tokens", None) or counted(count, documents)
    return PermutationBatches(tokens, vocabulary(len(tokens)), **arguments)


def drawn(batches: PermutationBatches, count: int) -> list[Batch]:
    return list(islice(batches, count))


def same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_shapes_and_kinds() -> None:
    (batch,) = drawn(stream(), 1)
    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()}
    assert shapes == {
        "input_ids": ((4, 32), torch.int64),
        "token_type_ids": ((4, 32), torch.int64),
        "rank": ((4, 32), torch.int32),
        "sees": ((4, 32), torch.int32),
        "targets": ((4, 7), torch.int64),
        "labels": ((4, 7), torch.int64),
        "context": ((4,), torch.int64),
    }
    (plain,) = drawn(stream(segments="one"), 1)
    assert "token_type_ids" not in plain


def test_rows_go_on_by_the_reused_tokens_within_their_parts_and_wrap() -> None:
    batches = stream(400, segments="one", memory=40)  # parts of 100: 4 sequences an epoch
    epochs = [drawn(batches, 4), drawn(batches, 4)]
    starts = []
    for epoch in epochs:
        for step, batch in enumerate(epoch):
            ids = batch["input_ids"] - FIRST
            assert torch.equal(ids, ids[:, :1] + torch.arange(32))
            assert torch.equal(ids[:, 0], epoch[0]["input_ids"][:, 0] - FIRST + 16 * step)
            assert torch.equal(ids[:, 0] // 100, torch.arange(4))
            assert torch.equal(ids[:, -1] // 100, torch.arange(4))
            assert batch["context"].tolist() == [min(40, 16 * step)] * 4
        starts.append((epoch[0]["input_ids"][:, 0] - FIRST) % 100)
        assert starts[-1].max() < 16
    assert starts[0].tolist() != starts[1].tolist()


def test_a_sequence_of_two_segments() -> None:
    follows = []
    for batch in drawn(stream(4000, length=64), 40):
        for ids, segments in zip(batch["input_ids"].tolist(), batch["token_type_ids"].tolist(), strict=True):
            first, second = [at for at, number in enumerate(ids) if number == SEP]
            assert ids[-1] == CLS
            assert second == 62
            assert segments == [0] * (first + 1) + [1] * (62 - first) + [2]
            assert ids[:first] == list(range(ids[0], ids[0] + first))
            assert (ids[first - 1] - FIRST) % 7 == 6  # a sentence ends before the separator
            b = ids[first + 1 : second]
            assert b == list(range(b[0], b[0] + len(b)))
            follows.append(b[0] == ids[first - 1] + 1)
            if len(b) >= 7:  # and one starts after it, where a sentence's end is near
                assert (b[0] - FIRST) % 7 == 0
    assert 55 < sum(follows) < 105


@pytest.mark.parametrize("segments", ["two", "one"])
@pytest.mark.parametrize("spans", ["words", "tokens", "single"])
@pytest.mark.parametrize("reuse", [16, 20, 5, 27])
def test_what_is_predicted_and_what_it_sees(segments: str, spans: str, reuse: int) -> None:
    first = -(-7 * reuse // 32)
    for batch in drawn(stream(segments=segments, spans=spans, reuse=reuse, bidirectional=True, memory=8), 5):
        targets, ids = batch["targets"], batch["input_ids"]
        assert torch.equal(targets.sort(1).values, targets)
        assert ((targets < reuse).sum(1) == first).all()
        assert torch.equal(batch["labels"], ids.gather(1, targets))
        assert not ((batch["labels"] == SEP) | (batch["labels"] == CLS)).any()
        block = torch.arange(32) // reuse
        rank, sees = batch["rank"], batch["sees"]
        base = (block * (reuse + 1)).to(rank.dtype)
        predicted = torch.zeros_like(ids, dtype=torch.bool).scatter(1, targets, True)
        functional = (ids == SEP) | (ids == CLS)
        assert torch.equal(rank - base == -1, ~predicted & ~functional)
        assert torch.equal(sees == rank, predicted)
        seen = rank[:, None, :] < sees[:, :, None]
        assert not seen[:, :reuse, reuse:].any()  # else the memory would know what is to be predicted
        assert seen[:, reuse:, :reuse].all()


@pytest.mark.parametrize("segments", ["two", "one"])
def test_without_a_memory_the_order_is_one_over_the_sequence(segments: str) -> None:
    """There is nothing that a later block could be told by."""
    for batch in drawn(stream(segments=segments), 5):
        rank, targets = batch["rank"], batch["targets"]
        context = torch.ones_like(rank, dtype=torch.bool).scatter(1, targets, False)
        context &= (batch["input_ids"] != SEP) & (batch["input_ids"] != CLS)
        assert torch.equal(rank == -1, context)
        told = rank.gather(1, targets)
        assert ((told >= 0) & (told < 32)).all()
        assert all(len(set(row.tolist())) == 7 for row in told)
        assert (batch["sees"] > 0).sum() > 0


def test_backward_rows_read_from_right_to_left() -> None:
    batches = stream(400, segments="one", bidirectional=True, memory=100)
    for epoch in range(2):
        previous = None
        for step in range(4):
            (batch,) = drawn(batches, 1)
            ids = batch["input_ids"] - FIRST
            assert torch.equal(ids[:2], ids[:2, :1] + torch.arange(32))
            assert torch.equal(ids[2:], ids[2:, :1] - torch.arange(32))
            # with each epoch the rows change their parts
            assert (ids // 100).tolist() == [[part] * 32 for part in ((0, 1, 2, 3), (2, 3, 0, 1))[epoch]]
            assert batch["context"].tolist() == [16 * step] * 4
            if previous is not None:
                assert torch.equal(ids[:, 0], previous[:, 16])
            previous = ids


def test_spans_are_words_in_both_directions() -> None:
    def paired(batch: Batch) -> tuple[int, int]:
        """How many predicted tokens there are whose word's other token is predicted too, and how many in all."""
        labels = [set((row - FIRST).tolist()) for row in batch["labels"]]
        return sum(sum(one ^ 1 in row for one in row) for row in labels), sum(map(len, labels))

    for spans, least, most in (("words", 0.7, 0.95), ("single", 0.0, 0.3)):  # single tokens fill up
        rows = drawn(stream(4000, spans=spans, bidirectional=True, length=128, reuse=64, predicted=22), 25)
        for half in (slice(0, 2), slice(2, 4)):
            counts = np.sum([paired({"labels": batch["labels"][half]}) for batch in rows], axis=0)
            assert least < counts[0] / counts[1] <= most


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("documents", [0, 1, 5, 30, 90])
def test_the_context_is_what_was_read_of_the_same_document(bidirectional: bool, documents: int) -> None:
    tokens = counted(1200, documents)
    memory = 50
    batches = stream(tokens=tokens, memory=memory, bidirectional=bidirectional, segments="one")
    places = stream(tokens=counted(1200), bidirectional=bidirectional, segments="one")
    ends = np.cumsum(tokens.ids == EOS)
    document = ends - (tokens.ids == EOS)  # an end of text is of the document it ends
    read: list[list[int]] = [[] for _ in range(4)]
    steps = (300 - 32 + 1) // 16
    for step, (batch, place) in enumerate(zip(drawn(batches, 2 * steps), drawn(places, 2 * steps), strict=True)):
        if step % steps == 0:
            read = [[] for _ in range(4)]
        for row, (where, context) in enumerate(zip(place["input_ids"] - FIRST, batch["context"].tolist(), strict=True)):
            own = where.tolist()
            expected = 0
            for before in reversed(read[row][-memory:]):
                if document[before] != document[own[0]]:
                    break
                expected += 1
            assert context == expected
            if read[row]:
                assert abs(read[row][-1] - own[0]) == 1
            read[row] += own[:16]


def test_without_a_memory_there_is_no_context() -> None:
    assert all(batch["context"].tolist() == [0] * 4 for batch in drawn(stream(), 5))


def test_what_is_drawn_stays_what_it_was() -> None:
    """Fixed by numpy's Philox stream: a change here would break every saved run."""
    (batch,) = drawn(stream(seed=1, bidirectional=True, memory=8), 1)
    assert batch["input_ids"][:, 0].tolist() == [19, 516, 1498, 2003]
    assert batch["targets"][0].tolist() == [4, 7, 10, 12, 17, 21, 27]
    assert batch["rank"][0][batch["targets"][0]].tolist() == [8, 2, 13, 10, 30, 24, 18]


@given(
    size=st.sampled_from([4, 8, 12]),
    world=st.sampled_from([1, 2]),
    stop=st.integers(0, 30),
    seed=st.integers(0, 2**64 - 1),
    bidirectional=st.booleans(),
)
def test_stopped_and_resumed_in_another_number_of_processes(
    size: int, world: int, stop: int, seed: int, bidirectional: bool
) -> None:
    given = {"batch_size": size, "seed": seed, "bidirectional": bidirectional, "memory": 20}
    whole = drawn(stream(**given), stop + 3)
    alone = stream(**given)
    drawn(alone, stop)
    state = alone.state_dict()
    assert state["drawn"] == stop
    parts = [stream(**given, rank=rank, world=world) for rank in range(world)]
    for part in parts:
        part.load_state_dict(state)
    for expected, *found in zip(whole[stop:], *(drawn(part, 3) for part in parts), strict=True):
        if bidirectional:  # each process holds rows of both directions, those ahead first
            halves = [{name: one.chunk(2) for name, one in batch.items()} for batch in found]
            joined = {name: torch.cat([half[name][way] for way in (0, 1) for half in halves]) for name in expected}
        else:
            joined = {name: torch.cat([batch[name] for batch in found]) for name in expected}
        assert same(joined, expected)
    assert {tuple(part.state_dict().items()) for part in parts} == {tuple((state | {"drawn": stop + 3}).items())}


def test_two_iterators_of_one_stream_go_on_where_the_other_stopped() -> None:
    batches = stream()
    parts = [*drawn(batches, 3), *drawn(batches, 3)]
    assert all(map(same, parts, drawn(stream(), 6)))


def test_epochs_and_rows_draw_anew() -> None:
    batches = drawn(stream(400), 12)
    assert len({tuple(row.tolist()) for batch in batches for row in batch["rank"]}) == 48


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": counted(2000, sha256="1" * 64)}, "fingerprint '0000000000000000', these '1111111111111111'"),
        ({"length": 33}, "length 32, these 33"),
        ({"reuse": 15}, "reuse 16, these 15"),
        ({"predicted": 6}, "predicted 7, these 6"),
        ({"seed": 1}, "seed 0, these 1"),
        ({"batch_size": 2}, "batch_size 4, these 2"),
        ({"memory": 3}, "memory 0, these 3"),
        ({"segments": "one"}, "segments 'two', these 'one'"),
        ({"spans": "single"}, "spans 'words', these 'single'"),
        ({"bidirectional": True}, "bidirectional False, these True"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_streams_state_is_refused(change: dict[str, Any], message: str) -> None:
    state = stream().state_dict()
    with pytest.raises(ValueError, match=message):
        stream(**change).load_state_dict(state)
    with pytest.raises(ValueError, match="have drawn -1: expected a count"):
        stream().load_state_dict(state | {"drawn": -1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 175}, "here: 175 tokens do not fill 4 rows of 32 that go on by 16, which takes 176: give more text"),
        (
            {"count": 187, "segments": "one"},
            "here: 187 tokens do not fill 4 rows of 32 that go on by 16, which takes 188",
        ),
        (
            {"batch_size": 3, "bidirectional": True},
            "a batch of 3 with rows of both directions: expected an even number",
        ),
        ({"world": 3}, "a batch of 4 does not divide among 3 processes: choose a multiple of 3"),
        ({"world": 4, "bidirectional": True}, "among 4 processes with as many rows of each direction: choose a multip"),
        ({"world": 2, "rank": 2}, "rank 2 of 2 processes: expected 0 to 1"),
        ({"batch_size": 0}, "a batch of 0 among 1 processes: expected one or more of each"),
        ({"seed": -1}, "seed -1: expected a number from 0"),
        ({"reuse": 0}, "0 reused of 32 tokens: expected 1 to 32"),
        ({"reuse": 33}, "33 reused of 32 tokens"),
        ({"reuse": 28}, "28 of 32 tokens are reused, which leaves 4 for two segments: expected 5 or more"),
        ({"predicted": 0}, "0 predicted of 32 tokens: expected 1 to 27, in their share of each block"),
        ({"predicted": 33}, "33 predicted of 32 tokens"),
        ({"predicted": 29}, "29 predicted of 32 tokens: expected 1 to 27, in"),
        ({"memory": -1}, "a memory of -1 tokens"),
        ({"segments": "three"}, "segments 'three': expected one of two, one"),
        ({"spans": "phrases"}, "spans 'phrases': expected one of words, tokens, single"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_misuse(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream(**change)


@pytest.mark.parametrize("change", [{"count": 176}, {"count": 188, "segments": "one"}, {"predicted": 26}], ids=str)
def test_the_least_that_is_enough(change: dict[str, Any]) -> None:
    drawn(stream(**change), 3)


def test_one_block_without_reuse_of_a_part() -> None:
    (batch,) = drawn(stream(segments="one", reuse=32, predicted=32), 1)
    assert torch.equal(batch["targets"], torch.arange(32).expand(4, -1))
    assert torch.equal(batch["rank"].sort(1).values, torch.arange(32, dtype=torch.int32).expand(4, -1))


def test_packed_text(tmp_path: Path) -> None:
    texts = [f"The cat number {number} sat. The dog number {number} ran!" for number in range(200)]
    tokenizer, _ = prepared(tokenizers.train_bpe(texts, 290))
    tokens = pack(
        (Document(text, "text", str(place)) for place, text in enumerate(texts)), tokenizer, tmp_path / "packed"
    )
    batches = PermutationBatches(tokens, Vocabulary.of(tokenizer), 2, 64, 32, 10, 0, memory=32, bidirectional=True)
    (batch,) = drawn(batches, 1)
    text = tokenizer.decode(batch["input_ids"][0])
    assert text.count("<sep>") == 2
    assert text.endswith("<sep><cls>")
    before = text.split("<sep>")[0]
    assert before.removesuffix(tokenizers.EOS)[-1] in ".!"
    backward = tokenizer.decode(batch["input_ids"][1].flip(0)).split("<sep>")[-1]
    assert "number" in backward
