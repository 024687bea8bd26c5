"""The store: what is kept, what is noted, and what a kill leaves."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
from dataclasses import replace

import pytest

from shoestring.models.teacher import database
from shoestring.models.teacher.answers import Answers, Lost
from shoestring.models.teacher.words import Reply

REPLY = Reply("four", "stop", 7, 3, "m-2024")


def keep(store: Answers, key: str, reply: Reply = REPLY) -> None:
    async def kept() -> None:
        await store.keep(store.note(key), key, f"name of {key}", reply)

    asyncio.run(kept())


def test_what_is_kept_is_there_again(tmp_path):
    texts = ["", "four", "naïve 😀 𐍈 \u202e", "{x} %s {{", "a\0b", "x" * 100_000, "quote \" ' --;"]
    replies = {str(number): Reply(text, "length", number, 0, "m", number % 2 == 0) for number, text in enumerate(texts)}
    with Answers(tmp_path / "a") as store:
        for key, reply in replies.items():
            keep(store, key, reply)
        assert store.get(replies) == replies
    with Answers(tmp_path / "a") as store:
        assert store.get([*replies, "other"]) == replies
        assert len(store) == len(texts)


def test_halves_of_characters_do_not_stop_the_others(tmp_path):
    with Answers(tmp_path / "a") as store:
        keep(store, "a", Reply("x\ud800y", "stop\udfff", 1, 1, "m\ud800"))
        assert store.get(["a"])["a"] == Reply("x?y", "stop?", 1, 1, "m?")
        keep(store, "b")


def test_what_cannot_be_kept_leaves_the_store_as_it_was(tmp_path):
    with Answers(tmp_path / "a") as store:
        with pytest.raises(OverflowError):
            keep(store, "a", replace(REPLY, prompt_tokens=2**70))
        keep(store, "b")
        assert (store.get("ab"), store.lost("ab").unknown) == ({"b": REPLY}, 1)


def test_many_keys_are_looked_up_at_once(tmp_path):
    async def kept(store: Answers) -> None:
        await asyncio.gather(*(store.keep(number, f"k{number}", "", REPLY) for number in range(1201)))

    with Answers(tmp_path / "a") as store:
        asyncio.run(kept(store))
        assert len(store.get([f"k{number}" for number in range(2000)])) == 1201
        assert store.get([]) == {}


def test_the_first_answer_stays(tmp_path):
    with Answers(tmp_path / "a") as store:
        keep(store, "a")
        keep(store, "a", Reply("five", "stop", 1, 1, "m"))
        assert store.get(["a"]) == {"a": REPLY}


def test_a_note_outlives_its_process_and_goes_with_the_answer(tmp_path):
    with Answers(tmp_path / "a") as store:
        assert [store.note(key) for key in "abb"] == [1, 2, 3]
    with Answers(tmp_path / "a") as store:
        assert store.lost(["a", "b", "c"]) == Lost(3, 0, 0, 0)
        assert store.lost(["a"]).unknown == 1
        assert store.note("a") == 4  # no number twice
        keep(store, "a")
        assert store.lost(["a"]).unknown == 2  # those before may have been paid for as well
        keep(store, "b", Reply("four", "stop", 7, 3, "m", replayed=True))  # the server says that they were this one
        assert store.lost(["a", "b"]).unknown == 2


def test_what_was_paid_in_vain_is_remembered(tmp_path):
    with Answers(tmp_path / "a") as store:
        store.waste(store.note("a"), 5, 2)
        store.drop(store.note("a"))
    with Answers(tmp_path / "a") as store:
        assert store.lost(["a"]) == Lost(0, 1, 5, 2)
        assert store.wasted("ab") == {"a"}
        keep(store, "a", Reply("four", "stop", 5, 2, "m", replayed=True))
        assert store.lost(["a"]) == Lost(0, 0, 0, 0)


def test_one_process_at_a_time(tmp_path, python):
    with Answers(tmp_path / "a"):
        with pytest.raises(ValueError, match=r"already open, in another process or in this one"):
            Answers(tmp_path / "a")
        other = python(
            "import sys; from shoestring.models.teacher.answers import Answers\n"
            "try: Answers(sys.argv[1])\nexcept ValueError as error: print(error)",
            tmp_path / "a",
        )
        assert "already open" in other.stdout
    Answers(tmp_path / "a").close()


def test_a_closed_store_says_so(tmp_path):
    store = Answers(tmp_path / "a")
    store.close()
    store.close()
    with pytest.raises(ValueError, match=r"a: this store is closed: open it again"):
        store.note("a")
    with pytest.raises(ValueError, match=r"a: this store is closed: open it again"):
        store.get(["a"])


def test_a_full_disk_is_one_line_and_takes_nothing_away(tmp_path, monkeypatch):
    usual = database.connected

    def small(path):
        connection = usual(path)
        connection.execute("PRAGMA max_page_count = 10")
        return connection

    monkeypatch.setattr(database, "connected", small)
    with Answers(tmp_path / "a") as store:
        keep(store, "a")
        large = Reply("x" * 100_000, "stop", 1, 1, "m")
        with pytest.raises(
            ValueError, match=r"a: an answer could not be kept \(database or disk is full\), .*: make room"
        ):
            keep(store, "b", large)
        keep(store, "c")  # there is room for a small one
    monkeypatch.undo()
    with Answers(tmp_path / "a") as store:
        assert store.get("abc") == {"a": REPLY, "c": REPLY}
        assert store.lost("abc").unknown == 1


def test_an_answer_is_not_kept_before_it_is_on_the_disk(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Answers(tmp_path / "a") as store:
        monkeypatch.setattr(os, "fsync", refuse)
        assert store.note("a") == 1  # which needs no more than to outlive this process
        with pytest.raises(ValueError, match=r"could not be kept \(Input/output error\)"):
            keep(store, "a")
        monkeypatch.undo()
        keep(store, "b")
        assert store.get("b") == {"b": REPLY}


def test_a_file_that_is_damaged_under_way_is_one_line(tmp_path):
    with Answers(tmp_path / "a") as store:
        with sqlite3.connect(tmp_path / "a") as other:
            other.execute("DROP TABLE answers")
        other.close()
        with pytest.raises(ValueError, match=r"damaged or not readable \(no such table: answers\)"):
            store.get(["a"])
        with pytest.raises(ValueError, match=r"damaged or not readable \(no such table: answers\)"):
            keep(store, "a")


def test_an_answer_outlives_a_kill_at_once(tmp_path, python):
    """Before it is on the disk even: what is committed is the system's to write."""
    script = """
import asyncio, os, signal, sys, time
from shoestring.models.teacher.answers import Answers
from shoestring.models.teacher.words import Reply
store = Answers(sys.argv[1])
os.fsync = lambda descriptor: time.sleep(60)
async def kept():
    store.note("b")
    store.keep(store.note("a"), "a", "", Reply("four", "stop", 7, 3, "m-2024"))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(kept())
"""
    assert python(script, tmp_path / "a").returncode == -9
    with Answers(tmp_path / "a") as store:
        assert (store.get("ab"), store.lost("ab").unknown) == ({"a": REPLY}, 1)


def test_several_threads_write_in_turns(tmp_path):
    with Answers(tmp_path / "a") as store:
        threads = [threading.Thread(target=lambda: [store.note("a") for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.lost(["a"]).unknown == 200
