"""The thread that forces the log to the disk: for all who wait, and with what the disk says."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time

import pytest

from shoestring.models.teacher.forcing import Forcing


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"written")
    return path


def test_those_who_wait_together_wait_once(log, monkeypatch):
    calls = []

    def slow(descriptor: int) -> None:
        calls.append(os.fstat(descriptor).st_size)
        time.sleep(0.05)

    async def several(forcing: Forcing) -> None:
        await asyncio.gather(*(forcing.force() for _ in range(100)))

    monkeypatch.setattr(os, "fsync", slow)
    forcing = Forcing(log, ValueError)
    asyncio.run(several(forcing))
    forcing.close()
    assert 1 <= len(calls) <= 3
    assert set(calls) == {7}


def test_what_is_forced_later_is_not_told_earlier(log, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(time.monotonic()))

    async def one_after_the_other(forcing: Forcing) -> None:
        for count in range(1, 20):
            await forcing.force()
            assert len(done) == count

    forcing = Forcing(log, ValueError)
    asyncio.run(one_after_the_other(forcing))
    forcing.close()


def test_a_disk_that_refuses_is_told_to_all_and_tried_again(log, monkeypatch):
    left = [1]

    def refuse(descriptor: int) -> None:
        if left:
            raise OSError(errno.EIO, os.strerror(left.pop() and errno.EIO))

    async def twice(forcing: Forcing) -> list[object]:
        first = await asyncio.gather(forcing.force(), return_exceptions=True)
        return [*first, await forcing.force()]

    monkeypatch.setattr(os, "fsync", refuse)
    forcing = Forcing(log, ValueError)
    refused, fine = asyncio.run(twice(forcing))
    forcing.close()
    assert str(refused) == "Input/output error"
    assert fine is None


def test_a_log_that_is_gone_is_told(tmp_path):
    async def once(forcing: Forcing) -> None:
        await forcing.force()

    forcing = Forcing(tmp_path / "none", ValueError)
    with pytest.raises(ValueError, match=r"No such file or directory"):
        asyncio.run(once(forcing))
    forcing.close()


def test_it_ends_and_those_whose_loop_is_gone_are_let_go(log):
    async def put(forcing: Forcing) -> None:
        for _ in range(50):
            forcing.force()

    threads = threading.active_count()
    forcing = Forcing(log, ValueError)
    asyncio.run(put(forcing))
    forcing.close()
    assert threading.active_count() == threads
