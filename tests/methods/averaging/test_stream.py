"""Threads through the spans, checksums on the way, and how the work stops."""

import hashlib
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.averaging import stream as streaming
from shoestring.methods.averaging.blend import Window, spans
from shoestring.methods.averaging.layout import OutputFile, Slot
from shoestring.methods.averaging.partial import Partial
from shoestring.methods.averaging.stream import Digest, Front, stream


def test_by_hand_the_front_is_the_number_of_leading_spans():
    front = Front(4, 1)
    assert [front.take() for _ in range(4)] == [1, 2, 3, None]
    front.finish(3)
    assert front.wait(0) == 1
    front.finish(1)
    assert front.wait(1) == 2
    front.finish(2)
    assert front.wait(3) == 4
    front.stop()
    assert front.wait(9) == 4
    assert front.take() is None


@given(content=st.binary(max_size=300), places=st.lists(st.integers(0, 300)).map(sorted))
def test_a_checksum_taken_in_steps_is_that_of_the_whole(tmp_path_factory, content, places):
    file = tmp_path_factory.mktemp("digest") / "x"
    file.write_bytes(content)
    digest = Digest(file, len(content), hashlib.sha256(content).hexdigest())
    for place in (*(min(place, len(content)) for place in places), len(content)):
        digest.advance(place)
    assert digest.hexdigest() == hashlib.sha256(content).hexdigest()


def test_a_changed_and_a_cut_file_are_named(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"abd")
    with pytest.raises(ValueError, match="its sha256 is not the manifest's"):
        Digest(file, 3, hashlib.sha256(b"abc").hexdigest()).advance(3)
    with pytest.raises(ValueError, match="ends at byte 3 of 5"):
        Digest(file, 5).advance(5)


class Writes:
    """Stands for the arithmetic: writes each span as its number, and notes which it was given."""

    def __init__(self, window, cut, given, fail=None):
        self.window, self.cut, self.given, self.fail = window, cut, given, fail

    def expect(self, span):
        assert span in self.cut

    def blend(self, span):
        index = self.cut.index(span)
        if index == self.fail:
            raise ValueError("span of ill fate")
        self.given.append(index)
        with (self.window.folder / span.file.name).open("r+b") as file:
            file.seek(span.end - len(span))
            file.write(bytes([index]) * len(span))


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "SYNCED", 1)
    files = [OutputFile(name, b"", (Slot("a", torch.uint8, (50,), 0),), 50) for name in ("x", "y")]
    cut = spans(files, 5, 5)
    window = Window(tmp_path / "out.partial", (0,), (1.0,))
    window.folder.mkdir()
    (window.folder / "journal.jsonl").touch()

    def run(fail=None, progress=None):
        given = []
        with Partial(tmp_path / "out", "same") as partial:
            for file in files:
                (window.folder / file.name).touch()
            written = stream(cut, [window], lambda: Writes(window, cut, given, fail), partial, {}, progress)
        return given, written

    return cut, window, run


def test_every_span_is_done_once_and_the_checksums_are_the_files(work):
    cut, window, run = work
    seen = []
    threads = torch.get_num_threads()
    given, written = run(progress=lambda done, total: seen.append((done, total)))
    assert sorted(given) == list(range(len(cut)))
    assert seen == sorted(seen)
    assert seen[-1] == (100, 100)
    for name in ("x", "y"):
        content = (window.folder / name).read_bytes()
        assert written[window.folder / name].hexdigest() == hashlib.sha256(content).hexdigest()
        assert len(content) == 50
    assert torch.get_num_threads() == threads
    assert threading.active_count() < 10


def test_an_error_in_a_thread_comes_out_and_the_next_call_goes_on_from_what_was_noted(work):
    cut, _, run = work
    with pytest.raises(ValueError, match="ill fate"):
        run(fail=len(cut) - 1)
    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt)
    given, written = run()
    assert len(given) < len(cut)
    assert {digest.place for digest in written.values()} == {50}


def interrupt(done, total):
    raise KeyboardInterrupt
