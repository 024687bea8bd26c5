"""Optuna as the driver: queue, floor, and going on after anything."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import optuna
import pytest
from optuna.trial import TrialState

from shoestring.methods.search.cells201 import Cell, Cells201
from shoestring.methods.search.decoders import Decoder, Decoders
from shoestring.methods.search.drive import Floor, enqueue_best, optimise
from shoestring.methods.search.evolve import Scored
from shoestring.methods.search.history import Trained, best
from shoestring.methods.search.study import pruned, study, visits

SPACE = Cells201()


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def score(cell: Cell) -> float:
    return float(cell.count("nor_conv_3x3")) if "none" not in cell[:2] else -math.inf


def train(cell: Cell) -> Trained:
    return Trained(80.0 + 2 * cell.count("nor_conv_3x3") - cell.count("none"), 0.1, 90.0)


def cells(found: optuna.Study) -> list[Cell]:
    return [visit.architecture for visit in visits(found, SPACE)]


# by hand


def test_the_best_scored_are_trained_first(tmp_path: Path) -> None:
    found = study(tmp_path / "a.journal", "one", SPACE, 0)
    scored = enqueue_best(found, SPACE, score, Random(0), drawn=12, keep=4)
    assert len(scored) == 12
    order = [entry.architecture for entry in sorted(scored, key=lambda one: one.score, reverse=True)]
    assert enqueue_best(found, SPACE, score, Random(0), drawn=12, keep=4) == scored
    new = list(optimise(found, SPACE, train, 6))
    assert [visit.architecture for visit in new][:4] == order[:4]
    assert len(found.trials) == 6
    assert new == visits(found, SPACE)
    assert [round(visit.spent, 9) for visit in new] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert found.best_value == best(new).accuracy
    assert enqueue_best(found, SPACE, score, Random(0), drawn=12, keep=4) == scored
    assert list(optimise(found, SPACE, train, 6)) == []


def test_the_floor_is_a_quantile_of_the_drawn() -> None:
    scored = [Scored("x", value) for value in (3.0, -math.inf, 1.0, 2.0)]
    assert [Floor.of(float, scored, part).least for part in (0, 0.25, 0.5, 0.99)] == [-math.inf, 1.0, 2.0, 3.0]


def test_below_the_floor_nothing_is_trained_and_it_is_said(tmp_path: Path) -> None:
    found, trained = study(tmp_path / "a.journal", "one", SPACE, 0), []

    def counted(cell: Cell) -> Trained:
        trained.append(cell)
        return train(cell)

    floor = Floor(score, 2.0)
    assert len(list(optimise(found, SPACE, counted, 5, floor))) == 5
    assert all(score(cell) >= 2 for cell in trained)
    left = pruned(found)
    assert left
    assert all(score(SPACE.decode(text)) < 2 for text, _ in left)
    assert {reason.partition(", ")[2] for _, reason in left} == {"below the floor of 2"}
    assert {trial.state for trial in found.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert all("score" in trial.user_attrs for trial in found.trials)


def test_what_was_trained_before_costs_nothing_and_is_not_counted(tmp_path: Path) -> None:
    found = study(tmp_path / "a.journal", "one", SPACE, 0)
    first = next(iter(optimise(found, SPACE, train, 1)))
    found.enqueue_trial(found.trials[0].params)
    assert len(list(optimise(found, SPACE, train, 2))) == 1
    assert found.trials[1].user_attrs["same as"] == 0
    assert found.trials[1].value == first.accuracy
    assert len(set(cells(found))) == len(found.trials) - 1 == 2


def test_decoders_are_searched_within_their_budget(tmp_path: Path) -> None:
    space = Decoders(256, 64, max_parameters=200_000)
    found = study(tmp_path / "a.journal", "one", space, 0)

    def seen(decoder: Decoder) -> Trained:
        return Trained(-abs(decoder.layers - 3) - abs(math.log2(decoder.width / 64)), 1.0)

    new = list(optimise(found, space, seen, 12))
    assert len({visit.architecture for visit in new}) == 12
    assert all(space.parameters(visit.architecture) <= 200_000 for visit in new)


# stopped


@pytest.mark.parametrize(("stop", "when"), [(RuntimeError, 2), (KeyboardInterrupt, 12)])
def test_stopped_and_gone_on_is_never_stopped(tmp_path: Path, stop: type[BaseException], when: int) -> None:
    whole = study(tmp_path / "a.journal", "one", SPACE, 3)
    expected = list(optimise(whole, SPACE, train, 15))
    found, paid = study(tmp_path / "b.journal", "one", SPACE, 3), []

    def breaking(cell: Cell) -> Trained:
        if len(paid) == when:
            paid.append(None)
            raise stop
        paid.append(cell)
        return train(cell)

    with pytest.raises(stop):
        list(optimise(found, SPACE, breaking, 15))
    assert len(visits(found, SPACE)) == when
    again = study(tmp_path / "b.journal", "one", SPACE, 3)
    list(optimise(again, SPACE, breaking, 15))
    assert visits(again, SPACE) == expected
    assert len(paid) == 16
    assert [trial.state for trial in again.trials].count(TrialState.FAIL) == 1


SCRIPT = """
import os, signal, sys
from random import Random
from shoestring.methods.search.cells201 import Cells201
from shoestring.methods.search.drive import enqueue_best, optimise
from shoestring.methods.search.history import Trained
from shoestring.methods.search.study import study
count = 0
def train(cell):
    global count
    count += 1
    if count == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return Trained(80.0 + 2 * cell.count("nor_conv_3x3") - cell.count("none"), 0.1, 90.0)
