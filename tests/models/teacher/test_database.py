"""The file: made, opened again, or refused by name and as it was."""

from __future__ import annotations

import fcntl
import sqlite3
from contextlib import closing

import pytest

from shoestring.models.teacher import database


def test_a_new_file_and_the_same_again(tmp_path):
    path = tmp_path / "new" / "answers.sqlite"
    with database.hold(path):
        for _ in range(2):
            with closing(database.opened(path)) as connection:
                assert connection.execute("SELECT count(*) FROM answers").fetchone() == (0,)
                assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("start", ["empty", "killed before its tables"])
def test_what_a_kill_left_at_the_very_beginning_is_begun_again(tmp_path, start):
    path = tmp_path / "a"
    path.touch()
    if start != "empty":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    with closing(database.opened(path)) as connection:
        assert connection.execute("SELECT count(*) FROM attempts").fetchone() == (0,)


def foreign(path):
    path.write_text("id,answer\n1,four\n")


def another(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE answers (a)")


def newer(path):
    database.opened(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")


def torn(path):
    with closing(database.opened(path)) as connection:
        connection.execute(
            "INSERT INTO attempts (key) SELECT hex(randomblob(2000)) FROM (VALUES (1), (2), (3), (4), (5))"
        )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def scribbled(path):
    with closing(database.opened(path)) as connection:
        connection.execute("INSERT INTO attempts (key) VALUES (hex(randomblob(40)))")
    whole = bytearray(path.read_bytes())
    whole[4096:8192] = b"\x55" * 4096
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (foreign, r"answers: not a store of answers: name another file"),
        (another, r"answers: another program's database: name another file"),
        (
            newer,
            r"answers: written by a newer shoestring \(layout 7, this one knows 1\): pip install --upgrade shoestring",
        ),
        (torn, r"answers: damaged or not readable \(.+\): move it away; .*\.recover"),
        (scribbled, r"answers: damaged or not readable"),
    ],
)
def test_what_is_no_whole_store_is_refused_and_left_as_it_was(tmp_path, make, said):
    path = tmp_path / "answers"
    make(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=said):
        database.opened(path)
    assert path.read_bytes() == before


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"a folder: expected a file for the answers, such as .*answers\.sqlite"):
        database.hold(tmp_path)


def test_a_place_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot be written there"):
        database.hold(tmp_path / "file" / "answers")


def test_it_is_held_once(tmp_path):
    path = tmp_path / "answers"
    with database.hold(path), pytest.raises(ValueError, match=r"answers: already open, in another process or in this"):
        database.hold(path)
    database.hold(path).close()


def test_a_lock_that_was_taken_away_meanwhile_is_made_anew(tmp_path, monkeypatch):
    path, locking, taken = tmp_path / "answers.sqlite", fcntl.flock, []

    def flock(lock, how):
        if not taken:  # between being opened and being locked here
            taken.append(True)
            path.with_name("answers.sqlite.lock").unlink()
        locking(lock, how)

    monkeypatch.setattr(database.fcntl, "flock", flock)
    with database.hold(path), pytest.raises(ValueError, match="already open"):
        database.hold(path)
