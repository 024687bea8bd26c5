"""A live stream of batches from several sources, drawn by weights that may change while it is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from shoestring.methods.mixing.draws import checked
from shoestring.methods.mixing.epochs import Course
from shoestring.methods.mixing.mixture_loader import Loader, Told
from shoestring.methods.mixing.mixture_options import check, most, sample_tokens
from shoestring.methods.mixing.mixture_reading import Reading
from shoestring.methods.mixing.sources import Marked, Rows, Source, length

REMEMBERED = 1000  # changes of weights, for `Mixture.state_after`


class Mixture(IterableDataset[Any]):
    """An endless stream of batches drawn from named sources by weights, that knows where it is.

    sources            by name: rows by number (`__len__` and `__getitem__`), each in an order of its own an epoch; or
                       streams, each in its own order; over and over
    weights            shares of the samples by name, summing to one; all alike where None
    batch_size         samples a batch over all processes; each process gets its batch_size / world, in the order of
                       ranks. None: single samples, as they are, of which process r gets every world-th, for a
                       `DataLoader` that makes batches itself; what is said of batches then holds of `world` samples
    seed               of the orders of rows, and of which source goes first where two are due alike
    repeats            most epochs of each source, or of those named. Then it is `exhausted`, and its share goes to the
                       others in proportion; where no others are left, the stream ends with an ExhaustedError, which
                       is a ValueError
    tokens_per_sample  by name (see `token_lengths`): weights are then shares of tokens
    collate            makes a batch of a list of samples
    rank, world        which process this is, of how many
    delay              once it is read, a change of weights takes effect so many batches after the one that is next (see
                       `loader`)

    While weights stand, every source's count keeps within one sample of its share of all samples, at each moment, over
    all processes (see `Draws`). All is a function of the seed, the sources and the history of weights: the same under
    any number of processes, and of workers given the same delay, save for the order in which streams are read. In the
    workers of a plain `DataLoader` the stream is right, each batch once, but the main process does not know its place:
    for weights that change, and to save it, use `loader`.

    Raises ValueError where an argument cannot be.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        weights: Mapping[str, float] | None = None,
        *,
        batch_size: int | None,
        seed: int = 0,
        repeats: Mapping[str, float] | float | None = None,
        tokens_per_sample: Mapping[str, float] | None = None,
        collate: Callable[[list[Any]], Any] = default_collate,
        rank: int = 0,
        world: int = 1,
        delay: int = 0,
    ) -> None:
        check(sources, batch_size, seed, rank, world, delay)
        self.names = tuple(sources)
        self.delay = self.given_delay = delay  # a loader makes the former of the latter
        self.ahead = 0  # batches that its reader has beyond those that are trained on (see `MixtureCallback`)
        self._lengths = {name: length(name, source) for name, source in sources.items()}
        tokens = None if tokens_per_sample is None else sample_tokens(tokens_per_sample, self.names)
        caps = most(repeats, self._lengths)
        self._identity = {
            "names": list(self.names),
            "batch_size": batch_size,
            "seed": seed,
            "lengths": dict(self._lengths),
            "fingerprints": {name: one.fingerprint for name, one in sources.items() if isinstance(one, Marked)},
            "caps": caps,
            "tokens_per_sample": tokens,
        }
        self._collate, self._batch_size = collate, batch_size
        self._rank, self._world = rank, world
        shares = [1 / len(self.names)] * len(self.names) if weights is None else checked(weights, self.names)
        self._rows: dict[int, Rows] = {}
        self._streams: dict[int, tuple[str, Iterable[Any]]] = {}
        for number, (name, source) in enumerate(sources.items()):
            if self._lengths[name] is None:
                self._streams[number] = name, source  # type: ignore[assignment]
            else:
                self._rows[number] = Rows(name, source, seed)  # type: ignore[arg-type]
        self._told: Told | None = None
        self._set: deque[tuple[int, list[float]]] = deque(maxlen=REMEMBERED)  # by the batch they take effect at
        self._read_from = False  # whether an iterator of this object has begun, so that batches may be in the making
        # set by workers that no `loader` tells of changes
        self._unheard = torch.zeros(1, dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]
        self._reading = self._read(Course(self._lengths, shares, batch_size or world, seed, caps, tokens, world))

    @property
    def batch_size(self) -> int | None:
        """Samples a batch over all processes; None where it gives single ones."""
        return self._batch_size

    @property
    def weights(self) -> dict[str, float]:
        """The weights that the next batch is drawn by, as they were given."""
        return dict(zip(self.names, self._here().weights, strict=True))

    @property
    def batches(self) -> int:
        """Batches so far."""
        return self._here().batch

    @property
    def epochs(self) -> dict[str, float]:
        """How often the rows of each source that has a length were gone through, over all processes."""
        counts = self.counts()
        return {name: counts[name] / rows for name, rows in self._lengths.items() if rows is not None}

    @property
    def exhausted(self) -> tuple[str, ...]:
        """The sources that gave as many epochs as they may."""
        return tuple(self.names[source] for source in self._here().exhausted)

    def counts(self) -> dict[str, int]:
        """Samples of each source so far, over all processes."""
        return dict(zip(self.names, self._here().counts, strict=True))

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Draw by other weights from `delay` batches after the one that is next. Raises ValueError, see `checked`."""
        given = checked(weights, self.names)
        at = self._here().batch + (self.delay if self._read_from else 0)
        self._reading.change(at, given)
        self._set.append((at, given))
        if self._told is not None:
            self._told.tell(at, given)

    def state_dict(self) -> dict[str, Any]:
        return {**self._here().state_dict(), "identity": self._identity}

    def state_after(self, batches: int, since: Mapping[str, Any]) -> dict[str, Any]:
        """The state after so many batches, of which some were read ahead since: with all weights that were set since.

        since  what `state_dict` gave after fewer batches, at most 1,000 changes of weights ago
        For a loader of somebody else's that reads ahead, so that `state_dict` tells of batches nobody was given yet.
        Raises ValueError where there were not so many.
        """
        course = self._here().copy()
        course.load_state_dict(since)
        if not course.batch <= batches <= self.batches:
            raise ValueError(f"the state after {batches} batches: expected from {course.batch} to {self.batches}")
        for at, weights in self._set:
            if at >= course.batch:
                course.change(at, weights)
        while course.batch < batches:
            course.advance()
        return {**course.state_dict(), "identity": self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another stopped; ValueError where it was another, or read streams by other numbers of workers."""
        theirs = state.get("identity", {})
        for key, mine in self._identity.items():
            if theirs.get(key) != mine:
                raise ValueError(
                    f"the saved mixture has {key} {theirs.get(key)!r}, this {mine!r}: resume with the same"
                )
        course = self._here().copy()
        course.load_state_dict(state)
        self._set.clear()
        self._told = None
        self._reading = self._read(course)

    def loader(self, workers: int, prefetch: int = 2, **options: Any) -> Loader:
        """The batches made by worker processes, see `Loader`. One process is enough where reading is quick.

        prefetch  batches that each worker makes ahead
        options   of `torch.utils.data.DataLoader`
        Raises ValueError where `delay` was given and is less than prefetch * workers: so many batches are in the making
        when weights change. Where it was not given it becomes that.
        """
        self._unheard.fill_(False)
        return Loader(self, workers, prefetch, options)

    def skip(self) -> None:
        """Go on by one batch without reading it: another process made it."""
        self._reading.skip()

    def split(self, workers: int) -> None:
        """Let each process have so many workers. Raises ValueError in the midst of streams that others read."""
        course = self._here().copy()
        course.split(workers)
        self._reading = self._read(course)

    def share(self, slots: int) -> Told:
        """Where workers that are started next hear of changes of weights, being at most so many batches behind.

        They do until a state is loaded, or others are started.
        """
        self._read_from = True
        self._told = Told(slots, len(self.names))
        return self._told

    def tells(self, told: Told) -> bool:
        """Whether changes of weights are still heard of there."""
        return self._told is told

    def __iter__(self) -> Iterator[Any]:
        self._read_from = True
        if get_worker_info() is not None:
            yield from self.part(None)
        while True:
            self._told = None  # workers, if there were any, are read no more
            yield self._reading.take(self._made)

    def part(self, told: Told | None) -> Iterator[Any]:
        """What a worker makes, called in it, and where it hears of changes of weights: nowhere where None."""
        worker = get_worker_info()
        if worker is None:
            raise ValueError("a part of a mixture is what a worker makes: iterate the mixture")
        if self._batch_size is None and worker.num_workers > 1:
            raise ValueError(
                f"single samples in {worker.num_workers} workers would make batches of what a single worker drew: use "
                "one worker or none, or give the mixture a batch_size and use Mixture.loader(workers)"
            )
        if told is None:
            self._unheard.fill_(True)
        course = self._reading.here().copy()
        course.split(worker.num_workers)
        reading = self._read(course, worker.num_workers, worker.id, told)
        while True:
            yield reading.take(self._made)

    def _made(self, samples: list[Any]) -> Any:
        first = samples[0]
        if self._batch_size is None:
            return first
        if self._collate is default_collate and isinstance(first, dict):
            listed = next((name for name, value in first.items() if isinstance(value, list)), None)
            if listed is not None:
                raise ValueError(
                    f"a sample's {listed!r} is a list, of which default_collate would make columns: give rows of "
                    "tensors (of Hugging Face data sets, .with_format('torch')), or a collate"
                )
        return self._collate(samples)

    def _read(self, course: Course, workers: int = 1, worker: int = 0, told: Told | None = None) -> Reading:
        return Reading(course, self._rows, self._streams, self._rank, workers, worker, told)

    def _here(self) -> Course:
        """The course after the batch that was taken last."""
        if self._unheard:
            raise ValueError(
                "this mixture was read by the workers of a plain DataLoader, where its place is not known and changes "
                "are not heard: use Mixture.loader(workers)"
            )
        return self._reading.here()