found = study(sys.argv[1], "one", Cells201(), 3)
list(optimise(found, Cells201(), train, 8))
"""


@pytest.mark.parametrize("name", ["a.db", "a.journal"])
def test_killed_and_gone_on_is_never_stopped(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    ended = subprocess.run([sys.executable, "-c", SCRIPT, str(file)], check=False, timeout=120, env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    found = study(file, "one", SPACE, 3)
    assert [trial.state for trial in found.trials] == [TrialState.COMPLETE] * 3 + [TrialState.RUNNING]
    killed = found.trials[3].params
    assert len(list(optimise(found, SPACE, train, 8))) == 5
    assert found.trials[3].state == TrialState.FAIL
    assert found.trials[4].params == killed
    whole = study(tmp_path / "b.journal", "one", SPACE, 3)
    assert visits(found, SPACE) == list(optimise(whole, SPACE, train, 8))


# bad input


def test_a_study_that_finds_nothing_to_train_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoestring.methods.search.drive._FRUITLESS", 5)
    found = study(tmp_path / "a.journal", "one", SPACE, 0)
    with pytest.raises(ValueError, match="5 trials in a row were pruned or trained before: lower the floor"):
        list(optimise(found, SPACE, train, 2, Floor(score, math.inf)))
    assert len(found.trials) == 5


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="its score is nan: expected a number"):
        Floor(lambda _: math.nan, -math.inf)(optuna.create_study().ask(), ("none",) * 6)


def test_an_accuracy_that_is_no_number_is_refused(tmp_path: Path) -> None:
    found = study(tmp_path / "a.journal", "one", SPACE, 0)
    with pytest.raises(ValueError, match="its accuracy is nan"):
        list(optimise(found, SPACE, lambda cell: Trained(math.nan, 1.0), 1))
    assert [trial.state for trial in found.trials] == [TrialState.FAIL]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda found: optimise(found, SPACE, train, 0), "trials is 0: expected 1 or more"),
        (lambda found: enqueue_best(found, SPACE, score, Random(0), 5, 6), "keep is 6, of 5 drawn: expected 1 to 5"),
        (lambda found: enqueue_best(found, SPACE, score, Random(0), 5, 0), "keep is 0"),
        (lambda found: Floor.of(score, [], 0.5), "of 0 drawn"),
        (lambda found: Floor.of(score, [Scored(("none",) * 6, 1.0)], 1.0), "quantile is 1.0"),
    ],
)
def test_bad_numbers_are_refused_at_once(call: Callable[[optuna.Study], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(optuna.create_study())


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "maximize"]])
def test_a_study_of_another_aim_is_refused(directions: list[str]) -> None:
    found = optuna.create_study(directions=directions)
    with pytest.raises(ValueError, match="expected a study that looks for the highest of one number"):
        optimise(found, SPACE, train, 1)
