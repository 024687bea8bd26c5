"""Where results go: looked at before, and nothing left that was not there."""

from __future__ import annotations

import pytest

from shoestring.methods.rationale.tools_out import (
    check_file,
    check_folder,
    leaving_no_folder,
    leaving_nothing_begun,
)


def test_files_that_can_be_written(tmp_path):
    check_file(tmp_path / "a.jsonl", ".jsonl")
    check_file(tmp_path / "new" / "newer" / "a.jsonl", ".jsonl", tmp_path / "b.jsonl")
    (tmp_path / "a.jsonl").write_text("before")
    check_file(tmp_path / "a.jsonl", ".jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_files_that_cannot(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").mkdir()
    for path, message in (
        (tmp_path / "a.json", "ending in .jsonl"),
        (tmp_path / "b.jsonl", "ending in .jsonl"),
        (tmp_path / "link.jsonl", "it is what is read"),
        (tmp_path / "a.jsonl" / "c.jsonl", "a.jsonl is a file"),
    ):
        with pytest.raises(ValueError, match=message):
            check_file(path, ".jsonl", tmp_path / "a.jsonl")


def test_folders(tmp_path):
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "newer")
    (tmp_path / "a").write_text("")
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(ValueError, match=r"a file"):
            check_folder(path)


def test_new_folders_go_where_nothing_is_in_them(tmp_path):
    with leaving_no_folder(tmp_path / "new" / "newer" / "a"):
        (tmp_path / "new" / "newer").mkdir(parents=True)
    assert not (tmp_path / "new").exists()
    with leaving_no_folder(tmp_path / "new" / "newer" / "a"):
        (tmp_path / "new" / "newer").mkdir(parents=True)
        (tmp_path / "new" / "newer" / "a").write_text("kept")
    assert (tmp_path / "new" / "newer" / "a").exists()


def test_a_folder_of_runs_goes_where_none_was_begun(tmp_path):
    work = tmp_path / "work"

    def fail(begun: bool) -> None:
        with leaving_nothing_begun(work):
            (work / "runs" if begun else work).mkdir(parents=True, exist_ok=True)
            (work / "recipe.yaml").write_text("")
            raise KeyError

    for begun in (False, True, False):
        was = work.exists()
        with pytest.raises(KeyError):
            fail(begun)
        assert work.exists() is (begun or was)
