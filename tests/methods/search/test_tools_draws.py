"""Drawing, scoring and keeping: what is ranked, what is done twice, and what a kill loses."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer

from shoestring.methods.search import tools_draws
from shoestring.methods.search.inputs import Inputs
from shoestring.methods.search.parallel import scores
from shoestring.methods.search.proxies import PROXIES
from shoestring.methods.search.score import Score
from shoestring.methods.search.tools_draws import Wanted, best, write

Make = Callable[..., Wanted]


@pytest.fixture
def wanted(tmp_path: Path) -> Make:
    """A small search over text: wanted(draws=4, **changes)."""
    text = tmp_path / "text" / "train.txt"
    text.parent.mkdir()
    text.write_text("\n\n".join(f"{n} times {n} is {n * n}, and {n} and {n} are {n + n}." for n in range(300)))
    for other in ("dev", "test"):
        text.with_name(f"{other}.txt").write_text("\n\n".join(f"{n} and {n} are {n + n}." for n in range(300, 400)))

    def make(draws: int = 4, **changes: Any) -> Wanted:
        plain: dict[str, Any] = {
            "space": "decoder",
            "max_parameters": 60_000,
            "max_seconds": None,
            "data": str(text.parent),
            "tokenizer": "bytes",
            "length": 16,
            "images": None,
            "proxy": None,
            "seed": 0,
            "workers": 1,
            "out": tmp_path / "out",
        }
        return Wanted(**{**plain, "draws": draws, **changes})

    return make


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Only two proxies, which take no time; the list holds the parameters of each network that one was asked for."""
    asked: list[int] = []

    def plain(model: nn.Module, inputs: Inputs) -> Score:
        found = PROXIES["decoder_parameters"](model, inputs)
        asked.append(round(found.value))
        return found

    def refusing(model: nn.Module, inputs: Inputs) -> Score:
        raise ValueError("not of these")

    monkeypatch.setattr(tools_draws, "PROXIES", {"decoder_parameters": plain, "odd": refusing})
    return asked


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]


def test_every_proxy_scores_every_draw_and_the_best_is_written(wanted: Make) -> None:
    """All that the room has, once, for real."""
    asked = wanted(draws=3)
    told: list[str] = []
    found = best(asked, told.append)
    assert told == []
    assert len(found.ranked) == 3
    assert all(row.keys() == PROXIES.keys() for row in found.ranked.values())
    assert found.proxy == "decoder_parameters"
    values = [row["decoder_parameters"].value for row in found.ranked.values()]
    assert values == sorted(values, reverse=True)
    assert all(row["parameters"].value <= 60_000 for row in found.ranked.values())
    write(asked, found)
    config = AutoConfig.from_pretrained(asked.out)
    shape = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
    assert "layers={},width={},heads={},inner={}".format(*shape) == next(iter(found.ranked))
    assert len(AutoTokenizer.from_pretrained(asked.out)) == config.vocab_size == 257


def test_the_same_call_again_scores_nothing_and_more_draws_go_on(wanted: Make, few: list[int]) -> None:
    first = best(wanted(draws=4), [].append)
    assert len(few) == 5  # one more is asked, whether it takes such networks
    again = best(wanted(draws=4), [].append)
    assert (str(again.ranked), len(few)) == (str(first.ranked), 6)
    more = best(wanted(draws=6), [].append)
    assert len(few) == 9
    assert first.ranked.keys() < more.ranked.keys()
    assert len(lines(wanted().out)) == 6
    fresh = best(wanted(draws=6, out=wanted().out.with_name("fresh")), [].append)
    assert list(fresh.ranked) == list(more.ranked)


