"""The command: skills that it finds in a heap, what it writes and shows, and what it refuses before it trains."""

from __future__ import annotations

import io
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from shoestring.data import tokenizers
from shoestring.methods.mixing import clusters, tools_sort_training
from shoestring.methods.mixing.documents import Sample
from shoestring.methods.mixing.tools_sort import Found, find, sort, told
from shoestring.methods.mixing.tools_sort_training import By, Training
from shoestring.methods.mixing.tools_sorted import skills_table
from shoestring.methods.mixing.trajectories import Trajectories
from shoestring.models import presets, pretrained
from shoestring.types import Run

LETTERS = "abcdefghijklmnop"
QUICK = ["--runs", "1", "--length", "17"]


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(sort)
    return app


def records(count: int, seed: int = 0) -> list[dict]:
    """Three skills of the same letters: counting up, pairs of neighbours, and no order at all."""
    generator = np.random.default_rng(seed)
    found = []
    for place in range(count):
        skill = ("up", "pairs", "none")[place % 3]
        if skill == "up":
            order = (np.arange(16) + generator.integers(16)) % 16
        elif skill == "pairs":
            order = (2 * generator.permutation(8)[:, None] + np.arange(2)).reshape(-1)
        else:
            order = generator.permutation(16)
        found.append({"id": place, "text": "".join(LETTERS[letter] for letter in order), "task": skill})
    return found


