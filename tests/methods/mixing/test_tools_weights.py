"""The command that weighs skills: JSON for machines, a table for people, the fall-back aloud, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from shoestring.data import tokenizers
from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.tools import app
from shoestring.methods.mixing.weights import skill_weights

EDGES = [[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.25, 2.0]]
NAMES = ["a", "b", "c"]
LOSSES = {"a": 1.0, "b": 2.0, "c": 0.5}
BYTES = tokenizers.fingerprint(tokenizers.byte_tokenizer())


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    graph = Graph.of(EDGES, NAMES)
    Graph(graph.skills, graph.evaluated, graph.edges, tokenizer=BYTES).save("graph.json")
    write("losses.json", LOSSES)
    return tmp_path


def write(name: str, told: object) -> None:
    Path(name).write_text(json.dumps(told))


def asked(*words: str) -> Result:
    return CliRunner().invoke(app, ["weights", "graph.json", "losses.json", *words])


def weights(*words: str) -> list[float]:
    found = asked(*words)
    assert found.exit_code == 0, found.exception
    told = json.loads(found.stdout)
    assert list(told) == NAMES
    assert math.fsum(told.values()) == pytest.approx(1, abs=1e-12)
    return list(told.values())


def refused(*words: str) -> str:
    found = asked(*words)
    assert isinstance(found.exception, ValueError), found.output
    assert "\n" not in str(found.exception)
    assert found.stdout == ""
    return str(found.exception)


def expected(rows: list[list[float]], rate: float = 0.5, **switches: object) -> list[float]:
    losses = torch.tensor(rows, dtype=torch.float64)
    return pytest.approx(skill_weights(torch.tensor(EDGES), losses, rate, **switches).tolist())


def test_by_hand():
    scores = [0.5 * (1 + 0.5 * 2), 0.5 * 2, 0.5 * (0.25 * 2 + 2 * 0.5)]
    powers = [math.exp(score) for score in scores]
    assert weights() == pytest.approx([power / sum(powers) for power in powers])


def test_people_read_standard_error():
    said = asked().stderr
    assert "weights at --rate 0.5, of 1 measurement\n" in said
    assert [line.split()[0] for line in said.splitlines()[3:]] == ["a", "b", "c"]


def test_a_window_is_summed_or_averaged_and_may_be_normalised():
    rows = [[3.0, 1.0, 1.0], list(LOSSES.values())]
    write("losses.json", [dict(zip(NAMES, row, strict=True)) for row in rows])
    assert weights("--rate", "0.2") == expected(rows, 0.2)
    assert weights("--rate", "0.2", "--mean") == expected(rows, 0.2, mean=True)
    write("first.json", {"c": 4.0, "a": 2.0, "b": 8.0})
    assert weights("--normalize", "first.json") == expected(rows, normalize_loss=torch.tensor([2.0, 8.0, 4.0]))


def test_a_single_skill_is_told_of():
    write("losses.json", {"a": 1.0, "b": 2.5, "c": 0.5})
    assert max(weights("--rate", "50")) > 0.99
    assert "of what is drawn is 'b': lower --rate, or give a --floor" in asked("--rate", "50").stderr
    assert "of what is drawn" not in asked("--rate", "50", "--floor", "0.1").stderr


def test_a_floor():
    low = weights("--rate", "50", "--floor", "0.1")
    assert min(low) == pytest.approx(0.1)
    assert "a floor of 0.5 for 3 skills" in refused("--floor", "0.5")


@pytest.mark.parametrize(
    ("edges", "verdict"), [([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "empty"), ([[1] * 3] * 3, "complete")]
)
def test_a_graph_that_tells_nothing_is_left_unless_it_is_asked_for_anyway(edges, verdict):
    Graph.of(edges, NAMES).save("graph.json")
    assert weights() == pytest.approx([1 / 3] * 3)
    assert f"warning: the graph is nearly {verdict}" in asked().stderr
    assert "sampling falls back to stratified, all skills alike (or --anyway)" in asked().stderr
    followed = asked("--anyway")
    assert "followed --anyway" in followed.stderr
    assert list(json.loads(followed.stdout).values()) == pytest.approx(
        skill_weights(torch.tensor(edges).double(), torch.tensor([1.0, 2.0, 0.5]), 0.5).tolist()
    )


@pytest.mark.parametrize("spec", [BYTES, "bytes", "./tokenizer"])
def test_the_graphs_own_tokenizer(here, spec):
    tokenizers.byte_tokenizer().save_pretrained(here / "tokenizer")
    weights("--tokenizer", spec)


def test_another_tokenizer(here):
    other = tokenizers.train_bpe(["ab ab abc"], 258)
    other.save_pretrained(here / "other")
    for spec in ("0123456789abcdef", "./other"):
        assert "graph.json: learned with the tokenizer" in refused("--tokenizer", spec)
    Graph.of(EDGES, NAMES).save("graph.json")
    assert "does not say of which tokenizer it is" in asked("--tokenizer", "bytes").stderr


REFUSED = [
    ({"a": 1, "b": 2, "d": 3, "c": 1}, "losses.json: the graph has no evaluated skill 'd': expected a, b, c"),
    ({"a": 1, "b": 2}, "losses.json: no loss of 'c': expected one of each of a, b, c"),
    ({"a": 1, "b": math.nan, "c": 1}, "losses.json: the loss of 'b' is nan: expected a number, and finite"),
    ({"a": 1, "b": math.inf, "c": 1}, "losses.json: the loss of 'b' is inf"),
    ({"a": 1, "b": None, "c": 1}, "losses.json: the loss of 'b' is None"),
    ({"a": 1, "b": True, "c": 1}, "losses.json: the loss of 'b' is True"),
    ([LOSSES, {"a": 1}], "losses.json: no loss of 'b'"),
    ([], 'losses.json: expected {"skill": loss}, or a list'),
    ([1, 2], 'losses.json: expected {"skill": loss}, or a list'),
    (3, 'losses.json: expected {"skill": loss}, or a list'),
]


@pytest.mark.parametrize(("told", "message"), REFUSED, ids=str)
def test_losses_that_are_none(told, message):
    write("losses.json", told)
    assert refused().startswith(message)


def test_files_that_are_none(here):
    (here / "losses.json").write_text('{"a": 1')
    assert "losses.json: not JSON" in refused()
    (here / "losses.json").unlink()
    assert "losses.json: cannot be read" in refused()
    write("losses.json", LOSSES)
    write("first.json", [LOSSES, LOSSES])
    assert "--normalize first.json: a list of 2" in refused("--normalize", "first.json")
    write("first.json", {**LOSSES, "b": 0})
    assert "--normalize first.json: the loss of 'b' is 0.0" in refused("--normalize", "first.json")
    (here / "graph.json").write_text((here / "graph.json").read_text()[:60])
    assert "graph.json: not JSON" in refused()
    assert "the rate" in nan_rate(here)


def nan_rate(here: Path) -> str:
    Graph.of(EDGES, NAMES).save(here / "graph.json")
    return refused("--rate", "nan")
