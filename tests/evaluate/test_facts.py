"""The facts of a measurement."""

from __future__ import annotations

import datetime
import platform
import subprocess
from pathlib import Path

import pytest
import torch
import transformers

import shoestring
from shoestring.evaluate import facts


def test_what_is_gathered() -> None:
    found = facts.gather("shoestring run averaging smoke")
    assert list(found) == ["command", "date", "commit", "machine", "python", "versions"]
    assert found["command"] == "shoestring run averaging smoke"
    age = datetime.datetime.now(datetime.UTC).date() - datetime.date.fromisoformat(found["date"])
    assert age.days in (0, 1)
    assert found["python"] == platform.python_version()
    assert found["versions"] == f"torch {torch.__version__}, transformers {transformers.__version__}"
    assert " cores of " in found["machine"]
    assert found["machine"].count(" GB of memory") == 1
    assert all("\n" not in value for value in found.values())


def test_the_commit_is_the_checkouts_or_else_the_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    monkeypatch.setattr(facts, "__file__", str(package / "facts.py"))
    assert facts.commit() == f"version {shoestring.__version__}"
    (package / "facts.py").write_text("1")
    (tmp_path / "src" / "other").mkdir()
    (tmp_path / "src" / "other" / "file.py").write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert facts.commit() == head[:12]
    (tmp_path / "beside").write_text("not of the sources, and not tracked")
    assert facts.commit() == head[:12]
    (tmp_path / "src" / "other" / "file.py").write_text("2")
    assert facts.commit() == head[:12] + "+"


def test_without_git_the_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert facts.commit() == f"version {shoestring.__version__}"