def data(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(app: typer.Typer, *arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def samples(texts: list[str], **fields: list) -> list[Sample]:
    rows = [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]
    return [Sample(text, row, "file") for text, row in zip(texts, rows or [{}] * len(texts), strict=True)]


def test_skills_that_look_alike_are_found(app, tmp_path):
    """The letters are the same in all, so that their counts find nothing, and say why."""
    rows = records(90)
    path, out = data(tmp_path / "heap.jsonl", rows), tmp_path / "new" / "sorted.jsonl"
    said = run(app, path, "--skills", 3, "--out", out, "--steps", 100, "--checkpoints", 10, *QUICK)
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [{key: value for key, value in row.items() if key != "skill"} for row in written] == rows
    skills = [row["skill"] for row in written]
    assert clusters.recovery(skills, [row["task"] for row in rows]) > 0.9
    assert "Compared with task, of 3 values, which was not used to sort" in " ".join(said.split())
    assert "1 of them different" in " ".join(said.split())
    assert "90 samples in 3 skills by losses\n" in said
    assert [path.name for path in out.parent.iterdir()] == ["sorted.jsonl"]


def test_the_same_command_gives_the_same_file_and_the_truth_does_not_matter(app, tmp_path):
    rows = records(30)
    told_, untold = (
        data(tmp_path / "a.jsonl", rows),
        data(tmp_path / "b.jsonl", [{"text": row["text"]} for row in rows]),
    )
    skills = []
    for place, path in enumerate((told_, told_, untold)):
        out = tmp_path / f"{place}" / "sorted.jsonl"
        said = run(app, path, "--skills", 3, "--out", out, "--steps", 6, "--checkpoints", 3, *QUICK)
        assert ("Compared with" in said) == (path is told_)
        skills.append([json.loads(line)["skill"] for line in out.read_text().splitlines()])
    assert skills[0] == skills[1] == skills[2]


@pytest.mark.parametrize("by", ["falls", "embeddings", "counts"])
def test_other_ways(app, tmp_path, by):
    words = ["the cat sat", "1 + 2 = 3", "the dog ran", "4 + 5 = 9", "the cow lay", "7 + 1 = 8"]
    rows = [{"question": word, "n": place, "skill": "old"} for place, word in enumerate(words)]
    path, out = data(tmp_path / "heap.jsonl", rows), tmp_path / "sorted.jsonl"
    out.write_text("what stood here before")
    options = ["--by", by, "--text-field", "question", "--field", "found", "--steps", 8, "--checkpoints", 2]
    run(app, path, "--skills", 2, "--out", out, *options, *QUICK)
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["n"] for row in written] == list(range(6))
    assert {row["skill"] for row in written} == {"old"}
    found = [row["found"] for row in written]
    if by == "counts":
        assert found == [0, 1, 0, 1, 0, 1]
    else:  # so short a training tells little: what it sorts by is what the way says
        training = Training("neox-tiny", None, 17, 1, 8, 2, None, 0, tmp_path / "anew")
        features = training.features(words, [By(by)], lambda done, total: None).by[By(by)]
        assert found == clusters.cluster(features, 2, 0).tolist()


def test_a_draw_says_what_it_left_out(app, tmp_path):
    path, out = data(tmp_path / "heap.jsonl", records(60)), tmp_path / "sorted.jsonl"
    said = run(app, path, "--skills", 2, "--out", out, "--samples", 12, "--steps", 2, "--checkpoints", 1, *QUICK)
    assert "12 samples in 2 skills by losses; --samples 60 sorts all 60" in said
    numbers = [json.loads(line)["id"] for line in out.read_text().splitlines()]
    assert len(numbers) == 12
    assert numbers == sorted(numbers)


def test_a_trained_model_brings_its_tokenizer(app, tmp_path):
    tokenizer = tokenizers.train_bpe([row["text"] for row in records(9)], 260)
    model = presets.build(presets.configuration("neox-tiny", 260, 16), 0)
    folder = pretrained.save(model, tokenizer, tmp_path / "model")
    path, out = data(tmp_path / "heap.jsonl", records(12)), tmp_path / "sorted.jsonl"
    options = ["--skills", "2", "--out", out, "--model", folder, "--steps", "2", "--checkpoints", "2", "--runs", "2"]
    run(app, path, *options, "--length", 16)
    assert len(out.read_text().splitlines()) == 12
    with pytest.raises(ValueError, match=r"--length 17: .* has a context of 16 tokens"):
        run(app, path, *options, "--length", 17)
    with pytest.raises(ValueError, match=r"--tokenizer bytes: .* has its own"):
        run(app, path, *options, "--tokenizer", "bytes")


def test_runs_and_checkpoints_are_as_many_as_asked_for(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(clusters, "cluster", lambda features, skills, seed: seen.append(features.shape) or np.arange(4))
    training = Training("neox-tiny", None, 8, 3, steps=7, checkpoints=4, learning_rate=None, seed=0, folder=tmp_path)
    shown = []
    find(samples(["abcd", "bcde", "cdef", "defg"]), 4, By.losses, training, None, lambda *how: shown.append(how))
    assert seen == [(4, 12)]
    assert sorted(set(shown)) == [(step, 21) for step in range(22)]
    shown.clear()
    find(samples(["abcd", "bcde", "cdef", "defg"]), 4, By.losses, training, None, lambda *how: shown.append(how))
    assert shown == [(7, 21), (14, 21), (21, 21)], "what was trained is kept"


def test_what_was_told_is_found():
    texts = ["a", "b"]
    assert told(samples(texts, task=["x", "y"], n=[1, 2]), None) == ("task", ["x", "y"])
    assert told(samples(texts, domain=["x", "x"], skill=[1, 2]), None) == ("skill", ["1", "2"])
    assert told(samples(texts, task=["x", None]), None) is None
    assert told(samples(texts, n=[1, 2]), "n") == ("n", ["1", "2"])
    assert told([Sample("a", {}, "poems"), Sample("b", {}, "news")], None) == ("file", ["poems", "news"])
    with pytest.raises(ValueError, match=r"--known kind: expected it in every record, .*; 0 have it"):
        told(samples(texts, n=[1, 2]), "kind")


def test_a_text_cannot_steer_the_terminal():
    nasty = samples(["[red]\x1b[2J\nlong " + "x" * 100, "[/]"], task=["[b]", "c"])
    console = Console(file=io.StringIO(), width=200)
    console.print(skills_table(nasty, Found([0, 0], [[0, 1]], {}), told(nasty, None)))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "[red][2J long xxx" in shown
    assert "[b] 50%" in shown
    assert "[/]" in shown
    assert "\x1b" not in shown
    assert "x" * 60 not in shown


REFUSED = [
    (["--skills", "40"], "--skills 40 of 12 samples"),
    (["--known", "kind"], "--known kind: expected it in every record"),
    (["--text-field", "body"], "no field 'body'"),
    (["--checkpoints", "400"], "--checkpoints 400 of --steps 300"),
    (["--model", "neox-tny"], "neox-tiny"),
    (["--model", "./nothing"], "there is no such folder"),
    (["--tokenizer", "bpe:x"], "expected a vocabulary size"),
    (["--field", "task"], "a field 'task' already: give another --field"),
    (["--out", "heap.jsonl/sorted.jsonl"], "it is the data, or in its folder"),
    (["--out", "notes.txt/sorted.jsonl"], "its folder cannot be made"),
    (["--out", "sorted.txt"], r"--out sorted\.txt: expected the name of a file ending in \.jsonl"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_is_refused_before_anything_is_trained(app, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(Training, "_run", None)
    monkeypatch.chdir(tmp_path)
    path = data(tmp_path / "heap.jsonl", records(12))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=message) as refusal:
        run(app, path, *([] if "--skills" in options else ["--skills", "3"]), *options)
    assert "\n" not in str(refusal.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["heap.jsonl", "notes.txt"]


def test_no_data(app, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    for path, message in ((tmp_path / "empty.jsonl", "the file is empty"), (tmp_path / "no", "no such file or folder")):
        with pytest.raises(ValueError, match=message):
            run(app, path, "--skills", 2, "--out", tmp_path / "sorted.jsonl")
    assert CliRunner().invoke(app, [str(tmp_path), "--skills", "1"]).exit_code == 2


def test_the_data_is_not_written_over(app, tmp_path):
    path = data(tmp_path / "heap.jsonl", records(3))
    for source in (path, tmp_path):
        with pytest.raises(ValueError, match="it is the data, or in its folder"):
            run(app, source, "--skills", 2, "--out", path)


def test_missing_libraries_are_said_first(app, tmp_path, monkeypatch):
    monkeypatch.setattr(Training, "_run", None)
    monkeypatch.setattr(clusters, "find_spec", lambda name: None if name == "sklearn" else find_spec(name))
    path = data(tmp_path / "heap.jsonl", records(6))
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'shoestring\[mixing\]'"):
        run(app, path, "--skills", 2, "--out", tmp_path / "sorted.jsonl")


def test_stopped_in_the_middle_it_goes_on(app, tmp_path, monkeypatch):
    """Stopped in the second of three trainings, after a checkpoint and past it."""
    path = data(tmp_path / "heap.jsonl", records(12))
    options = ["--skills", "2", "--runs", "3", "--steps", "6", "--checkpoints", "3", "--length", "17"]
    run(app, path, *options, "--out", tmp_path / "never" / "sorted.jsonl")
    seen, cluster = [], clusters.cluster
    monkeypatch.setattr(clusters, "cluster", lambda features, *rest: seen.append(features) or cluster(features, *rest))
    run(app, path, *options, "--out", tmp_path / "again" / "sorted.jsonl")
    monkeypatch.setattr(tools_sort_training, "_SAVED", 1)
    monkeypatch.setattr(tools_sort_training, "_SAVE_SECONDS", 0.0)
    whole, left = Trajectories.__call__, 5

    def stopped(taken: Trajectories, at: Run) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        whole(taken, at)

    monkeypatch.setattr(Trajectories, "__call__", stopped)
    out = tmp_path / "stopped" / "sorted.jsonl"
    arguments = [str(argument) for argument in (path, *options, "--out", out)]
    assert CliRunner().invoke(app, arguments).exit_code == 130
    assert not out.exists()
    run(app, path, *options, "--out", out)
    assert -left == 9 - 4, "four looks were kept, one was not"
    assert out.read_text() == (tmp_path / "never" / "sorted.jsonl").read_text()
    assert all(np.array_equal(one, other) for one, other in zip(seen[:4], seen[4:], strict=True))
    assert [file.name for file in out.parent.iterdir()] == ["sorted.jsonl"]


def test_the_trainings_of_another_command_are_left_alone(app, tmp_path):
    rows = [{"text": "the cat sat " * (place % 3 + 1)} for place in range(12)]
    path, out = data(tmp_path / "heap.jsonl", rows), tmp_path / "sorted.jsonl"
    other = tmp_path / "sorted.jsonl.trainings" / "other" / "kept"
    other.parent.mkdir(parents=True)
    other.write_text("paid for")
    for by in ("counts", "losses"):
        options = ["--skills", 2, "--by", by, "--steps", 2, "--checkpoints", 1, *QUICK]
        run(app, path, *options, "--out", out)
        assert [file.name for file in (tmp_path / "sorted.jsonl.trainings").iterdir()] == ["other"]
    assert other.read_text() == "paid for"


def test_stopped_or_diverged_leaves_what_stood_there(app, tmp_path, monkeypatch):
    path, out = data(tmp_path / "heap.jsonl", records(12)), tmp_path / "sorted.jsonl"
    out.write_text("before")
    options = ["--skills", "2", "--out", out, "--steps", "4", "--checkpoints", "2", *QUICK]
    with pytest.raises(ValueError, match=r"step \d: .* (is nan|is inf).*: lower the learning rate"):
        run(app, path, *options, "--learning-rate", "1e30")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_run", stop)
    assert CliRunner().invoke(app, [str(path), *map(str, options)]).exit_code == 130
    assert out.read_text() == "before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["heap.jsonl", "sorted.jsonl"]
