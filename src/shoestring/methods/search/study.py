"""An Optuna study in a file: opened, gone on with after a kill, and read as a search's history.

Without Optuna, all here raise ModuleNotFoundError saying how to install it.
"""

from __future__ import annotations

import json
import os
import socket
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from shoestring.methods.search.history import Visit, exactly
from shoestring.methods.search.space import Space

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

A = TypeVar("A")
_GRACE = timedelta(minutes=1)  # within which a trial that runs has said whose it is
_DRIFT = 5.0  # seconds by which the clock may have been set since a process began


def study(path: str | Path, name: str, space: Space[Any], seed: int) -> Study:
    """Begin the study of a name in a file, or go on with it. Higher accuracies are better.

    path  a file of SQLite; or, where it ends in `.journal`, Optuna's journal, for network file systems
    seed  of TPE, the sampler: what a trial draws follows from it, the trial's place, and what was trained before it
    Raises ValueError where the file is no study's, or the study is of another space or seed.
    """
    optuna = needed()
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    found: Study = optuna.create_study(
        storage=_storage(optuna, file), study_name=name, direction="maximize", load_if_exists=True
    )
    if found.direction != optuna.study.StudyDirection.MAXIMIZE:
        raise ValueError(f"{file}: the study {name!r} looks for the lowest: expected one that looks for the highest")
    for key, value in (("space", space.name), ("seed", seed)):
        was = found.user_attrs.get(key, value)
        if was != value:
            raise ValueError(f"{file}: the study {name!r} has the {key} {was}, not {value}: give that, or another name")
        found.set_user_attr(key, value)
    return found


def visits(study: Study, space: Space[A]) -> list[Visit[A]]:
    """What was trained in a study, in order, with its running cost."""
    spent, found = Fraction(0), []
    for trial in finished(study):
        cost, test = (float(trial.user_attrs[key]) for key in ("cost", "test"))
        spent += exactly(cost)
        architecture = space.decode(trial.user_attrs["architecture"])
        found.append(Visit(architecture, float(trial.values[0]), cost, float(spent), test))
    return found


def pruned(study: Study) -> list[tuple[str, str]]:
    """The architectures that were not trained, and why; the text is empty where the parameters gave none."""
    state = needed().trial.TrialState.PRUNED
    trials = study.get_trials(deepcopy=False, states=(state,))
    return [(trial.user_attrs.get("architecture", ""), trial.user_attrs.get("pruned", "")) for trial in trials]


def finished(study: Study) -> list[FrozenTrial]:
    """The trials that were trained, in order; those that took the accuracy of an earlier one left out."""
    state = needed().trial.TrialState.COMPLETE
    found = study.get_trials(deepcopy=False, states=(state,))
    return [trial for trial in found if "cost" in trial.user_attrs]


def begin(study: Study) -> Trial:
    """The next trial; it knows its process, and draws from a sampler of its own place in the study.

    So a study that was stopped draws on as if it had not been, unless it was stopped amid its queue. Where the study
    was not made by `study`, its sampler is left alone.
    """
    optuna = needed()
    trial = study.ask()
    trial.set_user_attr("process", _process(os.getpid()))
    if "seed" in study.user_attrs:
        failed = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.FAIL,))
        place = trial.number - sum(other.number < trial.number for other in failed)
        seed = Random(f"{study.user_attrs['seed']} {place}").getrandbits(32)
        study.sampler = optuna.samplers.TPESampler(seed=seed)
    return trial


def revive(study: Study) -> None:
    """Fail the trials of this machine's processes that are no more, and queue all that failed anew."""
    state = needed().trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(state.RUNNING,)):
        if _abandoned(trial):
            study.tell(trial.number, state=state.FAIL, skip_if_finished=True)
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get("again") for trial in trials}
    for trial in trials:
        parameters = {**trial.user_attrs.get("queued", {}), **trial.params}
        if trial.state == state.FAIL and trial.number not in again and parameters:
            study.enqueue_trial(parameters, user_attrs={"queued": parameters, "again": trial.number})


def needed() -> ModuleType:
    """Optuna."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a study needs Optuna: pip install 'shoestring[search]'") from None
    return optuna


def _abandoned(trial: FrozenTrial) -> bool:
    owner = trial.user_attrs.get("process")
    if owner is None:
        return trial.datetime_start is not None and datetime.now() - trial.datetime_start > _GRACE
    machine, number, since = owner
    if machine != socket.gethostname():
        return False
    try:
        return bool(abs(_process(number)[2] - since) > _DRIFT)
    except psutil.NoSuchProcess:
        return True


def _process(number: int) -> tuple[str, int, float]:
    """What names a process, also when its number is given out again: its machine, its number, when it began."""
    return socket.gethostname(), number, psutil.Process(number).create_time()


def _storage(optuna: ModuleType, file: Path) -> Any:
    if file.suffix == ".journal":
        _check_journal(file)
        return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(file)))
    if file.exists():
        with file.open("rb") as opened:
            begins = opened.read(16)
        if begins not in (b"", b"SQLite format 3\x00"):
            raise ValueError(f"{file}: is no file of SQLite: name a new one for the study, or one ending in .journal")
    return optuna.storages.RDBStorage(f"sqlite:///{file}")


def _check_journal(file: Path) -> None:
    """Raises ValueError on what Optuna would find out only after it had written to it."""
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or "op_code" not in entry:
            raise ValueError(
                f"{file} line {number}: is none of Optuna's journal: name a new file, or cut a torn end off"
            )
