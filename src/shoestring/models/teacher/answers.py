"""Where answers are kept the moment they arrive: a kill, or an edit of the prompts, pays for nothing twice."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from shoestring.models.teacher import database
from shoestring.models.teacher.forcing import Forcing
from shoestring.models.teacher.words import Reply

_KEEP = (
    "INSERT INTO answers (key, name, text, finish_reason, prompt_tokens, completion_tokens, model, counted) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"
)
_TOGETHER = 500  # keys in one look-up


class Lost(NamedTuple):
    """Attempts that were sent and brought no answer.

    unknown  of these nobody knows whether they were paid for: a process was killed, or a connection cut
    paid     these were, by tokens that the server said, and what came could not be used
    """

    unknown: int
    paid: int
    prompt_tokens: int
    completion_tokens: int


class Answers:
    """The answers of one file, held by one process at a time; a context, or `close` it.

    An attempt is noted before it is sent, and its note goes when its answer is kept: a note that outlives its process
    is of a request whose fate is not known. Both are in the system's hands at once, where a kill of this process does
    not reach them. Nobody is told that an answer is kept before it is on the disk.

    Raises ValueError where the file is another program's, damaged, of a newer version, or in use; and from each method
    where the disk refuses.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._held = database.hold(self.path)
        try:
            self._connection = database.opened(self.path)
        except BaseException:
            self._held.close()
            raise
        self._one, self._closed = threading.Lock(), False
        self._numbers = itertools.count(1 + int(self._rows("SELECT coalesce(max(id), 0) FROM attempts")[0][0]))
        log = self.path.with_name(f"{self.path.name}-wal")
        self._forcing = Forcing(log, partial(database.refused, self.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait until all is on the disk, and let go of the file."""
        if not self._closed:
            self._closed = True
            self._forcing.close()  # first: the log goes with the last connection
            self._connection.close()
            self._held.close()

    def __len__(self) -> int:
        return int(self._rows("SELECT count(*) FROM answers")[0][0])

    def get(self, keys: Iterable[str]) -> dict[str, Reply]:
        """The answers that are kept, by key; keys without one are left out."""
        columns = "key, text, finish_reason, prompt_tokens, completion_tokens, model, counted"
        rows = self._of(f"SELECT {columns} FROM answers", keys)
        return {
            key: Reply(text, reason, prompt, completion, model, bool(counted))
            for key, text, reason, prompt, completion, model, counted in rows
        }

    def lost(self, keys: Iterable[str]) -> Lost:
        """What was sent for these keys and brought nothing, in this process and before."""
        rows = list(self._of("SELECT prompt_tokens, completion_tokens FROM attempts", keys))
        paid = [row for row in rows if row[0] is not None]
        return Lost(len(rows) - len(paid), len(paid), sum(row[0] for row in paid), sum(row[1] for row in paid))

    def wasted(self, keys: Iterable[str]) -> set[str]:
        """The keys of which something was paid for in vain."""
        return {key for key, prompt in self._of("SELECT key, prompt_tokens FROM attempts", keys) if prompt is not None}

    def note(self, key: str) -> int:
        """Write down that a request is about to be sent; its number."""
        number = next(self._numbers)
        self._commit(("INSERT INTO attempts (id, key) VALUES (?, ?)", (number, key)))
        return number

    def keep(self, number: int, key: str, name: str, reply: Reply) -> asyncio.Future[None]:
        """Keep the answer of an attempt. What is returned is done when it is on the disk."""
        counts = reply.prompt_tokens, reply.completion_tokens
        said = (_whole(reply.text), _whole(reply.finish_reason), *counts, _whole(reply.model))
        # an answer that the server had given before is what an earlier attempt paid for
        same, which = ("key", key) if reply.replayed else ("id", number)
        self._commit(
            (_KEEP, (key, _whole(name), *said, int(reply.counted))),
            (f"DELETE FROM attempts WHERE {same} = ?", (which,)),
        )
        return self._forcing.force()

    def drop(self, number: int) -> None:
        """Forget an attempt that was not paid for."""
        self._commit(("DELETE FROM attempts WHERE id = ?", (number,)))

    def forget(self, key: str, number: int) -> None:
        """Forget all attempts of a key but one: what that brought is what the server gave to the others."""
        self._commit(("DELETE FROM attempts WHERE key = ? AND id != ?", (key, number)))

    def waste(self, number: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Remember what an attempt cost that brought nothing of use."""
        statement = "UPDATE attempts SET prompt_tokens = ?, completion_tokens = ? WHERE id = ?"
        self._commit((statement, (prompt_tokens, completion_tokens, number)))

    def _of(self, select: str, keys: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        left = list(keys)
        for start in range(0, len(left), _TOGETHER):
            some = left[start : start + _TOGETHER]
            yield from self._rows(f"{select} WHERE key IN ({', '.join('?' * len(some))})", some)

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self._check_open()
        try:
            with self._one:
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise database.damaged(self.path, error) from None

    def _commit(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        self._check_open()
        with self._one:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                for statement, values in statements:
                    self._connection.execute(statement, values)
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if not isinstance(error, sqlite3.Error):
                    raise
                full = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
                raise (database.refused if full else database.damaged)(self.path, error) from None

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.path}: this store is closed: open it again")


def _whole(text: str) -> str:
    """A text that can be stored: halves of characters, which some JSON holds, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
