"""The report of the experiment over decoders, from made-up trainings, so that each figure can be read off."""

from __future__ import annotations

import math

import pytest

from shoestring.cost import Cost
from shoestring.methods.search.recipe_decoders_candidate import Candidate, Said
from shoestring.methods.search.recipe_decoders_report import FIXED, FREE, report
from shoestring.methods.search.recipe_decoders_train import Training

PROXIES = ("naswot", "parameters")
SEEDS = (0, 1)


def candidate(place: int, size: int, naswot: float, flops: float = 100.0) -> Candidate:
    """The test loss falls by 0.1 with each place, and is 0.2 higher from seed 1."""
    trainings = {}
    for seed in SEEDS:
        test = 5.0 - 0.1 * place + 0.2 * seed
        points = [
            {"step": step, "cost": Cost(flops=flops * step / 2, seconds=1).as_dict(), "test": test + 2 - step}
            for step in (1, 2)
        ]
        ledger = {"train": Cost(flops=flops, seconds=1).as_dict()}
        trainings[0.01, seed] = Training(points, test, ledger)
    said = {"naswot": Said(naswot, Cost(flops=1, seconds=2)), "parameters": Said(float(size), Cost(seconds=0.1))}
    return Candidate(f"layers={place}", size, said, trainings)


def grown(scores: list[float], sizes: list[int] | None = None) -> list[Candidate]:
    sizes = sizes or list(range(10, 10 + len(scores)))
    return [candidate(place, size, score) for place, (size, score) in enumerate(zip(sizes, scores, strict=True))]


def told(free: list[Candidate], fixed: list[Candidate]):
    return report("decoders", PROXIES, {FREE: free, FIXED: fixed}, {"text": "python"})


TWELVE = [float(place) for place in range(12)]


def test_rows_by_hand():
    found = told(grown(TWELVE[::-1]), grown([1.0] * 12))
    assert (found.metric, found.lower_is_better, found.facts) == ("test loss", True, {"text": "python"})
    assert found.groups() == ["free size", "fixed size"]
    labels = [(row.label, row.twin) for row in found.rows if row.group == FREE]
    assert labels == [("naswot", False), ("parameters", True), ("random", True), ("train all", True)]
    worst, size, chance, oracle = (row for row in found.rows if row.group == FREE)
    assert worst.scores["test loss"].mean == pytest.approx(5.1)
    assert worst.scores["test loss"].sd == pytest.approx(0.2 / math.sqrt(2))
    assert worst.scores["regret"].mean == pytest.approx(1.1)
    assert worst.scores["regret"].sd == pytest.approx(0)
    assert (worst.scores["τ"].mean, size.scores["τ"].mean) == (-1, 1)
    assert size.scores["regret"].mean == pytest.approx(0)
    assert chance.scores["test loss"].mean == pytest.approx(5.1 - 0.55)
    assert oracle.scores["regret"].mean == pytest.approx(0)
    assert chance.scores.keys() == oracle.scores.keys() == {"test loss", "regret"}


def test_costs_are_scoring_the_group_and_training_one():
    naswot, size, chance, oracle = told(grown(TWELVE), grown(TWELVE)).rows[:4]
    assert (naswot.cost.flops, naswot.cost.seconds) == (12 + 100, 24 + 1)
    assert size.cost.flops == 100
    assert size.cost.seconds == pytest.approx(1.2 + 1)
    assert (chance.cost.flops, oracle.cost.flops) == (100, 1200)


def test_equal_scores_are_taken_as_their_mean():
    scores = [-math.inf] * 9 + [3.0, 1.0, 3.0]
    row = told(grown(scores), grown(TWELVE)).row("naswot, free size")
    assert row.scores["test loss"].mean == pytest.approx(5.1 - 0.1 * (9 + 11) / 2)


def test_the_curve_starts_with_what_scoring_took():
    found = told(grown(TWELVE), grown(TWELVE))
    path = found.measured("naswot, free size")[1]
    assert [(point.step, point.flops) for point in path] == [(1, 12 + 50), (2, 12 + 100)]
    assert path[-1].scores["test loss"] == pytest.approx(5.0 - 1.1 + 0.2)
    assert [point.flops for point in found.measured("random, free size")[0]] == [50, 100]
    assert not found.measured("train all, free size")
    assert {(pair.method, pair.twin) for pair in found.pairs} == {
        (f"naswot, {group}", f"{twin}, {group}") for group in (FREE, FIXED) for twin in ("parameters", "random")
    }


def test_negative_results_are_said_plainly():
    shuffled = [5.0, 8.0, 1.0, 10.0, 3.0, 6.0, 11.0, 0.0, 9.0, 2.0, 7.0, 4.0]
    notes = told(grown(TWELVE[::-1]), grown(shuffled, [7] * 12)).notes
    assert "free size: τ lies above zero with its whole interval for parameters." in notes
    assert "free size: τ lies below zero with its whole interval for naswot." in notes
    said = (
        "free size: τ is above that of the parameter count, beyond the interval, for no proxy; naswot less parameters"
    )
    assert f"{said} is -2.00 [-2.00, -2.00], paired over architectures." in notes
    assert "fixed size: parameters orders nothing, so it has no τ." in notes
    assert "fixed size: τ lies above zero with its whole interval for no proxy." in notes


def test_a_proxy_that_beats_size_is_said_to():
    backwards = list(range(30, 18, -1))
    notes = told(grown(TWELVE, backwards), grown(TWELVE)).notes
    said = "free size: τ is above that of the parameter count, beyond the interval, for naswot (+2.00 [+2.00, +2.00]);"
    assert any(note.startswith(said) for note in notes)


def test_few_architectures_prove_nothing_and_minus_infinity_is_counted():
    notes = told(grown([-math.inf, 1.0, 2.0]), grown([1.0, 2.0, 3.0])).notes
    assert "free size: 3 architectures are too few to tell proxies apart." in notes
    assert any(note.startswith("free size: naswot scores 1 of 3 architectures -inf") for note in notes)
    assert not any("interval for" in note or "beyond the interval" in note for note in notes)


def test_a_panel_a_proxy_of_both_groups():
    found = told(grown([-math.inf, *TWELVE[1:]]), grown(TWELVE[::-1]))
    assert [panel.title for panel in found.scatters] == [
        "naswot: τ free 1.00, fixed -1.00",
        "parameters: τ free 1.00, fixed 1.00",
    ]
    assert {panel.y for panel in found.scatters} == {"test loss"}
    assert found.scatters[1].points[0] == ("free size", 10.0, pytest.approx(5.1))
    assert len(found.scatters[0].points) == 23
    assert "1 score -inf" in found.scatters[0].says


def test_counts_are_shown_in_millions():
    sizes = [100_000 * place for place in range(1, 13)]
    panel = told(grown(TWELVE, sizes), grown(TWELVE, sizes)).scatters[1]
    assert panel.x == "parameters, millions"
    assert [value for _, value, _ in panel.points[:2]] == [0.1, 0.2]
