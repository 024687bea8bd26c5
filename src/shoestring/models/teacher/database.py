"""The SQLite file of a teacher's answers: made, opened by one process at a time, or refused by name."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

_KIND, _SCHEMA = 0x53484F45, 1  # "SHOE" in the file's header, and how its tables are laid out
_MAGIC = b"SQLite format 3\0"
_TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE answers (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, text TEXT NOT NULL, finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, model TEXT NOT NULL, counted INTEGER NOT NULL,
    at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE attempts (id INTEGER PRIMARY KEY, key TEXT NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER);
PRAGMA application_id = {_KIND};
PRAGMA user_version = {_SCHEMA};
COMMIT;
"""


def hold(path: Path) -> IO[str]:
    """Lock a store, by a file beside it, until what is returned is closed."""
    if path.is_dir():
        raise ValueError(f"{path}: a folder: expected a file for the answers, such as {path / 'answers.sqlite'}")
    beside = path.with_name(path.name + ".lock")
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = beside.open("w")
        except OSError as error:
            raise ValueError(f"{path}: cannot be written there ({error.strerror}): name another file") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise ValueError(
                f"{path}: already open, in another process or in this one; wait for it, close it, or name another file"
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), beside.stat()):
                return lock
        lock.close()  # it was taken away between being opened and being locked: another would lock a new one


def opened(path: Path) -> sqlite3.Connection:
    """A connection to a store that is whole, made where there is none. To be called under `hold`.

    Raises ValueError where the file is no store, of a newer version, or damaged.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_MAGIC))
    except FileNotFoundError:
        start = b""
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    if start and start != _MAGIC:
        raise ValueError(f"{path}: not a store of answers: name another file")
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            _check(connection, path)  # before anything is changed
        return connected(path)
    except sqlite3.Error as error:
        raise damaged(path, error) from None


def connected(path: Path) -> sqlite3.Connection:
    """A connection to the file as it is, whose commits are not forced to the disk. Transactions are begun by name."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 10000")  # seldom: it waits for the disk
    except BaseException:
        connection.close()
        raise
    return connection


def damaged(path: Path, error: sqlite3.Error) -> ValueError:
    return ValueError(
        f"{path}: damaged or not readable ({error}): move it away; what is left of it comes back by "
        f"`sqlite3 {path} .recover | sqlite3 new.sqlite`"
    )


def refused(path: Path, why: object) -> ValueError:
    """What a disk that refuses is told as."""
    return ValueError(
        f"{path}: an answer could not be kept ({why}), those before it are: make room, and the same command goes on"
    )


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (kind,), (schema,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables and not kind:  # a kill may have come before its tables
        connection.executescript(_TABLES)
        return
    if kind != _KIND:
        raise ValueError(f"{path}: another program's database: name another file for the answers")
    if schema > _SCHEMA:
        raise ValueError(
            f"{path}: written by a newer shoestring (layout {schema}, this one knows {_SCHEMA}): "
            "pip install --upgrade shoestring, or name another file"
        )
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)
