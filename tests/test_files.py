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
