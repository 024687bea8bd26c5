"""The commands of the room, as the door knows them."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from shoestring.methods.permutation.tools import app

NAMES = ["pretrain", "finetune", "score", "convert"]


def test_the_commands_are_these():
    found = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"})
    assert found.exit_code == 0
    assert all(f"│ {name} " in found.output for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_does(name):
    found = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "120"})
    assert found.exit_code == 0
    assert " Usage: " in found.output
