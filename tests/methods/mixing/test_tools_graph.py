"""The command that learns a graph: what it leaves, what it pays for once, stopped and killed, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner, Result

from shoestring.cost import Cost
from shoestring.data import corpora, tokenizers
from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.tools import app
from shoestring.methods.mixing.tools_graph import cost_table
from shoestring.methods.mixing.tools_trainings import Training
from shoestring.models import presets, pretrained

LENGTH = 16
QUICK = [
    "--steps",
    "3",
    "--base-steps",
    "2",
    "--length",
    str(LENGTH),
    "--batch",
    "2",
    "--held-out",
    "8",
    "--seeds",
    "2",
    "--precision",
    "fp32",
]
BYTES = tokenizers.fingerprint(tokenizers.byte_tokenizer())


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """Three skills in files of their own, and the same as domains of one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    random = Random(0)
    letters = {"vowels": "aeiou", "hums": "mn", "marks": ".,;:!?"}
    texts = {name: "".join(random.choice(some) for _ in range(1600)) for name, some in letters.items()}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    rows = [{"text": texts[name][at : at + 40], "domain": name} for at in range(0, 1600, 10) for name in texts]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


FILES = ["vowels.txt", "hums.txt", "marks.txt"]


def asked(*words: str) -> Result:
    return CliRunner().invoke(app, ["graph", *words])


def learned(*words: str) -> str:
    found = asked(*words)
    assert found.exit_code == 0, (found.output, found.exception)
    return found.output


def refused(*words: str) -> str:
    found = asked(*words)
    assert isinstance(found.exception, ValueError), found.output
    assert "\n" not in str(found.exception)
    return str(found.exception)


@pytest.fixture
def trained(monkeypatch) -> list[tuple[dict[str, float], int]]:
    """The trainings that are paid for, as they are."""
    paid: list[tuple[dict[str, float], int]] = []
    call = Training.__call__

    def counted(self: Training, shares: dict[str, float], seed: int) -> dict[str, float]:
        paid.append((shares, seed))
        return call(self, shares, seed)

    monkeypatch.setattr(Training, "__call__", counted)
    return paid


def test_files_are_skills(here):
    said = learned(*FILES, *QUICK, "--precision", "auto")
    found = Graph.load("graph.json", tokenizer=BYTES)
    assert found.skills == found.evaluated == ("vowels", "hums", "marks")
    assert json.loads(found.data) == {Path(name).stem: corpora.fingerprint(name) for name in FILES}
    assert found.learned["cut"] == "stretches"
    assert found.learned["of"] == "neox-tiny after 2 steps on all, 3 steps of 2 windows of 16 tokens at 0.001"
    assert found.learned["tokens"] == 2 * LENGTH * (2 + 3 * 3 * 2)  # the base, and three skills by two seeds
    assert (here / "graph.svg").read_text().startswith("<?xml")
    for words in (
        "8 runs, the base of each seed among them: 8 run now, 0 found in graph.trainings",
        "trainings: 8 of 8, done",
        "how much training on a row lowers the loss on a column",
        "the graph is ",
        "in all",
        "graph.json: a graph of 3 skills; its picture: graph.svg",
    ):
        assert words in said
    assert {path.name for path in here.iterdir()} >= {"graph.json", "graph.svg", "graph.trainings"}


def test_domains_are_skills_and_a_target_may_be_held_apart(here):
    learned("all.jsonl", *QUICK, "--evaluated", "marks", "--out-of-domain", "--out", "new/g.json")
    found = Graph.load(here / "new" / "g.json")
    assert (found.skills, found.evaluated) == (("hums", "vowels"), ("marks",))
    assert json.loads(found.data) == {"all.jsonl": corpora.fingerprint("all.jsonl")}
    assert sorted(path.name for path in (here / "new").iterdir()) == ["g.json", "g.svg", "g.trainings"]


def test_nothing_is_paid_for_twice(here, trained):
    learned(*FILES, *QUICK)
    first = (here / "graph.json").read_bytes()
    assert len(trained) == 8
    assert "8 runs, the base of each seed among them: 0 run now, 8 found in graph.trainings" in learned(*FILES, *QUICK)
    assert (here / "graph.json").read_bytes() == first
    learned(*FILES, *QUICK, "--value", "relative", "--signed", "--workers", "1")
    assert len(trained) == 8
    learned(*FILES, *QUICK, "--seeds", "3")
    assert [seed for _, seed in trained[8:]] == [2] * 4
    learned(*FILES, *QUICK, "--how", "brute")
    assert [sorted(shares.values()) for shares, _ in trained[12:]] == [[0.5, 0.5]] * 6
    assert len((here / "graph.trainings" / "base" / "model.safetensors").read_bytes()) > 0


