"""One process's or worker's part of a course, sample by sample: planned ahead, so that rows are fetched together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from shoestring.methods.mixing.epochs import Course
from shoestring.methods.mixing.sources import Rows, Stream

READ_AHEAD = 256  # samples planned at most, of which each source's are fetched in one call


class News(Protocol):
    """Where a worker hears of changed weights."""

    def at(self, batch: int) -> list[float] | None: ...


class Part(NamedTuple):
    """What is read here of one batch: source and number of each sample, and the shard that streams are read from."""

    sources: list[int]
    numbers: list[int]
    shard: int


class Reading:
    """The samples of the batches that one process or worker makes, from where a course stands.

    rows, streams    the sources by their number in the course: those that have rows, and the others by name
    rank             which process this is: it reads its share of a batch
    workers, worker  which worker of the process: it makes every workers-th batch, the first worker the next one
    told             where changes of weights are heard of that were made in another process

    It plans ever more batches while weights stand. When they change it goes back to the last batch that was taken, and
    plans anew, so that a plan never shows in what is read.
    """

    def __init__(
        self,
        course: Course,
        rows: Mapping[int, Rows],
        streams: Mapping[int, tuple[str, Iterable[Any]]],
        rank: int,
        workers: int = 1,
        worker: int = 0,
        told: News | None = None,
    ) -> None:
        self._rows, self._streams, self._told = rows, streams, told
        self._own = course.size // course.world
        self._rank, self._workers, self._worker, self._first = rank, workers, worker, course.batch
        self._course, self._start = course, course.copy()  # where the plan ends, and where it starts
        self._plan: deque[Part | None] = deque()  # None: another worker's
        self._passed = 0  # batches since the start of the plan
        self._reach = 1
        self._held: dict[int, dict[int, Any]] = {source: {} for source in rows}
        self._opened: dict[tuple[int, int], Stream] = {}

    def here(self) -> Course:
        """The course after the batch that was taken last, to look at."""
        if not self._plan:
            return self._course
        course = self._start.copy()
        for _ in range(self._passed):
            course.advance()
        return course

    def take(self, make: Callable[[list[Any]], Any]) -> Any:
        """The next batch that is made here, of its samples. Raises ValueError where the sources no longer fill one.

        Where a source or `make` raises, no batch is taken: the next call reads the same one.
        """
        while True:
            self._hear()
            if not self._plan:
                self._extend()
            part = self._plan[0]
            made = None if part is None else self._made(part, make)
            self._plan.popleft()
            self._passed += 1
            if part is not None:
                return made

    def _made(self, part: Part, make: Callable[[list[Any]], Any]) -> Any:
        self._fetch([part])
        opened, self._opened = self._opened, {}  # left behind where one raises: all are then opened where they stood
        samples = []
        for source, number in zip(part.sources, part.numbers, strict=True):
            if source in self._rows:
                samples.append(self._held[source].pop(number))
            else:
                samples.append(next(self._stream(opened, source, part.shard)))
        made = make(samples)
        self._opened = opened
        return made

    def skip(self) -> None:
        """Go on by a batch that was made elsewhere."""
        self._settle()
        self._course.advance()

    def change(self, batch: int, weights: Sequence[float]) -> None:
        """Other weights from a batch on."""
        self._settle()
        self._course.change(batch, weights)

    def _settle(self) -> None:
        """Drop the plan, and stand after the batch that was taken last."""
        self._course = self.here()
        self._plan.clear()
        self._reach = 1

    def _hear(self) -> None:
        if self._told is None:
            return
        batch = self._start.batch + self._passed
        weights = self._told.at(batch)
        if weights is not None:
            self.change(batch, weights)

    def _extend(self) -> None:
        self._start, self._passed = self._course.copy(), 0
        first = self._rank * self._own
        for _ in range(self._reach):
            mine = (self._course.batch - self._first) % self._workers == self._worker
            shard = self._course.shard(self._rank)
            try:
                sources, numbers = self._course.advance()
            except ValueError:  # an end to what may be drawn: it is told when it is reached
                if not self._plan:
                    raise
                break
            part = Part(sources[first : first + self._own], numbers[first : first + self._own], shard)
            self._plan.append(part if mine else None)
        self._reach = min(2 * self._reach, self._workers * max(1, READ_AHEAD // self._own))
        self._fetch([part for part in self._plan if part is not None], ahead=True)

    def _fetch(self, parts: Sequence[Part], ahead: bool = False) -> None:
        """Hold the rows that the parts name. Ahead of time only those that are gathered, and none beside."""
        wanted: dict[int, list[int]] = {}
        for part in parts:
            for source, number in zip(part.sources, part.numbers, strict=True):
                wanted.setdefault(source, []).append(number)
        for source, numbers in wanted.items():
            if source not in self._rows or (ahead and self._rows[source].gathered is None):
                continue
            held = self._held[source]
            missing = [number for number in numbers if number not in held]
            held.update(zip(missing, self._rows[source].read(missing), strict=True))
            if ahead:
                self._held[source] = {number: held[number] for number in numbers}

    def _stream(self, opened: dict[tuple[int, int], Stream], source: int, shard: int) -> Stream:
        """The stream that a shard is read from, opened where it stood after the batch that was taken last."""
        if (source, shard) not in opened:
            course = self.here()
            name, stream = self._streams[source]
            position = course.read(source, shard)
            opened[source, shard] = Stream(name, stream, course.world * course.workers, shard, position)
        return opened[source, shard]
