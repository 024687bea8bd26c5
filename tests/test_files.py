"""Small files: whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shoestring import files


def test_a_file_is_made_with_its_folder_and_then_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "facts.json"
    files.replace(path, "one")
    files.replace(path, "zwölf")
    assert path.read_text(encoding="utf-8") == "zwölf"
    assert [file.name for file in path.parent.iterdir()] == ["facts.json"]


def test_a_disk_that_fails_leaves_what_stood_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facts.json"
    files.replace(path, "before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.replace(path, "after")
    assert path.read_text(encoding="utf-8") == "before"


def test_json_is_read_and_a_torn_file_is_named_with_its_mend(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    files.replace(path, '{"a": [1, "zwölf"]}')
    assert files.read_json(path, "delete it") == {"a": [1, "zwölf"]}
    for torn in (b'{"a": [1', b"", b'{"a": "\xff"}'):
        path.write_bytes(torn)
        with pytest.raises(ValueError, match=r"facts.json: torn \(.*\): delete it") as caught:
            files.read_json(path, "delete it")
        assert "\n" not in str(caught.value)


def test_data_is_found_by_path_or_by_name_on_the_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, here = tmp_path / "shelf", tmp_path / "here"
    for folder in (shelf / "text", here):
        folder.mkdir(parents=True)
    (shelf / "text" / "books.txt").write_text("on the shelf")
    (shelf / "both.txt").write_text("on the shelf")
    (here / "both.txt").write_text("here")
    monkeypatch.chdir(here)
    monkeypatch.setenv("SHOESTRING_DATA", str(shelf))
    assert files.find("text/books.txt") == shelf / "text" / "books.txt"
    assert files.find(str(shelf / "both.txt")) == shelf / "both.txt"
    assert files.find("both.txt").read_text() == "here"  # what is given as a path comes first
    assert files.find("text") == shelf / "text"
    monkeypatch.setenv("HOME", str(shelf))
    monkeypatch.delenv("SHOESTRING_DATA")
    assert files.find("~/both.txt") == shelf / "both.txt"


def test_data_that_is_nowhere_is_refused_with_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHOESTRING_DATA", raising=False)
    with pytest.raises(
        ValueError, match=r"lost\.txt: no such file; name the folder of your data sets in SHOESTRING_DATA"
    ):
        files.find("lost.txt")
    monkeypatch.setenv("SHOESTRING_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"lost.txt: no such file, nor in SHOESTRING_DATA={tmp_path}: give its path"):
        files.find("lost.txt")


def test_an_output_folder_is_held_to_the_data_that_it_was_begun_on(tmp_path: Path) -> None:
    files.begun_on(tmp_path, {"train": "abc"})
    files.begun_on(tmp_path, {"train": "xyz"})  # nothing has run yet: the new data is what counts
    (tmp_path / "runs").mkdir()
    files.begun_on(tmp_path, {"train": "xyz", "test": "def"})
    with pytest.raises(ValueError, match="begun on train xyz, which is abc now: give another --out, or delete it"):
        files.begun_on(tmp_path, {"train": "abc", "test": "def"})
    with pytest.raises(ValueError, match="begun on test def, which is None now"):
        files.begun_on(tmp_path, {"train": "xyz"})
    files.begun_on(tmp_path, {"train": "xyz", "test": "def"})  # a refusal changes nothing


def test_a_folder_whose_record_is_torn_or_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for text, said in (('{"train', r"data.json: torn .*: give another --out"), ("[1]", r"data.json: holds \[1\]")):
        (tmp_path / "data.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            files.begun_on(tmp_path, {"train": "abc"})
        assert (tmp_path / "data.json").read_text() == text


def test_what_was_made_of_the_same_stays(tmp_path):
    def make() -> None:
        (tmp_path / "tokens").mkdir(exist_ok=True)
        for name in ("tokens/a.bin", "settled.json", "mine.txt"):
            (tmp_path / name).write_text("made")

    def made() -> list[str]:
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())

    parts = ("tokens", "settled.json", "never there")
    make()
    files.made_of(tmp_path, {"text": "one"}, parts)
    assert made() == ["made.json", "mine.txt"]  # nobody said what it was made of
    make()
    files.made_of(tmp_path, {"text": "one"}, parts)
    assert made() == ["made.json", "mine.txt", "settled.json", "tokens/a.bin"]
    files.made_of(tmp_path, {"text": "two"}, parts)
    assert made() == ["made.json", "mine.txt"]
    make()
    (tmp_path / "runs").mkdir()
    files.made_of(tmp_path, {"text": "three"}, parts)
    assert "tokens/a.bin" in made()


def test_the_plainest_spelling_of_what_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("w", "py", "python"):
        (tmp_path / name).mkdir()
    assert [files.spelled(name) for name in ("w", "w/", "./w", "./w//")] == ["w"] * 4
    assert files.spelled(f"{tmp_path}/w/") == str(tmp_path / "w"), "the same from everywhere"
    assert files.spelled("x" * 300) == "x" * 300
    assert files.spelled("~nobody at all/x") == "~nobody at all/x"
    assert files.spelled("./none") == "./none", "a name on the Hub has no such start"
    assert files.spelled("py/", ("python",)) == "py"
    assert files.spelled("./python", ("python",)) == "./python", "another thing than python"
    assert files.spelled("") == ""
