"""A result under another name: its journal, its lock, and the rename at the end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.averaging.partial import JOURNAL, Partial


def test_by_hand_work_is_resumed_and_renamed(tmp_path):
    with Partial(tmp_path / "out", "same") as partial:
        assert (partial.folder, partial.done) == (tmp_path / "out.partial", 0)
        (partial.folder / "model.safetensors").write_bytes(b"half")
        partial.note(1)
        partial.note(3)
    assert not (tmp_path / "out").exists()
    with Partial(tmp_path / "out", "same") as partial:
        assert partial.done == 3
        assert (partial.folder / "model.safetensors").read_bytes() == b"half"
        partial.finish()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    assert not partial.folder.exists()


def test_work_under_another_fingerprint_is_thrown_away(tmp_path):
    with Partial(tmp_path / "out", "one") as partial:
        (partial.folder / "inner").mkdir()
        (partial.folder / "inner" / "x").touch()
        (partial.folder / "model.safetensors").write_bytes(b"half")
        partial.note(3)
    with Partial(tmp_path / "out", "two") as partial:
        assert partial.done == 0
        assert [path.name for path in partial.folder.iterdir()] == [JOURNAL]


@given(done=st.lists(st.integers(1, 99), min_size=1, max_size=5).map(sorted), cut=st.integers(0, 200))
def test_a_journal_torn_anywhere_never_says_more_than_was_noted(tmp_path_factory, done, cut):
    out = tmp_path_factory.mktemp("torn") / "out"
    with Partial(out, "same") as partial:
        for number in done:
            partial.note(number)
    journal = partial.folder / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole[:cut])
    with Partial(out, "same") as partial:
        assert partial.done in (0, *done)
        lines = whole[:cut].decode().split("\n")[1:]
        if cut >= len(whole):
            assert partial.done == done[-1]
        elif len(lines) > 1:
            assert partial.done >= json.loads(lines[-2])["done"]


def test_two_calls_do_not_write_the_same_result(tmp_path):
    with (
        Partial(tmp_path / "out", "same"),
        pytest.raises(ValueError, match="another call is writing it"),
        Partial(tmp_path / "out", "same"),
    ):
        pass
    with Partial(tmp_path / "out", "same") as partial:
        partial.discard()
    assert not partial.folder.exists()


def test_what_is_there_already_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    with Partial(tmp_path / "out", "same"):
        pass
    (tmp_path / "out" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="exists already"), Partial(tmp_path / "out", "same"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="exists already"), Partial(tmp_path / "file", "same"):
        pass
    (tmp_path / "mine.partial").mkdir()
    (tmp_path / "mine.partial" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="is in the way"), Partial(tmp_path / "mine", "same"):
        pass
    assert (tmp_path / "mine.partial" / "thesis.txt").exists()
