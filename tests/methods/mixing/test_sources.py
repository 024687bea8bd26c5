"""Sources: rows in an order of each epoch's own, and streams in shards."""

from collections.abc import Iterator
from typing import Any

import datasets
import pytest
import torch
from torch.utils.data import IterableDataset

from shoestring.methods.mixing.sources import Rows, Stream, length, token_lengths


class Counted(list[int]):
    """Numbers that can be fetched together, and remember how often they were."""

    calls = 0

    def __getitems__(self, indices: list[int]) -> list[int]:
        self.calls += 1
        return [self[index] for index in indices]


class Numbers:
    """A stream that starts anew each time."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))


def hugging(count: int, shards: int = 1, form: str | None = None) -> Any:
    made = datasets.Dataset.from_dict({"x": list(range(count))}).with_format(form)
    return made.to_iterable_dataset(num_shards=shards)


def generated(count: int) -> Any:
    return datasets.IterableDataset.from_generator(lambda: ({"x": number} for number in range(count)))


# rows


def test_each_epoch_holds_each_row_once_in_an_order_of_its_own() -> None:
    rows = Rows("a", list(range(100)), seed=1)
    first, second = rows.read(range(100)), rows.read(range(100, 200))
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
    assert first != sorted(first)


def test_an_order_is_of_the_seed_the_name_and_the_epoch_alone() -> None:
    """The numbers are written down: they may not change with a version of numpy, or between processes."""
    rows = Rows("a", list(range(8)), seed=1)
    assert rows.order(0).tolist() == Rows("a", [0] * 8, seed=1).order(0).tolist()
    assert rows.order(0).tolist() != Rows("b", list(range(8)), seed=1).order(0).tolist()
    assert rows.order(0).tolist() != Rows("a", list(range(8)), seed=2).order(0).tolist()
    assert rows.order(0).tolist() == [2, 1, 6, 4, 0, 3, 5, 7]


def test_a_read_may_cross_epochs_and_go_back() -> None:
    rows = Rows("a", list(range(3)), seed=0)
    whole = rows.read(range(12))
    assert rows.read([2, 3, 11]) == [whole[2], whole[3], whole[11]]
    assert rows.read([0]) == [whole[0]]
    assert rows.read([]) == []


def test_rows_are_fetched_together_where_they_can_be() -> None:
    source = Counted(range(50))
    assert Rows("a", source, 0).read(range(40)) == Rows("a", list(range(50)), 0).read(range(40))
    assert source.calls == 1


def test_a_source_that_gives_too_few_is_named() -> None:
    class Short(Counted):
        def __getitems__(self, indices: list[int]) -> list[int]:
            return []

    with pytest.raises(ValueError, match="source 'a' gave 0 rows for 2"):
        Rows("a", Short(range(5)), 0).read([0, 1])


def test_a_hugging_face_data_set_is_rows() -> None:
    made = datasets.Dataset.from_dict({"x": list(range(20))}).with_format("torch")
    assert length("a", made) == 20
    assert sorted(int(row["x"]) for row in Rows("a", made, 0).read(range(20))) == list(range(20))


# what a source may be


class Sized(IterableDataset[int]):
    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


def test_length_tells_rows_from_streams() -> None:
    assert length("a", [1, 2]) == 2
    assert length("a", torch.utils.data.TensorDataset(torch.zeros(4))) == 4
    assert length("a", Numbers(3)) is None
    assert length("a", Sized()) is None
    assert length("a", hugging(3)) is None


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ([], "source 'a' is empty"),
        ({"train": [1]}, "source 'a' is a dict: expected rows by number or a stream, such as one part"),
        ("text", "source 'a' is a str"),
        (iter([1]), "source 'a' is a list_iterator, which is read only once"),
        (3, "source 'a' is a int: expected __len__ and __getitem__"),
    ],
)
def test_what_is_no_source_is_named(source: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        length("a", source)


# streams


def take(stream: Stream, count: int) -> list[Any]:
    found = [next(stream) for _ in range(count)]
    return [int(sample["x"]) if isinstance(sample, dict) else sample for sample in found]


MAKERS = [Numbers, generated, hugging, lambda n: hugging(n, 4), lambda n: hugging(n, 4, "torch")]


@pytest.mark.parametrize("make", MAKERS, ids=["plain", "generator", "one shard", "four shards", "torch"])
def test_the_shards_of_a_stream_hold_each_sample_once_a_pass(make: Any) -> None:
    shards = [Stream("a", make(12), 3, index) for index in range(3)]
    sizes = (6, 3, 3) if _four(make) else (4, 4, 4)  # of three rows each of the four shards of its own, two go to one
    passes = [take(shard, size) for shard, size in zip(shards, sizes, strict=True)]
    assert sorted(sample for read in passes for sample in read) == list(range(12))
    again = [take(shard, len(first)) for shard, first in zip(shards, passes, strict=True)]
    assert again == passes


def _four(make: Any) -> bool:
    made = make(12)
    return isinstance(made, datasets.IterableDataset) and made.num_shards == 4


@pytest.mark.parametrize("make", MAKERS, ids=["plain", "generator", "one shard", "four shards", "torch"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_stream_goes_on_where_another_stood(make: Any, shards: int) -> None:
    whole = Stream("a", make(12), shards, 1 % shards)
    samples = take(whole, 40)
    for position in (0, 1, 3, 4, 6, 11, 12, 13, 24, 30):
        other = Stream("a", make(12), shards, 1 % shards, position)
        assert take(other, 40 - position) == samples[position:], position


@pytest.mark.parametrize("make", [Numbers, hugging, generated])
def test_an_empty_stream_is_named(make: Any) -> None:
    with pytest.raises(ValueError, match="source 'a' is empty in shard 0 of 1"):
        next(Stream("a", make(0) if make is not hugging else hugging(1).skip(1)))
    with pytest.raises(ValueError, match="source 'a' is empty in shard 2 of 3"):
        next(Stream("a", make(2), 3, 2, 5))


def test_a_stream_of_tables_is_refused() -> None:
    with pytest.raises(ValueError, match="source 'a' comes as Table: expected columns; use with_format"):
        next(Stream("a", hugging(3, form="arrow")))


# tokens


def test_token_lengths_are_means_over_rows_that_are_spread_evenly() -> None:
    texts = ["a" * number for number in range(100)]
    assert token_lengths({"a": texts}, len, samples=4) == {"a": (0 + 25 + 50 + 75) / 4}
    assert token_lengths({"a": texts, "b": ["xx"]}, len) == {"a": 49.5, "b": 2.0}


def test_token_lengths_of_a_stream_are_those_of_its_first_samples() -> None:
    assert token_lengths({"a": Numbers(100)}, float, samples=3) == {"a": 1.0}
    assert token_lengths({"a": hugging(100)}, lambda row: row["x"], samples=5) == {"a": 2.0}
    with pytest.raises(ValueError, match="source 'a' is empty"):
        token_lengths({"a": Numbers(0)}, float)
    with pytest.raises(ValueError, match="samples is 0"):
        token_lengths({"a": [1]}, float, samples=0)
