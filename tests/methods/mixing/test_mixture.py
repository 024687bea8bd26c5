"""A mixture as a stream of batches: what it gives, that it may change while it is read, and that it goes on."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

import datasets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from shoestring.methods.mixing.mixture import Mixture
from shoestring.methods.mixing.sources import token_lengths

SIZES = {"a": 7, "b": 11, "c": 300}


class Gathered(list[Any]):
    """Rows that can be fetched together."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


class Endless:
    """A stream that is not."""

    def __init__(self, start: int, count: int) -> None:
        self.start, self.count = start, count

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter([{"x": torch.tensor(self.start + number)} for number in range(self.count)])


def rows(start: int, count: int) -> list[dict[str, Tensor]]:
    return [{"x": torch.tensor(start + number)} for number in range(count)]


def sources(kind: type = list) -> dict[str, Any]:
    """Rows that tell where they come from: thousands name the source."""
    return {name: kind(rows(1000 * number, size)) for number, (name, size) in enumerate(SIZES.items())}


def mixed(**more: Any) -> Mixture:
    given = {"sources": sources(), "weights": {"a": 0.125, "b": 0.25, "c": 0.625}, "batch_size": 8} | more
    return Mixture(**given)


def take(stream: Any, batches: int) -> list[list[int]]:
    return [batch["x"].tolist() for batch in islice(iter(stream), batches)]


def random_weights(rng: Random) -> dict[str, float]:
    raw = [rng.random() for _ in SIZES]
    return {name: weight / sum(raw) for name, weight in zip(SIZES, raw, strict=True)}


def flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


# by hand


