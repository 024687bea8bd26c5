from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.batches import TokenBatches, epoch_starts, windows
from shoestring.data.tokens import Tokens


def counted(count, sha256="0" * 64):
    """Tokens whose ids are their own places."""
    ids = np.arange(count, dtype=np.uint32)
    return Tokens("here", ids, count, text_bytes=count, documents=1, tokenizer="", source="", sha256=sha256)


def drawn(batches, count):
    return [batch["input_ids"] for batch in islice(batches, count)]


def test_an_epoch_draws_each_window_once_and_the_next_in_another_order():
    batches = TokenBatches(counted(10 * 8 + 7), batch_size=5, length=8, seed=0)
    first, second = torch.cat(drawn(batches, 2)), torch.cat(drawn(batches, 2))
    for epoch in (first, second):
        assert epoch.shape == (10, 8)
        assert epoch.dtype == torch.int64
        assert torch.equal(epoch - epoch[:, :1], torch.arange(8).expand(10, 8))
        assert sorted((epoch[:, 0] - epoch[:, 0].min()).tolist()) == list(range(0, 80, 8))
        assert 0 <= epoch[:, 0].min() < 8
    assert not torch.equal(first, second)


def test_epochs_start_at_other_places():
    starts = {int(epoch_starts(10, 8, 0, epoch).min()) for epoch in range(40)}
    assert starts == set(range(8))


def test_the_order_stays_what_it_was():
    """Fixed by numpy's Philox stream: a change here would break every saved run."""
    assert epoch_starts(5, 100, seed=1, epoch=0).tolist() == [287, 487, 187, 87, 387]
    assert epoch_starts(5, 100, seed=1, epoch=1).tolist() != epoch_starts(5, 100, seed=2, epoch=0).tolist()


def test_against_the_slow_way():
    tokens = counted(1003)
    length, size, seed = 7, 4, 3
    count = (1003 - length + 1) // length
    order = [start for epoch in range(3) for start in epoch_starts(count, length, seed, epoch).tolist()]
    slow = [[list(range(start, start + length)) for start in order[at : at + size]] for at in range(0, 400, size)]
    assert [batch.tolist() for batch in drawn(TokenBatches(tokens, size, length, seed), 100)] == slow


@given(
    count=st.integers(30, 400),
    length=st.integers(1, 9),
    world=st.sampled_from([1, 2, 3]),
    stop=st.integers(0, 60),
    seed=st.integers(0, 2**64 - 1),
)
def test_stopped_and_resumed_in_another_number_of_processes(count, length, world, stop, seed):
    tokens = counted(count)
    if (count - length + 1) // length < 6:
        return
    whole = drawn(TokenBatches(tokens, 6, length, seed), stop + 5)
    alone = TokenBatches(tokens, 6, length, seed)
    drawn(alone, stop)
    state = alone.state_dict()
    assert state["drawn"] == stop
    ranks = [TokenBatches(tokens, 6, length, seed, rank, world) for rank in range(world)]
    for rank in ranks:
        rank.load_state_dict(state)
    parts = zip(*(drawn(rank, 5) for rank in ranks), strict=True)
    assert all(torch.equal(torch.cat(part), batch) for part, batch in zip(parts, whole[stop:], strict=True))
    assert {tuple(rank.state_dict().items()) for rank in ranks} == {tuple((state | {"drawn": stop + 5}).items())}


