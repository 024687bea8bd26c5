"""Optuna as the driver of real training runs: a score warms its queue and prunes what it would waste training on.

Each trial is in the study's file the moment it is done. A study that was stopped, or killed, goes on where it was:

    found = study("search.db", "decoders", space, seed=0)
    scored = enqueue_best(found, space, score, Random(0))
    for visit in optimise(found, space, train, trials=50, floor=Floor.of(score, scored)):
        print(visit)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Generic, TypeVar

from shoestring.methods.search.evolve import Scored, naswot
from shoestring.methods.search.history import Train, Visit, checked, plain
from shoestring.methods.search.space import Space
from shoestring.methods.search.study import begin, finished, needed, revive, visits
from shoestring.methods.search.suggest import Suggests, suggests

if TYPE_CHECKING:
    from optuna import Study, Trial

A = TypeVar("A")
_FRUITLESS = 200  # trials in a row of which none was trained


def enqueue_best(
    study: Study, space: Space[A], score: Callable[[A], float], random: Random, drawn: int = 20, keep: int = 10
) -> list[Scored[A]]:
    """Draw and score; of the best `keep`, those that the study does not know yet are its next trials, best first.

    Returns all that were drawn, as scored: `Floor.of` takes them. With the same generator, calling it again when the
    study goes on adds nothing.
    """
    if not 1 <= keep <= drawn:
        raise ValueError(f"keep is {keep}, of {drawn} drawn: expected 1 to {drawn}")
    asked = suggests(space)
    _, scored = naswot(space, score, drawn, random)
    for entry in sorted(scored, key=lambda one: one.score, reverse=True)[:keep]:
        parameters = asked.parameters(entry.architecture)
        notes = {"queued": parameters, "score": plain(entry.score)}
        study.enqueue_trial(parameters, user_attrs=notes, skip_if_exists=True)
    return scored


@dataclass(frozen=True)
class Floor(Generic[A]):
    """Prunes a trial, before it is trained, where its architecture scores below `least`."""

    score: Callable[[A], float]
    least: float

    @classmethod
    def of(cls, score: Callable[[A], float], scored: list[Scored[A]], quantile: float = 0.5) -> Floor[A]:
        """The floor under which that part of the drawn ones lies."""
        if not scored or not 0 <= quantile < 1:
            raise ValueError(f"quantile is {quantile}, of {len(scored)} drawn: expected 0 to below 1, of one or more")
        return cls(score, sorted(entry.score for entry in scored)[int(quantile * len(scored))])

    def __call__(self, trial: Trial, architecture: A) -> None:
        value = float(self.score(architecture))
        if math.isnan(value):
            raise ValueError(f"{architecture}: its score is nan: expected a number, or -inf")
        trial.set_user_attr("score", plain(value))
        if value < self.least:
            raise needed().TrialPruned(f"scores {value:g}, below the floor of {self.least:g}")


def optimise(
    study: Study, space: Space[A], train: Train[A], trials: int, floor: Floor[A] | None = None
) -> Iterator[Visit[A]]:
    """Train until so many are trained, those before the study was stopped included; yields each that is new.

    A trial whose architecture was trained before takes that accuracy, costs nothing and is not counted; nor is one that
    is pruned: `pruned` says which and why. What `train` raises, Ctrl-C too, fails the trial and is raised again. Failed
    trials, and those of processes of this machine that were killed, are tried again when the study goes on. Several
    processes may work on one study.
    Raises ValueError where 200 trials in a row led to no training.
    """
    if trials < 1:
        raise ValueError(f"trials is {trials}: expected 1 or more")
    if study.directions != [needed().study.StudyDirection.MAXIMIZE]:
        raise ValueError("expected a study that looks for the highest of one number, as `study` opens")
    asked = suggests(space)
    revive(study)
    return _optimised(study, space, asked, train, trials, floor)


def _optimised(
    study: Study, space: Space[A], asked: Suggests[A], train: Train[A], trials: int, floor: Floor[A] | None
) -> Iterator[Visit[A]]:
    fruitless = 0
    while len(finished(study)) < trials:
        if fruitless == _FRUITLESS:
            raise ValueError(
                f"{_FRUITLESS} trials in a row were pruned or trained before: lower the floor, widen the space, "
                f"or ask for less than {trials} trials"
            )
        text = _one(study, space, asked, train, floor)
        fruitless = 0 if text else fruitless + 1
        if text:
            yield next(visit for visit in visits(study, space) if space.encode(visit.architecture) == text)


def _one(study: Study, space: Space[A], asked: Suggests[A], train: Train[A], floor: Floor[A] | None) -> str:
    """One trial: the text of what it trained, or nothing."""
    optuna = needed()
    state = optuna.trial.TrialState
    trial = begin(study)
    try:
        architecture = asked.suggest(trial)
        text = space.encode(architecture)
        trial.set_user_attr("architecture", text)
        before = next((one for one in finished(study) if one.user_attrs["architecture"] == text), None)
        if before is not None:
            trial.set_user_attr("same as", before.number)
            study.tell(trial, float(before.values[0]))
            return ""
        if floor is not None:
            floor(trial, architecture)
        found = checked(text, train(architecture))
        trial.set_user_attr("cost", float(found.cost))
        trial.set_user_attr("test", plain(float(found.test)))
        study.tell(trial, float(found.accuracy))
        return text
    except optuna.TrialPruned as reason:
        trial.set_user_attr("pruned", str(reason))
        study.tell(trial, state=state.PRUNED)
        return ""
    except BaseException:
        study.tell(trial, state=state.FAIL, skip_if_finished=True)
        raise
