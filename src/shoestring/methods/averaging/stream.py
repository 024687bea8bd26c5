"""Many threads through one list of spans, with checksums taken along and a journal of what is safe on the disk."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import torch

from shoestring.methods.averaging.blend import Blender, Span, Window
from shoestring.methods.averaging.partial import Partial
from shoestring.models.manifest import flush

THREADS = 2
AHEAD = 4  # spans that are asked of the disk before they are needed
SYNCED = 32 << 20  # bytes of output between two flushes to the disk, each of them a point to go on from
HASHED = 256 << 10

Progress = Callable[[int, int], None]


class Digest:
    """The sha256 of a file, taken along as the file is read or written: its pages are in the system's cache then."""

    def __init__(self, file: Path, size: int, expected: str | None = None) -> None:
        self.file, self.size, self.place = file, size, 0
        self._expected = expected
        self._hash = hashlib.sha256()

    def advance(self, place: int) -> None:
        """Go on to byte `place`. Raises ValueError, at the end of the file, where it is not what was expected."""
        if place <= self.place:
            return
        buffer = memoryview(bytearray(HASHED))
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.place)
            while self.place < place:
                got = stream.readinto(buffer[: place - self.place])
                if not got:
                    raise ValueError(f"{self.file}: ends at byte {self.place} of {self.size}; copy it anew")
                self._hash.update(buffer[:got])
                self.place += got
        if self.place == self.size and self._expected not in (None, self.hexdigest()):
            raise ValueError(f"{self.file}: its sha256 is not the manifest's: changed or damaged; copy it anew")

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class Front:
    """Spans handed out in order, and how many leading ones are finished, whichever thread finished them."""

    def __init__(self, count: int, done: int) -> None:
        self.done = done
        self.stopped = False
        self._count = count
        self._next = done
        self._finished: set[int] = set()
        self._changed = threading.Condition()

    def take(self) -> int | None:
        with self._changed:
            if self.stopped or self._next == self._count:
                return None
            self._next += 1
            return self._next - 1

    def finish(self, index: int) -> None:
        with self._changed:
            self._finished.add(index)
            while self.done in self._finished:
                self._finished.remove(self.done)
                self.done += 1
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self.stopped = True
            self._changed.notify_all()

    def wait(self, beyond: int) -> int:
        """Sleep until more than `beyond` spans are finished, or all is stopped; returns how many are."""
        with self._changed:
            self._changed.wait_for(lambda: self.done > beyond or self.stopped, timeout=0.2)
            return self.done


def stream(
    spans: Sequence[Span],
    windows: Sequence[Window],
    blender: Callable[[], Blender],
    partial: Partial,
    expected: Mapping[Path, str],
    progress: Progress | None,
) -> dict[Path, Digest]:
    """Blend all spans that the journal does not list, and return the checksums of the files written.

    blender   makes one, with its own buffers, for each thread
    expected  the sha256 that input files must have: checked along the way
    progress  told the bytes of output finished, and to be written, of one window
    Raises what a thread raised; the others end with the span they are at.
    """
    front = Front(len(spans), partial.done)
    outputs = [(window, file) for file in dict.fromkeys(span.file for span in spans) for window in windows]
    written = {window.folder / file.name: Digest(window.folder / file.name, file.size) for window, file in outputs}
    read = [Digest(file, file.stat().st_size, sha256) for file, sha256 in expected.items()]
    sizes = list(accumulate((len(span) for span in spans), initial=0))
    with _threads_restored(), ThreadPoolExecutor(2 * THREADS + 1) as pool:
        try:
            tasks: list[Future[None]] = [pool.submit(_work, front, spans, blender) for _ in range(THREADS)]
            tasks.append(pool.submit(_keep, front, spans, sizes, windows, partial))
            before, done = 0, -1
            reached: dict[str, int] = {}  # up to which byte each output file is finished
            while done < len(spans):
                done = front.wait(done)
                for task in tasks:
                    if task.done():
                        task.result()
                reached |= {span.file.name: span.end for span in spans[before:done]}
                before = done
                ahead = [(own, reached.get(own.file.name, 0)) for own in written.values()]
                ahead += [(own, own.size * done // len(spans)) for own in read]
                list(pool.map(lambda pair: pair[0].advance(pair[1]), ahead))
                if progress is not None:
                    progress(sizes[done], sizes[-1])
            for task in tasks:
                task.result()
        finally:
            front.stop()
    return written


def _work(front: Front, spans: Sequence[Span], blender: Callable[[], Blender]) -> None:
    torch.set_num_threads(1)  # threads of threads would fight over the cores
    own = blender()
    while (index := front.take()) is not None:
        if index + AHEAD < len(spans):
            own.expect(spans[index + AHEAD])
        own.blend(spans[index])
        front.finish(index)


def _keep(
    front: Front, spans: Sequence[Span], sizes: Sequence[int], windows: Sequence[Window], partial: Partial
) -> None:
    """Flush what is finished to the disk, then note it: in this order, or a power cut leaves a journal that lies."""
    noted = done = partial.done
    while done < len(spans) and not front.stopped:
        done = front.wait(done)
        if done > noted and (done == len(spans) or (sizes[done] - sizes[noted]) * len(windows) >= SYNCED):
            for name in dict.fromkeys(span.file.name for span in spans[noted:done]):
                for window in windows:
                    flush(window.folder / name)
            partial.note(done)
            noted = done


@contextmanager
def _threads_restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
