"""The short trainings that a graph is learned from: one after the other or side by side, their losses checked."""

from __future__ import annotations

import hashlib
import json
import math
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from shoestring import processes

Losses = Mapping[str, float]
Measure = Callable[[Mapping[str, float], int], Losses]
Taken = tuple[dict[str, float], int, dict[str, float]]
_Take = Callable[[Mapping[str, float], int], dict[str, float]]


def measured(
    measure: Measure, jobs: Sequence[tuple[dict[str, float], int]], evaluated: Sequence[str], workers: int
) -> Iterable[Taken]:
    """The shares, the seed and the losses of each job, the moment it ends.

    workers  processes; more than one need joblib. Where a training fails there, nothing new is begun, what is under way
             is still given, and then the error is raised (one that is no failure of a training at once)
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}: expected one or more")
    take = partial(_take, measure, evaluated)
    if workers == 1:
        for shares, seed in jobs:
            yield shares, seed, take(shares, seed)
        return
    try:
        from joblib import Parallel, delayed
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"trainings in {workers} processes need joblib: pip install 'shoestring[mixing]', or say workers=1"
        ) from None
    failed: list[Exception] = []
    given = (job for job in jobs if not failed)
    outcomes = Parallel(n_jobs=workers, pre_dispatch=workers, batch_size=1, return_as="generator_unordered")(
        delayed(_job)(take, shares, seed, processes.asking()) for shares, seed in given
    )
    with warnings.catch_warnings():
        # joblib starts a worker anew whose memory has grown: no need to say
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")
        for shares, seed, losses in outcomes:
            if isinstance(losses, Exception):
                failed.append(losses)
            else:
                yield shares, seed, losses
    if failed:
        raise failed[0]


def checked(shares: Mapping[str, float], seed: int, losses: Losses, evaluated: Sequence[str]) -> dict[str, float]:
    """The losses of what is evaluated; ValueError where one is missing or not finite."""
    where = f"the training on {' and '.join(shares) or 'nothing'}, seed {seed}"
    if not isinstance(losses, Mapping):
        raise ValueError(f"{where} gave a {type(losses).__name__}: expected losses by skill")
    for name in evaluated:
        if name not in losses:
            raise ValueError(f"{where} gave no loss of {name!r}: expected one of each evaluated skill")
        if not math.isfinite(losses[name]):
            raise ValueError(f"{where} gave a loss of {losses[name]} on {name!r}: not finite; lower the learning rate")
    return {name: float(losses[name]) for name in evaluated}


def key_of(shares: Mapping[str, float]) -> str:
    """Of the mixture a training is on, whatever the order of its skills."""
    return json.dumps(sorted(shares.items()))


def file_name(shares: Mapping[str, float], seed: int) -> str:
    """Of what is kept of a training."""
    return f"{hashlib.sha256(key_of(shares).encode()).hexdigest()[:16]}-seed{seed}.json"


def _job(
    take: _Take, shares: dict[str, float], seed: int, asking: processes.Asking
) -> tuple[dict[str, float], int, dict[str, float] | Exception]:
    processes.end_with(*asking)
    try:
        return shares, seed, take(shares, seed)
    except (ValueError, RuntimeError, OSError) as error:
        error.add_note(f"in a process of its own:\n{traceback.format_exc()}")
        return shares, seed, error


def _take(measure: Measure, evaluated: Sequence[str], shares: Mapping[str, float], seed: int) -> dict[str, float]:
    return checked(shares, seed, measure(shares, seed), evaluated)
