"""The command: its numbers and units, its table, and the line that trains what it found."""

from __future__ import annotations

import io
import math
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from shoestring import config, rooms
from shoestring.data import tokenizers
from shoestring.methods.averaging.recipe import Recipe
from shoestring.methods.search.score import Score
from shoestring.methods.search.tools import app
from shoestring.methods.search.tools_find import SpaceName, count, seconds, shown, table
from shoestring.methods.search.tools_spaces import names
from shoestring.models import presets


@pytest.mark.parametrize(
    ("text", "number"),
    [("500k", 500_000), ("5M", 5_000_000), (" 1.5b ", 1_500_000_000), ("160G", 160 * 10**9), ("1234567", 1_234_567)],
)
def test_numbers_of_parameters(text: str, number: int) -> None:
    assert count(text) == number


@pytest.mark.parametrize(("text", "number"), [("20ms", 0.02), ("0.5 s", 0.5), ("500us", 5e-4), ("1S", 1.0)])
def test_durations(text: str, number: float) -> None:
    assert seconds(text) == number


@pytest.mark.parametrize("text", ["5X", "", "M", "-5M", "0", "1e6", "nan", "5 M M", "٥M"])
def test_no_number_of_parameters(text: str) -> None:
    with pytest.raises(ValueError, match=r"--max-params .*: expected a number such as 500k, 5M or 1\.5B"):
        count(text)


@pytest.mark.parametrize("text", ["20", "20 minutes", "0ms", "ms", "-1s"])
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"--max-latency .*: expected a duration such as 500us, 20ms or 1s"):
        seconds(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-math.inf, "-inf"), (math.nan, "nan"), (1553.4, "1553"), (199616.0, "199.6k"), (-2.5e6, "-2.5M")],
)
def test_numbers_in_the_table(value: float, text: str) -> None:
    assert shown(value) == text


@given(st.floats(-1e300, 1e300))
def test_shown_numbers_are_near_and_short(value: float) -> None:
    text = shown(value)
    factor = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(text[-1], 1.0)
    assert float(text.rstrip("kMGT")) * factor == pytest.approx(value, rel=6e-4)


def test_the_table_shows_ten_and_what_ranks_first() -> None:
    ranked = {f"layers={n},width=8": {"naswot": Score(1.0 * n), "a_b": Score(2.0)} for n in range(30, 18, -1)}
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table(ranked, "a_b"))
    rows = console.export_text().splitlines()
    assert rows[0].split() == ["architecture", "a", "b", "naswot"]
    assert [row.split()[0] for row in rows[2:12]] == [str(place) for place in range(1, 11)]
    assert rows[2].split() == ["1", "layers=30,", "width=8", "2", "30"]
    assert "layers=20," not in "".join(rows)


def test_all_spaces_have_their_name_here() -> None:
    assert [space.value for space in SpaceName] == ["decoder", *names()]


def test_found_and_trained(tmp_path: Path) -> None:
    """The whole way: the command says how to train, and what it says is a recipe of that shape and tokenizer."""
    text = tmp_path / "my text.txt"
    text.write_text("\n\n".join(f"{n} times {n} is {n * n}" for n in range(900)))
    out = tmp_path / "out"
    options = ["--max-params", "40k", "--data", str(text), "--length", "16", "--draws", "2", "--out", str(out)]
    done = CliRunner().invoke(app, ["find", *options], catch_exceptions=False)
    assert done.exit_code == 0
    line = next(line for line in done.stdout.splitlines() if line.startswith("train it: "))
    words = shlex.split(line.removeprefix("train it: "))
    assert words[:3] == ["shoestring", "run", "averaging"]
    recipe = config.load(rooms.find("averaging").recipe(words[3]), Recipe, words[4:])
    assert recipe.text.source == str(text)
    assert recipe.text.length == 16
    tokenizer = tokenizers.resolve(recipe.text.tokenizer, ())
    trained = presets.configuration(recipe.model, len(tokenizer), recipe.text.length)
    found = done.stdout.split(f"{out}: ")[1].split(", the best")[0]
    assert found == (
        f"layers={trained.num_hidden_layers},width={trained.hidden_size},heads={trained.num_attention_heads},"
        f"inner={trained.intermediate_size}"
    )
    assert presets.parameters(trained) <= 40_000


def test_no_draws_are_refused() -> None:
    done = CliRunner().invoke(app, ["find", "--data", "python", "--draws", "0"])
    assert done.exit_code == 2
    assert "0 is not in the range x>=1" in done.output
