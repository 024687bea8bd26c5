"""A table ranked: on a small copy of the space, stopped and gone on with, and on the real table."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import pickle
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from shoestring.methods.search import tools_rank, tools_spaces
from shoestring.methods.search.cells201 import Cells201
from shoestring.methods.search.proxies import parameters
from shoestring.methods.search.ranks import kendall
from shoestring.methods.search.score import Score, score
from shoestring.methods.search.tools_kept import Kept
from shoestring.methods.search.tools_rank import Ranking

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data"
TABLE = Path(os.environ.get("SHOESTRING_DATA", SHARED)) / "search" / "nasbench201_dev12500.csv.gz"
SMALL = Cells201(channels=2, cells=1)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Two proxies on small networks: what is tested is the way, and the way is short."""
    monkeypatch.setattr(tools_spaces, "named", lambda _: SMALL)
    monkeypatch.setattr(tools_rank, "PROXIES", {"naswot": score, "parameters": parameters})


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    random = Random(0)
    texts = sorted({SMALL.encode(SMALL.draw(random)) for _ in range(9)})
    lines = [f"{text},{50 + place},{place / 2}" for place, text in enumerate(texts)]
    (tmp_path / "table.csv").write_text("\n".join(["arch_str,c10,c100", *lines]))
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8))
    return tmp_path / "table.csv", tmp_path / "images.npy"


def ranking(files: tuple[Path, Path], out: Path, **changes: object) -> Ranking:
    parts = {"space": "nas-bench-201", "columns": (), "rows": None, "count": 4, "side": 8, "seed": 0, "workers": 1}
    return Ranking(*files, **(parts | {"out": out} | changes))


def quiet(done: int, total: int) -> None:
    pass


def test_what_is_found_by_hand(files, tmp_path):
    seen: list[tuple[int, int]] = []
    found = ranking(files, tmp_path / "out").found(lambda done, total: seen.append((done, total)))
    texts = [line.split(",")[0] for line in files[0].read_text().splitlines()[1:]]
    assert seen == [(done, len(texts)) for done in range(len(texts) + 1)]
    assert set(found.scores) == {"naswot", "parameters"}
    assert found.truth["c10"] == {text: 50 + place for place, text in enumerate(texts)}
    assert found.truth["c100"][texts[3]] == 1.5
    for text in texts:
        model = SMALL.build(SMALL.decode(text), 0)
        assert found.scores["parameters"][text] == sum(weights.numel() for weights in model.parameters())
    assert found.refused == {}
    assert all(seconds > 0 for seconds in found.seconds.values())


def test_stopped_and_gone_on_with_equals_never_stopped(files, tmp_path):
    whole = ranking(files, tmp_path / "whole").found(quiet)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ranking(files, tmp_path / "out").found(stop)
    kept = tmp_path / "out" / "scores.jsonl"
    assert kept.read_text().count("architecture") == 4
    with kept.open("a") as file:
        file.write('{"architecture": "|none~0|+|no')
    seen: list[int] = []
    again = ranking(files, tmp_path / "out").found(lambda done, total: seen.append(done))
    assert seen[0] == 4
    assert again.scores == whole.scores
    assert again.truth == whole.truth
    before = kept.read_bytes()
    assert ranking(files, tmp_path / "out").found(quiet).scores == whole.scores
    assert kept.read_bytes() == before


def test_rows_are_drawn_by_seed_and_more_go_on(files, tmp_path):
    few = ranking(files, tmp_path / "out", rows=4, columns=("c100",)).found(quiet)
    assert list(few.truth) == ["c100"]
    assert len(few.truth["c100"]) == 4
    all_rows = ranking(files, tmp_path / "out").found(quiet)
    assert few.scores["naswot"].items() <= all_rows.scores["naswot"].items()
    other = ranking(files, tmp_path / "other", rows=4, seed=1).found(quiet)
    assert set(other.truth["c10"]) != set(few.truth["c100"])


