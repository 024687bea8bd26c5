"""Many networks scored side by side, each built where it is scored and gone when its scores are out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import nn

from shoestring import processes
from shoestring.methods.search.inputs import Inputs
from shoestring.methods.search.score import Score

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")
Proxy = Callable[[nn.Module, Inputs], Score]


def scores(
    jobs: Iterable[tuple[Key, Callable[[], nn.Module]]],
    proxies: Mapping[str, Callable[[nn.Module, Inputs], Found]],
    inputs: Inputs,
    workers: int = 1,
) -> Iterator[tuple[Key, dict[str, Found]]]:
    """Score each network by each proxy; yields as they are ready, in the order of the jobs.

    jobs     a key and what builds its network, picklable where workers > 1 (a partial of `space.build`, say); taken
             lazily, a few ahead of what is asked for
    proxies  by name; each is given the network and the inputs, and what it returns is handed on
    workers  processes on this machine, which share its cores; one scores in this process. More than one, under
             `joblib.parallel_config`, are that backend's, Ray's on a cluster, say
    What a network raises is raised here, as a ValueError that names its key where it was one.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}: expected one or more")
    if workers == 1:
        for key, build in jobs:
            yield key, _scored(key, build, proxies, inputs, 0)
        return
    try:
        from joblib import Parallel, cpu_count, delayed
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"scoring in {workers} processes needs joblib: pip install 'shoestring[search]', or say workers=1"
        ) from None
    threads = max(1, cpu_count() // workers)
    together = Parallel(n_jobs=workers, return_as="generator")
    # joblib starts a worker anew whose memory has grown, which is as it should be and needs no word
    warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")
    here = processes.asking()
    yield from together(delayed(_keyed)(key, build, proxies, inputs, threads, here) for key, build in jobs)


def _keyed(
    key: Key,
    build: Callable[[], nn.Module],
    proxies: Mapping[str, Callable[[nn.Module, Inputs], Found]],
    inputs: Inputs,
    threads: int,
    asking: processes.Asking,
) -> tuple[Key, dict[str, Found]]:
    processes.end_with(*asking)
    return key, _scored(key, build, proxies, inputs, threads)


def _scored(
    key: Hashable,
    build: Callable[[], nn.Module],
    proxies: Mapping[str, Callable[[nn.Module, Inputs], Found]],
    inputs: Inputs,
    threads: int,
) -> dict[str, Found]:
    if threads:
        torch.set_num_threads(threads)
    try:
        model = build()
        return {name: proxy(model, inputs) for name, proxy in proxies.items()}
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