def test_eight_samples_by_eighths() -> None:
    for batch in take(mixed(), 20):
        assert Counter(number // 1000 for number in batch) == {0: 1, 1: 2, 2: 5}


def test_without_weights_all_are_alike() -> None:
    mixture = mixed(weights=None, batch_size=3)
    assert all(sorted(number // 1000 for number in batch) == [0, 1, 2] for batch in take(mixture, 20))
    assert mixture.weights == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    assert mixture.counts() == {"a": 20, "b": 20, "c": 20}
    assert mixture.epochs == {"a": 20 / 7, "b": 20 / 11, "c": 20 / 300}
    assert mixture.batches == 20


def test_each_row_comes_once_an_epoch() -> None:
    read = [number for number in flat(take(mixed(), 70)) if number < 1000]
    assert len(read) == 70
    for epoch in range(10):
        assert sorted(read[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert read[:7] != read[7:14]


def test_an_order_does_not_depend_on_the_other_sources_or_the_weights() -> None:
    alone = flat(take(Mixture({"b": sources()["b"]}, batch_size=11), 2))
    assert [number for number in flat(take(mixed(), 11)) if 1000 <= number < 2000] == alone


# what holds


@settings(max_examples=30)
@given(st.lists(st.floats(0.001, 1), min_size=3, max_size=3), st.integers(1, 9), st.integers(0, 1 << 63))
def test_every_batch_keeps_the_counts_within_one(raw: list[float], size: int, seed: int) -> None:
    weights = {name: weight / sum(raw) for name, weight in zip(SIZES, raw, strict=True)}
    mixture = mixed(weights=weights, batch_size=size, seed=seed)
    for number, _ in enumerate(islice(mixture, 30), 1):
        counts = mixture.counts()
        assert all(abs(counts[name] - weights[name] * size * number) < 1 for name in SIZES)


@pytest.mark.parametrize("kind", [list, Gathered])
def test_what_was_planned_does_not_show(kind: type) -> None:
    """Looked at, saved and re-weighed in the midst of its plans it gives what is read batch by batch."""

    def history(planned: bool) -> list[list[int]]:
        mixture, rng, found = mixed(sources=sources(kind), delay=3), Random(1), []
        stream = iter(mixture)
        for step in range(120):
            found.append(next(stream)["x"].tolist())
            if not planned:
                mixture.load_state_dict(mixture.state_dict())
                stream = iter(mixture)
            if rng.random() < 0.1:
                mixture.set_weights(random_weights(rng))
            if step % 7 == 0:
                mixture.counts(), mixture.weights
        return found

    assert history(planned=True) == history(planned=False)


def test_weights_change_after_the_delay() -> None:
    for delay in (0, 1, 5):
        mixture = mixed(delay=delay)
        stream = iter(mixture)
        next(stream)
        mixture.set_weights({"a": 1, "b": 0, "c": 0})
        assert (mixture.weights["a"] == 1) == (delay == 0)
        only = [{number // 1000 for number in next(stream)["x"].tolist()} == {0} for _ in range(8)]
        assert only == [False] * delay + [True] * (8 - delay)
        assert mixture.weights == {"a": 1, "b": 0, "c": 0}


def test_counts_follow_weights_that_change_often() -> None:
    mixture, rng, target = mixed(batch_size=2), Random(0), dict.fromkeys(SIZES, 0.0)
    stream = iter(mixture)
    for _ in range(2000):
        weights = random_weights(rng)
        mixture.set_weights(weights)
        next(stream)
        target = {name: target[name] + 2 * weights[name] for name in SIZES}
        counts = mixture.counts()
        assert all(-1.5 < counts[name] - target[name] < 1 for name in SIZES)


def test_weights_as_shares_of_tokens() -> None:
    texts = {"short": ["x" * 10] * 50, "long": ["x" * (40 + number % 3) for number in range(90)]}
    lengths = token_lengths(texts, len)
    assert lengths == {"short": 10, "long": 41}
    weights = {"short": 0.3, "long": 0.7}
    mixture = Mixture(texts, weights, batch_size=16, tokens_per_sample=lengths, collate=list)
    tokens = Counter[str]()
    for batch in islice(mixture, 100):
        for text in batch:
            tokens["short" if len(text) == 10 else "long"] += len(text)
    assert tokens["short"] / tokens.total() == pytest.approx(0.3, abs=0.002)


# repeats


def test_repeats_end_a_source_and_its_share_goes_to_the_others() -> None:
    mixture = mixed(repeats={"a": 2, "b": 1.5})
    found = Counter(flat(take(mixture, 60)))
    assert [found[number] for number in range(7)] == [2] * 7
    assert sum(found[1000 + number] for number in range(11)) == 16
    assert mixture.exhausted == ("a", "b")
    assert mixture.epochs["a"] == 2


def test_where_all_are_exhausted_the_stream_ends() -> None:
    mixture, read = mixed(sources={"a": rows(0, 7), "b": rows(1000, 11)}, weights=None, repeats=1.0, batch_size=4), []
    stream = iter(mixture)
    for _ in range(4):
        read += next(stream)["x"].tolist()
    with pytest.raises(ValueError, match="all sources with a weight are exhausted after 16 samples: a, b do not fill"):
        next(stream)
    assert len(read) == len(set(read)) == 16
    assert mixture.counts() == {"a": 7, "b": 9}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"sources": {}}, "no sources to mix"),
        ({"sources": {"a": []}}, "source 'a' is empty"),
        ({"weights": {"a": 1.0}}, "missing 'b', 'c'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"world": 3}, "a batch of 8 does not divide among 3 processes: choose a multiple"),
        ({"rank": 2, "world": 2}, "rank 2 of 2 processes: expected 0 to 1"),
        ({"seed": -1}, "seed -1"),
        ({"delay": -1}, "delay is -1"),
        ({"repeats": {"d": 1}}, "repeats of 'd', which is no source: expected some of a, b, c"),
        ({"repeats": 0.01}, "repeats of 'a' is 0.01: expected a number that leaves one of its 7 samples"),
        ({"repeats": float("inf")}, "repeats of 'a' is inf"),
        ({"tokens_per_sample": {"a": 1.0, "d": 2.0}}, "'b', 'c', 'd' unknown or missing"),
        ({"tokens_per_sample": {"a": 1.0, "b": 2.0, "c": 0}}, "tokens_per_sample of 'c' is 0"),
        (
            {"sources": {"a": Endless(0, 3)}, "weights": None, "repeats": 1},
            "repeats of 'a', a stream of unknown length",
        ),
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mixed(**more)


# several processes


def test_the_parts_of_processes_are_the_whole() -> None:
    whole = take(mixed(), 30)
    parts = [take(mixed(rank=rank, world=4), 30) for rank in range(4)]
    assert [sum(batch, []) for batch in zip(*parts, strict=True)] == whole  # noqa: RUF017


def test_single_samples_are_dealt_out() -> None:
    whole = [int(sample["x"]) for sample in islice(mixed(batch_size=None), 60)]
    assert whole == flat(take(mixed(), 8))[:60]
    for rank in range(3):
        part = [int(sample["x"]) for sample in islice(mixed(batch_size=None, rank=rank, world=3), 20)]
        assert part == whole[rank::3]
    loaded = take(DataLoader(mixed(batch_size=None), batch_size=8), 5)
    assert loaded == take(mixed(), 5)


def test_streams_are_dealt_out_among_processes() -> None:
    """Each process reads every second sample of a stream, so that none comes twice a pass."""
    parts = []
    for rank in range(2):
        mixture = mixed(sources=sources() | {"c": Endless(2000, 300)}, rank=rank, world=2)
        parts.append([number for number in flat(take(mixture, 40)) if number >= 2000])
    assert all(number % 2 == 0 for number in parts[0])
    assert all(number % 2 == 1 for number in parts[1])
    assert len(set(parts[0]) | set(parts[1])) == len(parts[0]) + len(parts[1]) == 200


# going on


@pytest.mark.parametrize("more", [{}, {"delay": 6}, {"repeats": {"a": 2}}, {"batch_size": None}])
def test_it_goes_on_from_any_batch(more: dict[str, Any]) -> None:
    given = {"sources": sources(Gathered) | {"b": Endless(1000, 11)}} | more
    mixture, states, read = mixed(**given), [], []
    rng = Random(2)
    for step, batch in enumerate(islice(mixture, 50)):
        read.append(batch["x"].tolist())
        if step % 9 == 4:
            mixture.set_weights(random_weights(rng))
        states.append(json.loads(json.dumps(mixture.state_dict())))
    rng = Random(2)
    for place, state in enumerate(states):
        other = mixed(**given)
        other.load_state_dict(state)
        changed = [step for step in range(50) if step % 9 == 4]
        until = next((step for step in changed if step > place), 49)  # the change after is not in the state
        assert take(other, until - place) == read[place + 1 : until + 1], place


def test_weights_that_were_set_before_it_went_back_are_forgotten() -> None:
    mixture, whole = mixed(), mixed()
    take(mixture, 5)
    place = mixture.state_dict()
    take(mixture, 1)
    mixture.set_weights({"a": 1.0, "b": 0.0, "c": 0.0})
    take(mixture, 1)
    mixture.load_state_dict(place)
    take(mixture, 6)
    take(whole, 11)
    assert mixture.state_after(11, place) == whole.state_dict() == mixture.state_dict()


def test_it_goes_on_in_another_number_of_processes() -> None:
    whole = take(mixed(), 20)
    first = mixed(rank=1, world=2)
    take(first, 7)
    second = mixed(rank=0, world=4)
    second.load_state_dict(first.state_dict())
    assert take(second, 3) == [batch[:2] for batch in whole[7:10]]


def test_iterating_again_goes_on() -> None:
    mixture, whole = mixed(), take(mixed(), 9)
    assert take(mixture, 4) + take(mixture, 5) == whole


class Interrupted:
    """What fails once, at one of its reads: rows, or a stream."""

    def __init__(self, count: int, at: int) -> None:
        self.samples, self.left = rows(5000, count), at

    def read(self, place: int) -> dict[str, Tensor]:
        self.left -= 1
        if not self.left:
            raise OSError("the line is down")
        return self.samples[place]


class InterruptedRows(Interrupted):
    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return self.read(place)


class InterruptedStream(Interrupted):
    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self.read(place) for place in range(len(self.samples)))


@pytest.mark.parametrize("kind", [InterruptedRows, InterruptedStream])
def test_a_source_that_fails_costs_no_batch(kind: type) -> None:
    def of(at: int) -> Mixture:
        streams = {"a": Endless(0, 5), "b": kind(9, at), "c": Endless(1000, 50)}
        return mixed(sources=streams, weights={"a": 0.25, "b": 0.5, "c": 0.25})

    whole = take(of(0), 9)
    for at in (1, 2, 7, 12):
        mixture, read = of(at), []
        with pytest.raises(OSError, match="the line is down"):
            read.extend(batch["x"].tolist() for batch in mixture)
        assert mixture.batches == len(read)
        again = of(0)
        again.load_state_dict(json.loads(json.dumps(mixture.state_dict())))
        assert read + take(again, 9 - len(read)) == whole
        assert read + take(mixture, 9 - len(read)) == whole


def test_nor_does_a_batch_that_could_not_be_made() -> None:
    def collate(samples: list[Any]) -> Any:
        if fails:
            raise OSError("no room")
        return [int(sample["x"]) for sample in samples]

    fails = False
    given = {"sources": sources() | {"c": Endless(2000, 300)}, "collate": collate}
    whole = list(islice(mixed(**given), 6))
    mixture = mixed(**given)
    read = list(islice(mixture, 3))
    fails = True
    with pytest.raises(OSError, match="no room"):
        next(iter(mixture))
    fails = False
    assert read + list(islice(mixture, 3)) == whole


def test_another_mixture_is_refused_by_what_differs() -> None:
    state = mixed().state_dict()
    for more, words in (
        ({"batch_size": 16}, "the saved mixture has batch_size 8, this 16: resume with the same"),
        ({"seed": 1}, "has seed 0, this 1"),
        ({"sources": {**sources(), "c": rows(0, 5)}}, "has lengths .*'c': 300.*, this .*'c': 5"),
        ({"repeats": 3}, "has caps"),
    ):
        with pytest.raises(ValueError, match=words):
            mixed(**more).load_state_dict(state)

    class Marked(list[Any]):
        fingerprint = "f00"

    with pytest.raises(ValueError, match=r"has fingerprints \{\}, this \{'a': 'f00'\}"):
        mixed(sources=sources() | {"a": Marked(rows(0, 7))}).load_state_dict(state)
    streams = mixed(sources={**sources(), "c": Endless(0, 9)})
    take(streams, 2)
    with pytest.raises(ValueError, match=r"read by 1 shards \(processes x workers\), these by 2"):
        mixed(sources={**sources(), "c": Endless(0, 9)}, rank=1, world=2).load_state_dict(streams.state_dict())


# Hugging Face


@pytest.mark.parametrize("form", [None, "torch", "numpy"])
def test_hugging_face_data_sets(form: str | None) -> None:
    made: dict[str, Any] = {
        name: datasets.Dataset.from_dict({"x": list(range(1000 * n, 1000 * n + size))}).with_format(form)
        for n, (name, size) in enumerate(SIZES.items())
    }
    assert take(mixed(sources=made), 40) == take(mixed(), 40)
    streams = {name: one.to_iterable_dataset(num_shards=4) for name, one in made.items()}
    read = flat(take(mixed(sources=streams), 40))
    assert [number for number in read if number < 1000] == list(range(7)) * 5 + list(range(5))


def test_lists_are_not_taken_for_columns() -> None:
    listed = datasets.Dataset.from_dict({"ids": [[1, 2], [3, 4]]})
    with pytest.raises(ValueError, match=r"a sample's 'ids' is a list, of which default_collate would make columns"):
        next(iter(Mixture({"a": listed}, batch_size=2)))
    batch = next(iter(Mixture({"a": listed.with_format("torch")}, batch_size=2)))
    assert batch["ids"].shape == (2, 2)
    assert next(iter(Mixture({"a": listed}, batch_size=2, collate=list)))[0]["ids"] in ([1, 2], [3, 4])
    with pytest.raises(ValueError, match="sources are a list: expected each under its name"):
        Mixture([listed], batch_size=2)  # type: ignore[arg-type]


def test_a_hugging_face_stream_from_a_generator() -> None:
    generated = datasets.IterableDataset.from_generator(lambda: iter(rows(2000, 30)))
    read = [number for number in flat(take(mixed(sources=sources() | {"c": generated}), 9)) if number >= 2000]
    assert read == [*range(2000, 2030), *range(2000, 2015)]


def test_a_stream_of_torch() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(rows(2000, 300))

    read = [number for number in flat(take(mixed(sources={**sources(), "c": Stream()}), 80)) if number >= 2000]
    assert read == [*range(2000, 2300), *range(2000, 2100)]


# alone


def test_alone_in_a_bare_loop() -> None:
    torch.manual_seed(0)
    easy = [{"x": torch.tensor([1.0, number / 8]), "y": torch.tensor([2.0])} for number in range(8)]
    hard = [{"x": torch.tensor([number / 8, 1.0]), "y": torch.tensor([number / 4])} for number in range(8)]
    mixture, model = Mixture({"easy": easy, "hard": hard}, batch_size=8), nn.Linear(2, 1)
    optimizer, losses = torch.optim.SGD(model.parameters(), 0.2), []
    for step, batch in zip(range(60), mixture, strict=False):
        loss = nn.functional.mse_loss(model(batch["x"]), batch["y"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step == 30:
            mixture.set_weights({"easy": 0.25, "hard": 0.75})
    assert losses[-1] < 0.1 * losses[0]
    assert mixture.counts()["hard"] > mixture.counts()["easy"]