def test_what_was_scored_before_a_kill_is_not_scored_again(
    wanted: Make, few: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tools_draws.PROXIES["decoder_parameters"]

    def stopping(model: nn.Module, inputs: Inputs) -> Score:
        if len(few) == 4:
            raise KeyboardInterrupt
        return plain(model, inputs)

    with monkeypatch.context() as patch:
        patch.setattr(tools_draws, "PROXIES", {"decoder_parameters": stopping})
        with pytest.raises(KeyboardInterrupt):
            best(wanted(draws=6), [].append)
    assert len(lines(wanted().out)) == 3
    found = best(wanted(draws=6), [].append)
    assert len(few) == 4 + 1 + 3
    assert list(found.ranked) == list(best(wanted(draws=6, out=wanted().out.with_name("b")), [].append).ranked)


def test_a_proxy_that_takes_no_such_network_is_left_out_and_said(wanted: Make, few: list[int]) -> None:
    told: list[str] = []
    found = best(wanted(draws=2), told.append)
    assert told == ["left out: odd: not of these"]
    assert all(row.keys() == {"decoder_parameters"} for row in found.ranked.values())
    with pytest.raises(ValueError, match="--proxy odd cannot rank these: not of these"):
        best(wanted(draws=2, proxy="odd"), told.append)


def test_what_has_no_value_is_last(wanted: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([1.0, 1.0, math.nan, -math.inf, 2.0])  # the first is the trial
    monkeypatch.setattr(tools_draws, "PROXIES", {"p": lambda model, inputs: Score(next(values))})
    found = best(wanted(draws=4, proxy="p"), [].append)
    assert [row["p"].value for row in found.ranked.values()][:2] == [2.0, 1.0]


def test_where_nothing_has_a_value_nothing_is_chosen(wanted: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools_draws, "PROXIES", {"p": lambda model, inputs: Score(-math.inf)})
    with pytest.raises(ValueError, match="p gives -inf for the best drawn: give another --proxy, or more --draws"):
        best(wanted(draws=2, proxy="p"), [].append)


def test_a_text_that_could_not_be_trained_on_is_told(wanted: Make) -> None:
    told: list[str] = []
    data = wanted().data
    best(wanted(data=f"{data}/train.txt"), told.append)
    assert any("cannot be trained on this text alone" in one and "train.txt: no dev text" in one for one in told)


def test_fewer_draws_than_are_scored_are_told(wanted: Make) -> None:
    best(wanted(draws=4), [].append)
    told: list[str] = []
    assert len(best(wanted(draws=2), told.append).ranked) == 2
    assert any("4 are scored in" in one and "the best of the first 2 drawn is written" in one for one in told)


def test_a_small_space_is_drawn_whole_and_said(wanted: Make, few: list[int]) -> None:
    told: list[str] = []
    found = best(wanted(draws=9, max_parameters=23_000), told.append)
    assert len(found.ranked) == 2
    assert told[0] == "2 architectures are all that can be drawn, of 9 that were asked for"


def test_latencies_are_kept_and_bound_the_draws(wanted: Make, few: list[int]) -> None:
    found = best(wanted(draws=3, max_seconds=30.0), [].append)
    kept = {line["architecture"]: line["seconds"] for line in lines(wanted().out) if "seconds" in line}
    assert kept.keys() == found.ranked.keys()
    assert all(0 < seconds < 30 for seconds in kept.values())
    limit = sorted(kept.values())[1]
    path = wanted().out / "scores.jsonl"
    before = path.read_text()
    held = best(wanted(draws=2, max_seconds=limit), [].append)
    kept |= {line["architecture"]: line["seconds"] for line in lines(wanted().out) if "seconds" in line}
    assert all(kept[text] <= limit for text in held.ranked)
    assert path.read_text().startswith(before)


def test_jobs_can_be_sent_to_other_processes(wanted: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones: what is sent is how to build a network, not the network."""
    alone = best(wanted(draws=2), [].append)
    asked: list[int] = []

    def sent(jobs: Any, found: Any, inputs: Any, workers: int) -> Iterator[tuple[str, dict[str, Score]]]:
        asked.append(workers)
        for job in jobs:
            packed = pickle.dumps((job, found))
            assert len(packed) < 3000
            (key, build), there = pickle.loads(packed)  # noqa: S301  # just packed here
            yield from scores([(key, build)], there, inputs, 1)

    monkeypatch.setattr(tools_draws, "scores", sent)
    beside = best(wanted(draws=2, workers=2, out=wanted().out.with_name("two")), [].append)
    assert asked == [2]
    assert str(beside.ranked) == str(alone.ranked)


def test_networks_for_images(wanted: Make, few: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest of networks in the place of cells, which are slow to score."""

    class Line(nn.Sequential):
        def forward(self, images: torch.Tensor) -> Any:
            return super().forward(images)

    class Lines:
        name = "nas-bench-201"

        def draw(self, random: Any) -> int:
            return int(random.randrange(1, 50))

        def encode(self, architecture: int) -> str:
            return f"wide {architecture}"

        def build(self, architecture: int, seed: int) -> nn.Module:
            return Line(nn.Flatten(), nn.Linear(3072, architecture))

    monkeypatch.setattr(tools_draws.tools_spaces, "named", lambda name: Lines())
    monkeypatch.setattr(tools_draws, "PROXIES", {"span": PROXIES["parameters"]})
    rows = np.random.default_rng(0).integers(0, 256, (130, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=rows)
    asked = wanted(draws=5, space="nas-bench-201", max_parameters=None, images=tmp_path / "images.npz")
    found = best(asked, [].append)
    assert found.proxy == "span"
    write(asked, found)
    written = (asked.out / "architecture.txt").read_text()
    assert written == f"{next(iter(found.ranked))}\n"
    assert not (asked.out / "config.json").exists()
    assert max(int(text.split()[1]) for text in found.ranked) == int(written.split()[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "--space decoder without text: give --data"),
        ({"data": "/nowhere"}, "/nowhere: no such file or folder"),
        ({"space": "sizes"}, "--max-params with --space sizes: expected --space decoder"),
        ({"space": "sizes", "max_parameters": None}, "--space sizes without images: give --images"),
        ({"proxy": "paramters"}, "--proxy 'paramters'; did you mean 'parameters'"),
        ({"max_parameters": 9}, "no decoder has at most 9 parameters"),
        ({"tokenizer": "bpe:x"}, "tokenizer 'bpe:x': expected a vocabulary size"),
        ({"length": 4096}, "too little text for 16 windows of 4096 tokens"),
        ({"max_seconds": 1e-9, "max_parameters": 23_000}, "200 architectures in a row took more than 1e-06 ms"),
    ],
)
def test_what_cannot_be_is_refused_on_one_line(wanted: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        best(wanted(**changes), [].append)
    assert "\n" not in str(refused.value)


def test_an_empty_text_is_refused(wanted: Make, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match="the file is empty"):
        best(wanted(data=str(tmp_path / "empty.txt")), [].append)


def test_another_text_in_the_same_folder_is_refused(wanted: Make, few: list[int], tmp_path: Path) -> None:
    best(wanted(draws=2), [].append)
    with pytest.raises(ValueError, match="begun with seed 0, now 1: give another --out"):
        best(wanted(draws=2, seed=1), [].append)
    other = tmp_path / "other.txt"
    other.write_text("\n\n".join(f"the number {n} comes before {n + 1}" for n in range(500)))
    with pytest.raises(ValueError, match=r"begun with inputs .*: give another --out"):
        best(wanted(draws=2, data=str(other)), [].append)


def test_the_generators_are_left(wanted: Make, few: list[int]) -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    best(wanted(draws=2), [].append)
    assert torch.equal(before, torch.get_rng_state())