def test_ctrl_c_loses_nothing_that_ended(here, trained, monkeypatch):
    learned(*FILES, *QUICK, "--out", "whole.json")
    whole = Graph.load("whole.json")
    trained.clear()
    call = Training.__call__

    def stopped(self: Training, shares: dict[str, float], seed: int) -> dict[str, float]:
        if len(trained) == 3:
            raise KeyboardInterrupt
        return call(self, shares, seed)

    monkeypatch.setattr(Training, "__call__", stopped)
    assert asked(*FILES, *QUICK).exit_code == 130
    assert not (here / "graph.json").exists()
    monkeypatch.setattr(Training, "__call__", call)
    assert "8 runs, the base of each seed among them: 5 run now, 3 found" in learned(*FILES, *QUICK)
    assert Graph.load("graph.json").edges.equal(whole.edges)


def test_killed_and_begun_again_is_never_killed(here, trained):
    """By SIGKILL, once some trainings have ended."""
    command = [sys.executable, "-m", "shoestring", "mixing", "graph", *FILES, *QUICK, "--seeds", "9", "--how", "brute"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    ended = here / "graph.trainings"
    until = time.monotonic() + 60
    while len(list(ended.glob("*-seed*.json"))) < 4 and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    said, _ = process.communicate()
    kept = len(list(ended.glob("*-seed*.json")))
    assert 4 <= kept < 63, said
    assert not (here / "graph.json").exists()
    learned(*FILES, *QUICK)
    again = 8 - len(trained)
    assert 4 <= again <= kept
    learned(*FILES, *QUICK, "--out", "whole.json")
    assert Graph.load("graph.json").edges.equal(Graph.load("whole.json").edges)


def test_a_folder_is_of_one_beginning(here, trained):
    with_others = ["--folder", "kept"]
    assert "do not fill windows of 999" in refused(*FILES, *QUICK, *with_others, "--length", "999")
    learned(*FILES, *QUICK, *with_others)  # nothing was paid for before
    assert "kept: begun with steps 3, now 4: give another --folder" in refused(
        *FILES, *QUICK, *with_others, "--steps", "4"
    )
    (here / "hums.txt").write_text("other " * 400)
    assert "kept: begun with data" in refused(*FILES, *QUICK, *with_others)
    (here / "mine").mkdir()
    (here / "mine" / "letter.doc").touch()
    assert "mine: holds files that are no trainings" in refused(*FILES, *QUICK, "--folder", "mine")
    assert len(trained) == 8


def test_a_torn_training_is_named(here):
    learned(*FILES, *QUICK)
    torn = next((here / "graph.trainings").glob("*-seed1.json"))
    torn.write_text('{"losses"')
    assert refused(*FILES, *QUICK).startswith(f"graph.trainings/{torn.name}: torn")
    torn.unlink()
    assert "8 runs, the base of each seed among them: 1 run now" in learned(*FILES, *QUICK)
    costs = next((here / "graph.trainings" / "costs").glob("*-seed1.json"))
    costs.write_text("{")
    assert refused(*FILES, *QUICK).startswith(f"graph.trainings/costs/{costs.name}: torn")
    (here / "graph.trainings" / "begun.json").write_text("[]")
    assert "begun.json: holds [], expected options" in refused(*FILES, *QUICK)


def test_a_trained_model_is_the_base(here):
    tokenizer = tokenizers.byte_tokenizer()
    model = presets.build(presets.configuration("neox-tiny", len(tokenizer), LENGTH), 0)
    pretrained.save(model, tokenizer, here / "model")
    words = [*FILES, *QUICK, "--model", "./model"]
    learned(*words)
    found = Graph.load("graph.json", tokenizer=BYTES)
    assert found.learned["of"].startswith("./model ")
    assert found.learned["of"].endswith("at 5e-05")
    assert not (here / "graph.trainings" / "base").exists()
    assert "has a context of 16 tokens" in refused(*words, "--length", "17")
    assert "--tokenizer bytes: ./model has its own" in refused(*words, "--tokenizer", "bytes")
    pretrained.save(presets.build(model.config, 1), tokenizer, here / "model")
    # the same weights under the same name are read once a process
    assert "graph.trainings: begun with model ./model" in fresh(*words)


def fresh(*words: str) -> str:
    from shoestring.methods.mixing import tools_trainings

    tools_trainings._fingerprint.cache_clear()
    return refused(*words)


def test_divergence_names_the_training(here):
    said = refused(*FILES, *QUICK, "--learning-rate", "1e30", "--base-steps", "0")
    assert said.startswith("the training on vowels, seed 0: ")
    assert "lower the learning rate" in said or "overflowed" in said


def test_what_makes_edges_doubtful_is_said(here):
    assert "warning" not in learned(*FILES, *QUICK)
    (here / "large.txt").write_text("large " * 2000)
    said = learned(*FILES, "large.txt", *QUICK, "--steps", "200", "--seeds", "1", "--out", "b.json")
    assert "warning: vowels, hums, marks: a training reads the text 5 times or nearly as often" in said
    thin = learned(*FILES, *QUICK, "--held-out", "64", "--out", "c.json")
    assert "warning: vowels, hums, marks: losses are those of 8 windows or a few more: edges to them are" in thin


REFUSED = [
    (["vowels.txt", "empty.txt"], r"empty\.txt: the file is empty"),
    (["vowels.txt"], r"vowels\.txt: one skill alone \(vowels\), expected two or more"),
    (["v=vowels.txt"], r"one skill alone \(v\)"),
    (["vowels.txt", "short.txt"], r"skill 'short': 12 tokens in short\.txt do not fill windows of 16"),
    (["vowels.txt", "none.txt"], r"none\.txt: no such file"),
    (["vowels.txt", "more/vowels.txt"], r"a skill is called 'vowels' already: say another-name=more/vowels\.txt"),
    (["vowels.txt", "torn.jsonl"], r"skill 'torn': torn\.jsonl:1: not JSON"),
    ([*FILES, "--evaluated", "vowel"], "--evaluated vowel: no such skill; did you mean 'vowels'"),
    ([*FILES, "--out-of-domain"], "say by --evaluated"),
    ([*FILES, "--evaluated", "hums", "--out-of-domain", "--how", "brute"], "hums cannot be trained on"),
    ([*FILES, "--model", "neox-tny"], "neox-tiny"),
    ([*FILES, "--model", "./nothing"], "there is no such folder"),
    ([*FILES, "--tokenizer", "bpe:x"], "expected a vocabulary size"),
    ([*FILES, "--out", "graph.txt"], r"--out graph\.txt: expected the name of a file ending in \.json"),
    ([*FILES, "--out", "vowels.txt/graph.json"], "--out .*: its folder cannot be made"),
    ([*FILES, "--folder", "vowels.txt/kept"], "cannot be written"),
    (["all.jsonl", "--text-field", "body"], "no field 'body'"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else None)
def test_what_is_refused_before_anything_is_trained(here, monkeypatch, words, message):
    monkeypatch.setattr("shoestring.methods.mixing.tools_trainings.train", None)
    (here / "empty.txt").touch()
    (here / "short.txt").write_text("too little!")
    (here / "torn.jsonl").write_text('{"text": "a')
    (here / "more").mkdir()
    (here / "more" / "vowels.txt").write_text("aeiou" * 500)
    found = asked(*words, *QUICK)
    assert isinstance(found.exception, ValueError), found.output
    assert "\n" not in str(found.exception)
    with pytest.raises(ValueError, match=message):
        raise found.exception
    assert not (here / "graph.json").exists()


def test_it_runs_in_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--workers" in refused(*FILES, *QUICK)


def test_costs_add_up():
    table = cost_table({"the base": Cost(flops=1e9, seconds=2), "trainings": Cost(flops=3e9, tokens=5, seconds=4)})
    cells = [list(map(str, column.cells)) for column in table.columns]
    assert cells == [
        ["the base", "trainings", "in all"],
        ["1.00", "3.00", "4.00"],
        ["0", "5.00", "5.00"],
        ["2.00", "4.00", "6.00"],
    ]