def test_a_folder_that_holds_something_else_is_left_alone(files, tmp_path):
    """A report of another run, a file of the user's, what `find` kept: none is written over."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.json").write_text("precious")
    with pytest.raises(ValueError, match="run: holds files that are no search's: give another --out"):
        ranking(files, tmp_path / "run").found(quiet)
    assert [one.name for one in (tmp_path / "run").iterdir()] == ["report.json"]
    Kept(tmp_path / "find", {"tool": "find"})
    with pytest.raises(ValueError, match="find: begun with tool find, now rank: give another --out"):
        ranking(files, tmp_path / "find").found(quiet)
    with pytest.raises(ValueError, match=r"--out .*table.csv cannot be written \(File exists\): give another"):
        ranking(files, files[0]).found(quiet)


def test_images_that_do_not_fit_leave_no_folder(files, tmp_path):
    with pytest.raises(ValueError, match="cannot take a batch of images 4x3x1x1"):
        ranking(files, tmp_path / "out", side=1).found(quiet)
    assert not (tmp_path / "out").exists()


def test_a_table_that_orders_nothing_is_told_before_anything_is_scored(files, tmp_path):
    lines = files[0].read_text().splitlines()
    files[0].write_text("\n".join([lines[0], *(line.rsplit(",", 2)[0] + ",50,50" for line in lines[1:])]))
    with pytest.raises(ValueError, match="all rows are alike in c10, c100: there is nothing to order"):
        ranking(files, tmp_path / "out").found(quiet)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [{"seed": 1}, {"count": 5}, {"side": 6}])
def test_scores_of_other_images_or_weights_are_not_gone_on_with(files, tmp_path, change):
    ranking(files, tmp_path / "out", rows=3).found(quiet)
    with pytest.raises(ValueError, match=r"out: begun with (images|seed) \w+, now \w+: give another --out"):
        ranking(files, tmp_path / "out", rows=3, **change).found(quiet)


def test_singular_and_refused_networks_are_kept_as_what_they_are(files, tmp_path, monkeypatch):
    calls = iter([1.0, 2.0, 3.0, 1.0, -math.inf, None])

    def moody(model, inputs) -> Score:
        value = next(calls)
        if value is None:
            raise ValueError("not this one")
        return Score(value)

    def never(model, inputs) -> Score:
        raise ValueError("no networks for images")

    monkeypatch.setattr(tools_rank, "PROXIES", {"naswot": score, "moody": moody, "never": never})
    first = ranking(files, tmp_path / "out", rows=3).found(quiet)
    values = list(first.scores["moody"].values())
    assert values[:2] == [1.0, -math.inf]
    assert math.isnan(values[2])
    assert first.refused == {"never": "no networks for images"}
    assert set(first.seconds) == {"naswot", "moody"}
    lines = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()]
    assert [line["scores"]["moody"] for line in lines[1:]] == [1.0, "-inf", "refused"]
    again = ranking(files, tmp_path / "out", rows=3).found(quiet)
    assert str(again.scores) == str(first.scores)


def test_what_is_asked_of_other_processes_can_be_sent_to_them():
    text = SMALL.encode(SMALL.draw(Random(0)))
    build = partial(tools_rank._built, SMALL, 0, torch.device("cpu"), text)
    assert pickle.dumps((build, tools_rank.Willing(parameters)))
    batch = {"images": torch.zeros(2, 3, 8, 8)}
    assert tools_rank.Willing(parameters)(build(), batch) == parameters(build(), batch)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rows": 2}, "--rows 2: expected 3 up to the"),
        ({"rows": 99}, "--rows 99: expected 3 up to the"),
        ({"columns": ("c1000",)}, "has no column 'c1000'; did you mean 'c100'"),
        ({"count": 99}, "holds 9 images, 99 were asked for"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(files, tmp_path, changes, told):
    with pytest.raises(ValueError, match=told) as caught:
        ranking(files, tmp_path / "out", **changes).found(quiet)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_where_the_score_itself_takes_no_network_it_is_said(files, tmp_path, monkeypatch):
    def never(model, inputs) -> Score:
        raise ValueError("it has no activations")

    monkeypatch.setattr(tools_rank, "PROXIES", {"naswot": never, "parameters": parameters})
    with pytest.raises(ValueError, match="naswot takes none of the first 3 networks: it has no activations"):
        ranking(files, tmp_path / "out").found(quiet)


@pytest.mark.skipif(not TABLE.exists(), reason=f"{TABLE} is not there: set SHOESTRING_DATA")
def test_on_the_real_table(files, tmp_path, monkeypatch):
    """The parameter count orders real accuracies, and nothing is lost between file and scores."""
    monkeypatch.setattr(tools_rank, "PROXIES", {"naswot": parameters})
    found = ranking((TABLE, files[1]), tmp_path / "out", rows=300, columns=("c10_test_200ep",)).found(quiet)
    truth = found.truth["c10_test_200ep"]
    with gzip.open(TABLE, "rt", encoding="utf-8") as file:
        table = {row["arch_str"]: float(row["c10_test_200ep"]) for row in csv.DictReader(io.StringIO(file.read()))}
    assert truth == {text: table[text] for text in truth}
    assert list(truth) == list(found.scores["naswot"])
    assert kendall(list(found.scores["naswot"].values()), list(truth.values())) > 0.4