def test_two_iterators_of_one_stream_go_on_where_the_other_stopped():
    batches = TokenBatches(counted(1000), 2, 8, seed=0)
    parts = [*drawn(batches, 3), *drawn(batches, 3)]
    whole = drawn(TokenBatches(counted(1000), 2, 8, seed=0), 6)
    assert all(map(torch.equal, parts, whole))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": counted(1000, sha256="1" * 64)}, "fingerprint '0000000000000000', these '1111111111111111'"),
        ({"length": 9}, "length 8, these 9"),
        ({"seed": 1}, "seed 0, these 1"),
        ({"batch_size": 4}, "batch_size 2, these 4"),
    ],
)
def test_another_streams_state_is_refused(change, message):
    arguments = {"tokens": counted(1000), "batch_size": 2, "length": 8, "seed": 0}
    state = TokenBatches(**arguments).state_dict()
    with pytest.raises(ValueError, match=message):
        TokenBatches(**(arguments | change)).load_state_dict(state)
    with pytest.raises(ValueError, match=r"have drawn -1: expected a count"):
        TokenBatches(**arguments).load_state_dict(state | {"drawn": -1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": counted(22)}, r"22 tokens do not fill a batch of 2 windows of 8, which takes 23: give more text"),
        ({"world": 3}, "a batch of 2 does not divide among 3 processes: choose a multiple"),
        ({"world": 2, "rank": 2}, "rank 2 of 2 processes: expected 0 to 1"),
        ({"seed": -1}, r"seed -1: expected a number from 0"),
        ({"length": 0}, "length is 0: expected one or more"),
        ({"batch_size": 0}, "batch_size is 0: expected one or more"),
    ],
)
def test_misuse(change, message):
    arguments = {"tokens": counted(23), "batch_size": 2, "length": 8, "seed": 0}
    TokenBatches(**arguments)
    with pytest.raises(ValueError, match=message):
        TokenBatches(**(arguments | change))


def test_windows_overlap_by_one_and_the_last_is_filled_up():
    first, last = windows(counted(8), length=4, batch_size=2)
    assert first["input_ids"].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6]]
    assert first["labels"].tolist() == [[-100, 1, 2, 3], [-100, 4, 5, 6]]
    assert last["input_ids"].tolist() == [[6, 7, 0, 0]]
    assert last["labels"].tolist() == [[-100, 7, -100, -100]]


@given(
    count=st.integers(2, 100),
    length=st.integers(2, 20),
    batch_size=st.integers(1, 6),
    limit=st.none() | st.integers(1, 120),
)
def test_every_token_but_the_first_is_a_target_once_or_as_many_as_the_limit_lets(count, length, batch_size, limit):
    targets = []
    for batch in windows(counted(count), length, batch_size, limit):
        input_ids, labels = batch["input_ids"], batch["labels"]
        assert input_ids.shape == labels.shape
        assert 1 <= len(input_ids) <= batch_size
        assert input_ids.shape[1] == length
        for row, column in (labels != -100).nonzero().tolist():
            assert labels[row, column] == input_ids[row, column] == input_ids[row, column - 1] + 1
            targets.append(int(labels[row, column]))
    if limit is None or limit >= count - 1:
        assert targets == list(range(1, count))
    elif limit < length - 1:
        assert targets == list(range(1, limit + 1))
    else:
        assert targets == sorted(set(targets))
        assert len(targets) == limit // (length - 1) * (length - 1)


def test_limited_windows_are_spread_over_the_text():
    (batch,) = windows(counted(101), length=11, batch_size=8, limit=40)
    assert batch["input_ids"][:, 0].tolist() == [0, 20, 50, 70]


def test_windows_in_a_bare_loop_score_as_one_long_window_does():
    torch.manual_seed(0)
    ids = torch.randint(0, 11, (50,))
    tokens = Tokens("here", ids.numpy().astype(np.uint16), 50, 50, 1, "", "", "0" * 64)
    table = torch.randn(11, 11)  # a bigram model: a window's border costs it nothing
    whole = torch.nn.functional.cross_entropy(table[ids[:-1]], ids[1:], reduction="sum")
    summed = torch.tensor(0.0)
    for batch in windows(tokens, length=7, batch_size=3):
        logits = table[batch["input_ids"]][:, :-1].flatten(0, 1)
        summed += torch.nn.functional.cross_entropy(logits, batch["labels"][:, 1:].flatten(), reduction="sum")
    assert summed == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 1}, "windows of 1 over 9 tokens hold no target"),
        ({"tokens": counted(1)}, "windows of 4 over 1 tokens hold no target"),
        ({"batch_size": 0}, "batch_size is 0: expected one or more"),
        ({"limit": 0}, "limit is 0: expected one or more"),
    ],
)
def test_windows_without_a_target_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        list(windows(**({"tokens": counted(9), "length": 4, "batch_size": 2} | arguments)))
