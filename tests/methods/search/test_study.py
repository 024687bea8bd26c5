"""Studies in a file: opened, gone on with after a kill, and read."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from shoestring.methods.search import study as module
from shoestring.methods.search.cells201 import Cell, Cells201
from shoestring.methods.search.study import begin, finished, pruned, revive, study, visits
from shoestring.methods.search.suggest import suggests

SPACE = Cells201()
CELL: Cell = ("none",) * 6
PARAMETERS = suggests(SPACE).parameters(CELL)


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(params=["a.db", "a.journal"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / "folder" / request.param


def ended() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# by hand


def test_a_study_is_there_when_it_is_opened_again(file: Path) -> None:
    found = study(file, "one", SPACE, 0)
    trial = begin(found)
    suggests(SPACE).suggest(trial)
    trial.set_user_attr("architecture", SPACE.encode(CELL))
    trial.set_user_attr("cost", 0.1)
    trial.set_user_attr("test", "nan")
    found.tell(trial, -math.inf)
    again = study(file, "one", SPACE, 0)
    (visit,) = visits(again, SPACE)
    assert visit[:4] == (CELL, -math.inf, 0.1, 0.1)
    assert math.isnan(visit.test)
    assert visits(study(file, "two", SPACE, 5), SPACE) == []


def test_costs_run_up_and_only_what_was_trained_is_a_visit(tmp_path: Path) -> None:
    found = study(tmp_path / "a.db", "one", SPACE, 0)
    for accuracy in (3.0, 5.0, 4.0):
        trial = begin(found)
        trial.set_user_attr("architecture", SPACE.encode(CELL))
        trial.set_user_attr("cost", 0.1)
        trial.set_user_attr("test", 1.0)
        found.tell(trial, accuracy)
    same, cut = begin(found), begin(found)
    same.set_user_attr("same as", 0)
    found.tell(same, 3.0)
    cut.set_user_attr("pruned", "too slow")
    found.tell(cut, state=TrialState.PRUNED)
    assert [(visit.accuracy, visit.spent) for visit in visits(found, SPACE)] == [(3.0, 0.1), (5.0, 0.2), (4.0, 0.3)]
    assert len(finished(found)) == 3
    assert pruned(found) == [("", "too slow")]


# draws


def drawn(found: optuna.Study, count: int) -> list[Cell]:
    cells = []
    for _ in range(count):
        trial = begin(found)
        cells.append(suggests(SPACE).suggest(trial))
        found.tell(trial, float(cells[-1].count("nor_conv_3x3")))
    return cells


def test_a_study_that_went_on_draws_as_one_that_never_stopped(tmp_path: Path) -> None:
    """Past the ten trials that TPE draws at random, too; and a failed one takes no place."""
    whole = drawn(study(tmp_path / "a.journal", "one", SPACE, 7), 16)
    assert len(set(whole)) > 10
    for stop in (3, 12):
        file = tmp_path / f"{stop}.journal"
        first = drawn(study(file, "one", SPACE, 7), stop)
        broken = study(file, "one", SPACE, 7)
        broken.tell(begin(broken), state=TrialState.FAIL)
        assert first + drawn(study(file, "one", SPACE, 7), 16 - stop) == whole
    assert drawn(study(tmp_path / "b.journal", "one", SPACE, 8), 3) != whole[:3]


def test_the_sampler_of_another_study_is_left_alone() -> None:
    own = optuna.samplers.RandomSampler(seed=1)
    found = optuna.create_study(sampler=own)
    begin(found)
    assert found.sampler is own


# left behind


def left(found: optuna.Study, owner: object) -> optuna.Trial:
    trial = begin(found)
    suggests(SPACE).suggest(trial)
    trial.set_user_attr("process", owner)
    return trial


def test_what_a_killed_process_left_is_failed_and_tried_again(file: Path) -> None:
    found = study(file, "one", SPACE, 0)
    found.enqueue_trial(PARAMETERS, user_attrs={"queued": PARAMETERS})
    machine, _, since = module._process(os.getpid())
    left(found, [machine, ended(), since])
    for _ in range(2):
        revive(found)
    assert [trial.state for trial in found.trials] == [TrialState.FAIL, TrialState.WAITING]
    trial = begin(found)
    assert suggests(SPACE).suggest(trial) == CELL
    assert trial.user_attrs["again"] == 0


def test_a_number_given_out_again_is_another_process(tmp_path: Path) -> None:
    found = study(tmp_path / "a.journal", "one", SPACE, 0)
    machine, number, since = module._process(os.getpid())
    left(found, [machine, number, since - 1000])
    revive(found)
    assert found.trials[0].state == TrialState.FAIL


def test_trials_of_others_that_live_are_left_alone(tmp_path: Path) -> None:
    found = study(tmp_path / "a.journal", "one", SPACE, 0)
    machine, _, since = module._process(os.getpid())
    parent = psutil.Process(os.getppid())
    left(found, [machine, parent.pid, parent.create_time()])
    left(found, ["another machine", ended(), since])
    left(found, None)
    revive(found)
    assert [trial.state for trial in found.trials] == [TrialState.RUNNING] * 3


def test_a_trial_of_nobody_is_failed_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = study(tmp_path / "a.journal", "one", SPACE, 0)
    left(found, None)
    monkeypatch.setattr(module, "_GRACE", module.timedelta(0))
    revive(found)
    assert found.trials[0].state == TrialState.FAIL


# bad input


def test_another_seed_or_space_is_refused(tmp_path: Path) -> None:
    class Other(Cells201):
        name = "other"  # type: ignore[assignment]

    file = tmp_path / "a.journal"
    study(file, "one", SPACE, 0)
    with pytest.raises(
        ValueError, match=r"a\.journal: the study 'one' has the seed 0, not 1: give that, or another name"
    ):
        study(file, "one", SPACE, 1)
    with pytest.raises(ValueError, match="has the space nas-bench-201, not other"):
        study(file, "one", Other(), 0)


def test_a_study_for_the_lowest_is_refused(tmp_path: Path) -> None:
    optuna.create_study(storage=f"sqlite:///{tmp_path}/a.db", study_name="one")
    with pytest.raises(ValueError, match="looks for the lowest"):
        study(tmp_path / "a.db", "one", SPACE, 0)


def test_a_file_that_is_no_study_is_refused(tmp_path: Path) -> None:
    for name in ("a.db", "a.journal"):
        (tmp_path / name).write_text("a text, by chance\n")
    with pytest.raises(ValueError, match=r"a\.db: is no file of SQLite"):
        study(tmp_path / "a.db", "one", SPACE, 0)
    with pytest.raises(ValueError, match=r"a\.journal line 1: is none of Optuna's journal"):
        study(tmp_path / "a.journal", "one", SPACE, 0)
    assert (tmp_path / "a.journal").read_text() == "a text, by chance\n"


def test_a_torn_journal_is_refused_and_goes_on_when_its_end_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "a.journal"
    drawn(study(file, "one", SPACE, 0), 2)
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"op_code":5,"wor')
    with pytest.raises(ValueError, match=r"a\.journal line \d+: is none of Optuna's journal: .* cut a torn end off"):
        study(file, "one", SPACE, 0)
    file.write_bytes(whole)
    assert len(study(file, "one", SPACE, 0).trials) == 2


def test_without_optuna_the_line_to_install_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ModuleNotFoundError, match=r"^a study needs Optuna: pip install 'shoestring\[search\]'$"):
        study(tmp_path / "a.db", "one", SPACE, 0)
