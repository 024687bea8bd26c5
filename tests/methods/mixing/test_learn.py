"""Learning the graph: edges by hand, what seeds agree on, and trainings that are paid for once."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.learn import Plan, agreed, learn_graph
from shoestring.methods.mixing.weights import first_weights


class Programmed:
    """Losses from a table by mixture; notes what it is asked, and fails where it is told to."""

    def __init__(self, table: Mapping[str, tuple[float, ...]], names: str, fail_at: int = -1) -> None:
        self.table, self.names, self.fail_at = table, names, fail_at
        self.asked: list[tuple[str, int]] = []

    def __call__(self, shares: Mapping[str, float], seed: int) -> dict[str, float]:
        assert sum(shares.values()) == (1 if shares else 0)
        assert len(set(shares.values())) <= 1
        if len(self.asked) == self.fail_at:
            raise RuntimeError("the machine went down")
        key = "".join(sorted(shares))
        self.asked.append((key, seed))
        row = self.table[f"{key}{seed}"] if f"{key}{seed}" in self.table else self.table[key]
        return dict(zip(self.names, row, strict=True))


THREE = {
    "": (4.0, 4.0, 4.0),
    "a": (2.0, 3.0, 5.0),
    "b": (3.5, 3.0, 4.0),
    "c": (4.0, 3.9, 1.0),
    "ab": (1.5, 3.25, 9.0),
    "ac": (2.5, 9.0, 1.0),
    "bc": (9.0, 2.0, 0.5),
}

# by hand


def test_approximate_edges_are_how_far_each_training_lowers_each_loss() -> None:
    measure = Programmed(THREE, "abc")
    graph = learn_graph(measure, "abc", how="approximate", seeds=[7])
    assert graph.edges.flatten().tolist() == pytest.approx([2, 1, 0, 0.5, 1, 0, 0, 0.1, 3])
    assert measure.asked == [("", 7), ("a", 7), ("b", 7), ("c", 7)]
    assert graph.agreement is None
    assert graph.learned["trainings"] == 3


def test_signed_edges_stay_below_zero() -> None:
    graph = learn_graph(Programmed(THREE, "abc"), "abc", seeds=[0], signed=True)
    assert graph.edges[0].tolist() == [2.0, 1.0, -1.0]


def test_edges_relative_to_the_loss_before_and_constant_ones() -> None:
    relative = learn_graph(Programmed(THREE, "abc"), "abc", seeds=[0], value="relative")
    assert relative.edges[0].tolist() == [0.5, 0.25, 0.0]
    constant = learn_graph(Programmed(THREE, "abc"), "abc", seeds=[0], value="constant", signed=True)
    assert constant.edges.tolist() == [[1, 0.5, -0.5], [0.5, 1, 0.0], [0.0, 0.5, 1]]


def test_brute_force_edges_are_what_half_of_another_is_worth() -> None:
    """a -> b: b alone ends at 3, with a at 3.25, so no edge; b -> a: 2 - 1.5; b -> c: 1 - 0.5; c -> b: 3 - 2."""
    measure = Programmed(THREE, "abc")
    graph = learn_graph(measure, "abc", how="brute", seeds=[0])
    assert graph.edges.tolist() == [[1, 0, 0], [0.5, 1, 0.5], [0, 1, 1]]
    assert [key for key, _ in measure.asked] == ["", "a", "b", "c", "ab", "ac", "bc"]
    signed = learn_graph(Programmed(THREE, "abc"), "abc", how="brute", seeds=[0], signed=True)
    assert signed.edges[0, 1] == -0.25
    relative = learn_graph(Programmed(THREE, "abc"), "abc", how="brute", seeds=[0], value="relative")
    assert relative.edges[1].tolist() == [0.125, 1, 0.125]


def test_brute_force_towards_a_target_runs_only_what_is_read() -> None:
    plan = Plan(("a", "b", "c", "d"), ("b",), "brute")
    assert plan.mixtures() == [{}, {"b": 1.0}, {"a": 0.5, "b": 0.5}, {"b": 0.5, "c": 0.5}, {"b": 0.5, "d": 0.5}]
    measure = Programmed({"": (4.0,), "b": (3.0,), "ab": (2.0,), "bc": (3.5,), "bd": (2.9,)}, "b")
    graph = learn_graph(measure, "abcd", "b", how="brute", seeds=[0], value="constant")
    assert graph.edges.flatten().tolist() == [0.5, 1, 0, 0.5]


def test_other_skills_may_be_evaluated() -> None:
    graph = learn_graph(Programmed({"": (2.0,), "a": (1.0,), "b": (3.0,)}, "x"), "ab", "x", seeds=[0])
    assert graph.edges.tolist() == [[1.0], [0.0]]
    assert (graph.skills, graph.evaluated) == (("a", "b"), ("x",))


def test_an_edge_stays_where_all_seeds_agree_and_is_their_mean() -> None:
    table = {"": (2.0, 2.0), "a0": (1.0, 1.5), "a1": (0.0, 2.5), "b0": (2.0, 3.0), "b1": (2.0, 4.0)}
    graph = learn_graph(Programmed(table, "ab"), "ab", seeds=[0, 1])
    # a -> a: 1 and 2; a -> b: 0.5 and -0.5; b -> a: none in either; b -> b: -1 and -2, agreed upon and dropped
    assert graph.edges.tolist() == [[1.5, 0.0], [0.0, 0.0]]
    assert graph.agreement == pytest.approx(2 / 3)
    signed = learn_graph(Programmed(table, "ab"), "ab", seeds=[0, 1], signed=True)
    assert signed.edges.tolist() == [[1.5, 0.0], [0.0, -1.5]]
    assert graph.learned["seeds"] == [0, 1]


def test_where_nothing_is_seen_all_agree() -> None:
    assert agreed(torch.zeros(2, 3, 3))[1] == 1.0


# against a slow obvious one


@given(
    seeds=st.integers(1, 4), seed=st.integers(0, 10**6), signed=st.booleans(), steps=st.sampled_from([0.5, 1.0, 10.0])
)
def test_agreement_is_that_of_loops(seeds: int, seed: int, signed: bool, steps: float) -> None:
    edges = torch.randn(seeds, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    edges = (edges * steps).round() / steps  # with zeros among them
    found, share = agreed(edges, signed)
    kept = seen = 0
    for i in range(3):
        for j in range(4):
            values = edges[:, i, j].tolist()
            signs = {(value > 0) - (value < 0) for value in values}
            seen += signs != {0}
            kept += len(signs) == 1 and signs != {0}
            mean = sum(values) / seeds if len(signs) == 1 else 0.0
            assert found[i, j].item() == pytest.approx(mean if signed else max(mean, 0.0))
    assert share == pytest.approx(kept / seen if seen else 1)


# what is paid for is kept


def test_the_same_call_again_pays_nothing(tmp_path: Path) -> None:
    first = learn_graph(
        Programmed(THREE, "abc"), "abc", how="brute", seeds=[0, 1], folder=tmp_path / "kept", identity="x"
    )
    measure = Programmed({}, "abc")
    told: list[tuple[int, int]] = []
    again = learn_graph(
        measure,
        "abc",
        how="brute",
        seeds=[0, 1],
        folder=tmp_path / "kept",
        identity="x",
        progress=lambda *at: told.append(at),
    )
    assert torch.equal(again.edges, first.edges)
    assert measure.asked == []
    assert told == [(14, 14)]
    # other ways to read the same trainings, and more seeds, pay for what is new
    measure = Programmed(THREE, "abc")
    learn_graph(measure, "abc", seeds=[0, 2], value="relative", folder=tmp_path / "kept", identity="x")
    assert measure.asked == [("", 2), ("a", 2), ("b", 2), ("c", 2)]


def test_interrupted_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    whole = learn_graph(Programmed(THREE, "abc"), "abc", how="brute", seeds=[0, 1])
    broken = Programmed(THREE, "abc", fail_at=9)
    with pytest.raises(RuntimeError, match="went down"):
        learn_graph(broken, "abc", how="brute", seeds=[0, 1], folder=tmp_path, identity="x")
    rest = Programmed(THREE, "abc")
    told: list[tuple[int, int]] = []
    graph = learn_graph(
        rest, "abc", how="brute", seeds=[0, 1], folder=tmp_path, identity="x", progress=lambda *at: told.append(at)
    )
    assert torch.equal(graph.edges, whole.edges)
    assert broken.asked + rest.asked == [(key, seed) for seed in (0, 1) for key in THREE]
    assert told == [(9, 14), (10, 14), (11, 14), (12, 14), (13, 14), (14, 14)]


def test_a_folder_of_other_trainings_is_refused(tmp_path: Path) -> None:
    learn_graph(Programmed(THREE, "abc"), "abc", seeds=[0], folder=tmp_path, identity="100 steps", data="x")
    for identity, data in (("200 steps", "x"), ("100 steps", "y")):
        measure = Programmed(THREE, "abc")
        with pytest.raises(ValueError, match=r"holds trainings of .*100 steps.*: another folder"):
            learn_graph(measure, "abc", seeds=[0], folder=tmp_path, identity=identity, data=data)
        assert measure.asked == []
    (tmp_path / "of.json").unlink()
    with pytest.raises(ValueError, match=r"holds trainings, but no of\.json that says of what: give another folder"):
        learn_graph(measure, "abc", seeds=[0], folder=tmp_path, identity="100 steps", data="x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"shares": {"a": 1.0}, "se', "torn .*: delete it, and this training is done again"),
        ("", "torn"),
        ("[1]", "holds no losses by skill: delete it"),
        ('{"losses": {"a": "low", "b": 1, "c": 1}}', "holds no losses by skill"),
        ('{"losses": {"a": NaN, "b": 1, "c": 1}}', "gave a loss of nan on 'a'"),
    ],
)
def test_a_torn_or_foreign_file_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    learn_graph(Programmed(THREE, "abc"), "abc", seeds=[0], folder=tmp_path, identity="x")
    path = next(path for path in tmp_path.glob("*-seed0.json") if json.loads(path.read_text())["shares"] == {"a": 1})
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        learn_graph(Programmed({}, "abc"), "abc", seeds=[0], folder=tmp_path, identity="x")
    assert path.name in str(caught.value) or "training on a, seed 0" in str(caught.value)
    path.unlink()
    measure = Programmed(THREE, "abc")
    learn_graph(measure, "abc", seeds=[0], folder=tmp_path, identity="x")
    assert measure.asked == [("a", 0)]


def test_a_torn_mark_of_the_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "of.json").write_text('{"identity')
    with pytest.raises(ValueError, match=r"of\.json: torn"):
        learn_graph(Programmed(THREE, "abc"), "abc", seeds=[0], folder=tmp_path, identity="x")


def test_what_lacks_a_skill_is_measured_again(tmp_path: Path) -> None:
    learn_graph(Programmed(THREE, "abc"), "abc", "ab", seeds=[0], folder=tmp_path, identity="x")
    measure = Programmed(THREE, "abc")
    graph = learn_graph(measure, "abc", "c", seeds=[0], folder=tmp_path, identity="x")
    assert len(measure.asked) == 4
    assert graph.edges.flatten().tolist() == [0, 0, 3]
    for evaluated in ("ab", "c", "abc", "ba"):  # both are kept
        measure = Programmed(THREE, "abc")
        learn_graph(measure, "abc", evaluated, seeds=[0], folder=tmp_path, identity="x")
        assert measure.asked == []


# side by side


def test_two_processes_find_the_same(tmp_path: Path) -> None:
    def measure(shares: Mapping[str, float], seed: int) -> dict[str, float]:
        if not math.isfinite(seed):
            raise RuntimeError
        return {name: 2.0 - shares.get(name, 0.0) - 0.1 * len(shares) + 0.01 * seed for name in "ab"}

    alone = learn_graph(measure, "ab", how="brute", seeds=[0, 1])
    together = learn_graph(measure, "ab", how="brute", seeds=[0, 1], workers=2, folder=tmp_path, identity="x")
    assert torch.equal(alone.edges, together.edges)
    assert alone.agreement == together.agreement
    assert len(list(tmp_path.glob("*-seed*.json"))) == 8

    def diverges(shares: Mapping[str, float], seed: int) -> dict[str, float]:
        return dict.fromkeys("ab", math.nan if shares and seed == 2 else 1.0)

    with pytest.raises(ValueError, match="not finite"):
        learn_graph(diverges, "ab", seeds=[2, 3, 4, 5], workers=2)

    def fails(shares: Mapping[str, float], seed: int) -> dict[str, float]:
        time.sleep(0.1)
        if not shares:
            raise OSError("no such base")
        return dict.fromkeys("ab", 1.0)

    with pytest.raises(OSError, match="no such base") as caught:
        learn_graph(fails, "ab", seeds=range(9), workers=2, folder=tmp_path / "fails", identity="x")
    assert "in fails" in caught.value.__notes__[0]
    kept = len(list((tmp_path / "fails").glob("*-seed*.json")))
    assert 1 <= kept < 18


# alone


def test_alone_with_a_bare_training_loop() -> None:
    """Two weights of which one skill needs the first, the other both: the second helps the first, not the reverse."""
    needs = {"first": torch.tensor([1.0, 0.0]), "both": torch.tensor([1.0, 1.0])}

    def measure(shares: Mapping[str, float], seed: int) -> dict[str, float]:
        model = nn.Parameter(torch.full((2,), -0.01 * seed))
        optimizer = torch.optim.SGD([model], lr=0.1)
        for _ in range(20 if shares else 0):
            optimizer.zero_grad()
            sum(share * (1 - needs[name] @ model) ** 2 for name, share in shares.items()).backward()  # type: ignore[union-attr]
            optimizer.step()
        return {name: ((1 - need @ model) ** 2).item() for name, need in needs.items()}

    graph = learn_graph(measure, list(needs))
    assert isinstance(graph, Graph)
    assert graph.agreement == 1
    assert (graph.edges > 0).all()
    assert graph.edges[1, 0] > 0.5
    assert first_weights(graph.edges, 1.0).sum().item() == pytest.approx(1)


# what is refused


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ({"a": 1.0}, "the training on nothing, seed 3 gave no loss of 'b': expected one of each evaluated skill"),
        ({"a": 1.0, "b": math.nan}, "the training on nothing, seed 3 gave a loss of nan on 'b': not finite"),
        ({"a": math.inf, "b": 1.0}, "gave a loss of inf on 'a'"),
    ],
)
def test_losses_that_are_missing_or_not_finite_are_refused(tmp_path: Path, losses: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        learn_graph(lambda shares, seed: losses, "ab", seeds=[3], folder=tmp_path, identity="x")
    assert list(tmp_path.glob("*-seed*.json")) == []


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"seeds": []}, r"seeds are \[\]: expected one or more"),
        ({"seeds": [1, 1]}, r"seeds are \[1, 1\]"),
        ({"value": "much"}, "value is 'much': expected 'gain', 'relative' or 'constant'"),
        ({"how": "fast"}, "how is 'fast': expected 'brute' or 'approximate'"),
        ({"how": "brute", "evaluated": "bx"}, "brute force .* x cannot be trained on: use how='approximate'"),
        ({"workers": 0}, "workers is 0"),
        ({"skills": "aba"}, "skills are a, b, a: expected one or more, each once"),
        ({"skills": ""}, "skills are none"),
        ({"evaluated": "aa"}, "evaluated skills are a, a"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_anything_is_paid(keywords: dict[str, Any], said: str) -> None:
    measure = Programmed(THREE, "abc")
    with pytest.raises(ValueError, match=said):
        learn_graph(measure, **({"skills": "abc"} | keywords))
    assert measure.asked == []


def test_without_joblib_the_line_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'shoestring\[mixing\]', or say workers=1"):
        learn_graph(Programmed(THREE, "abc"), "abc", workers=2)


@settings(max_examples=20)
@given(stop=st.integers(0, 8), how=st.sampled_from(["approximate", "brute"]))
def test_wherever_it_stops_it_goes_on(tmp_path_factory: pytest.TempPathFactory, stop: int, how: Any) -> None:
    folder = tmp_path_factory.mktemp("kept")
    broken = Programmed(THREE, "abc", fail_at=stop)
    jobs = 2 * len(Plan(tuple("abc"), tuple("abc"), how).mixtures())
    if stop < jobs:
        with pytest.raises(RuntimeError):
            learn_graph(broken, "abc", how=how, seeds=[0, 1], folder=folder, identity="x")
    rest = Programmed(THREE, "abc")
    graph = learn_graph(rest, "abc", how=how, seeds=[0, 1], folder=folder, identity="x")
    assert len(broken.asked) + len(rest.asked) == jobs
    assert torch.equal(graph.edges, learn_graph(Programmed(THREE, "abc"), "abc", how=how, seeds=[0, 1]).edges)


def test_what_a_folder_keeps_is_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"say with identity=\.\.\. what its trainings are of"):
        learn_graph(Programmed({}, "ab"), "ab", seeds=[0], folder=tmp_path)
    assert not list(tmp_path.iterdir())
