"""The commands of the room, as the door knows them."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from shoestring import __main__ as door
from shoestring.methods.mixing.tools import app


def test_the_commands_are_these():
    found = CliRunner().invoke(app, ["--help"])
    assert all(f"│ {name} " in found.stdout for name in ("graph", "show", "weights", "sort"))


@pytest.mark.parametrize(
    "words",
    [
        ["graph", "none.txt", "other.txt"],
        ["show", "none.json"],
        ["weights", "none.json", "losses.json"],
        ["sort", "none.jsonl", "--skills", "2"],
    ],
)
def test_what_is_wrong_is_one_line(words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["shoestring", "mixing", *words])
    with pytest.raises(SystemExit) as left:
        door.main()
    said = capfd.readouterr()
    assert left.value.code == 2
    assert said.out == ""
    assert said.err.startswith("shoestring: none.")
    assert said.err.count("\n") == 1
