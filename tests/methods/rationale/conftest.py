"""For the tests of this room's commands: the door in this process, and a teacher on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def call(command: Callable[..., SimpleNamespace]) -> Callable[..., SimpleNamespace]:
    """`shoestring rationale …` in this process: returns code, out and err."""
    return partial(command, "rationale")


@pytest.fixture
def rows_file(tmp_path: Path) -> Callable[..., Path]:
    """A file of JSON lines: rows_file(rows, name="data.jsonl")."""

    def written(rows: Iterable[Mapping[str, Any]], name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return written


@pytest.fixture
def read_rows() -> Callable[[Path], list[dict[str, Any]]]:
    return lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
