"""What samples come from: rows that are fetched by number, in a shuffled order, or a stream that is read in its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset

CHUNK = 32  # rows that a Hugging Face stream is asked for at a time


@runtime_checkable
class MapStyle(Protocol):
    """Rows that are fetched by number: a list, a torch `Dataset`, a Hugging Face `Dataset`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class Gathered(Protocol):
    """Rows of which many are fetched in one call, as torch's own loader does."""

    def __getitems__(self, indices: list[int], /) -> Sequence[Any]: ...


@runtime_checkable
class Sharded(Protocol):
    """A stream that divides itself and skips, and is read in chunks: a Hugging Face `IterableDataset`."""

    @property
    def num_shards(self) -> int: ...

    def shard(self, num_shards: int, index: int) -> Any: ...

    def skip(self, n: int) -> Any: ...

    def iter(self, batch_size: int) -> Iterator[Mapping[str, Any]]: ...


@runtime_checkable
class Marked(Protocol):
    """Data that tell what they hold, so that a resumed stream knows them again."""

    @property
    def fingerprint(self) -> str: ...


Source: TypeAlias = "MapStyle | Iterable[Any]"


def length(name: str, source: Source) -> int | None:
    """How many rows a source has; None of a stream. Raises ValueError where it is empty, or neither."""
    if isinstance(source, Mapping | str | bytes):
        raise ValueError(
            f"source {name!r} is a {type(source).__name__}: expected rows by number or a stream, such as one "
            "part of it, or what a file holds"
        )
    if isinstance(source, MapStyle) and not isinstance(source, IterableDataset):
        if not len(source):
            raise ValueError(f"source {name!r} is empty: leave it out, or give it rows")
        return len(source)
    if isinstance(source, Iterator):
        raise ValueError(
            f"source {name!r} is a {type(source).__name__}, which is read only once: give what starts anew each time"
        )
    if not isinstance(source, Iterable):
        raise ValueError(
            f"source {name!r} is a {type(source).__name__}: expected __len__ and __getitem__, or something to iterate"
        )
    return None


class Rows:
    """A map-style source in an order of its own for each epoch, from (seed, name, epoch) alone.

    Memory: four bytes a row for each epoch in use, eight for a moment while it is sorted.
    """

    def __init__(self, name: str, source: MapStyle, seed: int) -> None:
        self.name, self._source, self._rows = name, source, len(source)
        self.gathered = source if isinstance(source, Gathered) else None
        self._key = np.array([seed, _mark(name)], dtype=np.uint64)
        self._orders: dict[int, NDArray[np.uint32 | np.int64]] = {}

    def read(self, numbers: Sequence[int]) -> list[Any]:
        """The samples of these numbers, counted over all epochs: number c is place c % rows of epoch c // rows."""
        if not numbers:
            return []
        places = self.places(numbers)
        if self.gathered is None:
            return [self._source[place] for place in places]
        found = list(self.gathered.__getitems__(places))
        if len(found) != len(places):
            raise ValueError(
                f"source {self.name!r} gave {len(found)} rows for {len(places)}: expected one each from __getitems__"
            )
        return found

    def places(self, numbers: Sequence[int]) -> list[int]:
        """Which rows they are."""
        epochs, steps = np.divmod(np.asarray(numbers, dtype=np.int64), self._rows)
        first, last = int(epochs.min()), int(epochs.max())
        self._orders = {epoch: order for epoch, order in self._orders.items() if epoch >= first}
        if first == last:
            return self.order(first)[steps].tolist()  # type: ignore[no-any-return]
        return [int(self.order(int(epoch))[step]) for epoch, step in zip(epochs, steps, strict=True)]

    def order(self, epoch: int) -> NDArray[np.uint32 | np.int64]:
        """(rows,): the order of an epoch. Sorts raw Philox numbers, which numpy keeps the same in every version."""
        if epoch not in self._orders:
            counter = np.array([0, 0, 0, epoch], dtype=np.uint64)
            raw = np.random.Philox(key=self._key, counter=counter).random_raw(self._rows)
            order = np.argsort(raw, kind="stable")
            self._orders[epoch] = order.astype(np.uint32) if self._rows <= 1 << 32 else order
        return self._orders[epoch]


class Stream:
    """One of several shards of a stream, over and over, in the order in which it comes.

    shards, index  this is number `index` of so many; a source that cannot be divided is read whole by each, which keeps
                   every shards-th sample
    position       samples of this shard that were read before, over all passes
    It has to give the same samples on each pass, and not to divide itself among the workers of a `DataLoader` (Hugging
    Face streams do, and are kept from it).
    """

    def __init__(self, name: str, source: Iterable[Any], shards: int = 1, index: int = 0, position: int = 0) -> None:
        self.name = name
        self._shards, self._index, self._source = shards, index, source
        self._step = shards
        if isinstance(source, Sharded) and source.num_shards >= shards:
            self._source = source if shards == 1 else source.shard(num_shards=shards, index=index)
            self._step = 1
        self._samples = self.once()
        self._fresh = True  # nothing was read in this pass yet
        self._skip(position)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next sample. Raises ValueError where a whole pass gave none."""
        for sample in self._samples:
            self._fresh = False
            return sample
        if self._fresh:
            raise ValueError(
                f"source {self.name!r} is empty in shard {self._index} of {self._shards} (processes x workers): "
                "give it more samples, or use fewer workers"
            )
        self._samples, self._fresh = self.once(), True
        return next(self)

    def once(self, skipped: int = 0) -> Iterator[Any]:
        """One pass of this shard, less its first samples."""
        if not isinstance(self._source, Sharded):
            return islice(self._source, self._first(skipped), None, self._step)
        if self._step == 1:
            return _unpacked(self.name, self._source.skip(skipped) if skipped else self._source)
        whole = self._source.skip(self._first(skipped)) if skipped else self._source
        return islice(_unpacked(self.name, whole), 0 if skipped else self._index, None, self._step)

    def _first(self, skipped: int) -> int:
        return skipped if self._step == 1 else self._index + skipped * self._step

    def _skip(self, position: int) -> None:
        """Stand where so many samples were read. Where they are more than a pass holds, one pass is read to know it."""
        if not position:
            return
        self._samples = self.once(position)
        for sample in self._samples:
            self._samples = _again(sample, self._samples)
            self._fresh = False
            return
        held = sum(1 for _ in self.once())
        if not held:
            return
        rest = position % held or held  # the end of a pass, and not yet the start of the next
        self._samples, self._fresh = self.once(rest), False


def token_lengths(sources: Mapping[str, Source], size: Callable[[Any], float], samples: int = 256) -> dict[str, float]:
    """Mean tokens of a sample of each source, as `Mixture` takes them for weights that are shares of tokens.

    size     tokens of one sample
    samples  measured at most of each: spread evenly over rows, the first of a stream
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}: expected one or more")
    found = {}
    for name, source in sources.items():
        rows = length(name, source)
        if rows is None:
            measured = [float(size(sample)) for sample in islice(Stream(name, source).once(), samples)]  # type: ignore[arg-type]
        else:
            count = min(samples, rows)
            chosen = [step * rows // count for step in range(count)]
            measured = [float(size(source[place])) for place in chosen]  # type: ignore[index]
        if not measured:
            raise ValueError(f"source {name!r} is empty: leave it out, or give it samples")
        found[name] = sum(measured) / len(measured)
    return found


def _unpacked(name: str, stream: Sharded) -> Iterator[Any]:
    """The samples of a Hugging Face stream, read in chunks: several times faster, and whole in each worker."""
    for chunk in stream.iter(batch_size=CHUNK):
        if not isinstance(chunk, Mapping):
            raise ValueError(
                f"source {name!r} comes as {type(chunk).__name__}: expected columns; use with_format('torch')"
            )
        for values in zip(*chunk.values(), strict=True):
            yield dict(zip(chunk, values, strict=True))


def _again(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _mark(name: str) -> int:
    """64 bits of a name, the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
