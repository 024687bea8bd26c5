"""What a mixture is asked for, in the numbers it goes by; what cannot be is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from shoestring.methods.mixing.sources import Source


def check(sources: Mapping[str, Source], batch_size: int | None, seed: int, rank: int, world: int, delay: int) -> None:
    """Raises ValueError where one of them cannot be."""
    if not isinstance(sources, Mapping):
        raise ValueError(f"sources are a {type(sources).__name__}: expected each under its name, {{name: source}}")
    if not sources:
        raise ValueError("there are no sources to mix: give at least one")
    for name, value, least in (("batch_size", batch_size or world, 1), ("world", world, 1), ("delay", delay, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}: expected {least} or more")
    if batch_size == 0:
        raise ValueError("batch_size is 0: expected 1 or more, or None for single samples")
    if batch_size is not None and batch_size % world:
        raise ValueError(f"a batch of {batch_size} does not divide among {world} processes: choose a multiple")
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world} processes: expected 0 to {world - 1}")
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed {seed}: expected a number from 0 to 2**64 - 1")


def most(repeats: Mapping[str, float] | float | None, lengths: Mapping[str, int | None]) -> dict[str, int]:
    """Most samples of each source by name. Raises ValueError where a stream, or what is no source, is named."""
    if repeats is None:
        return {}
    given = dict(repeats) if isinstance(repeats, Mapping) else dict.fromkeys(lengths, repeats)
    caps = {}
    for name, epochs in given.items():
        if name not in lengths:
            raise ValueError(f"repeats of {name!r}, which is no source: expected some of {', '.join(lengths)}")
        rows = lengths[name]
        if rows is None:
            raise ValueError(f"repeats of {name!r}, a stream of unknown length: name the others, or give it rows")
        if not (math.isfinite(epochs) and int(epochs * rows + 1e-6) >= 1):
            raise ValueError(
                f"repeats of {name!r} is {epochs}: expected a number that leaves one of its {rows} samples"
            )
        caps[name] = int(epochs * rows + 1e-6)
    return caps


def sample_tokens(given: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """Tokens of a sample in the order of the names."""
    if set(given) != set(names):
        apart = ", ".join(map(repr, sorted(set(given) ^ set(names))))
        raise ValueError(f"tokens_per_sample: {apart} unknown or missing: expected one for each of {', '.join(names)}")
    for name in names:
        if not (math.isfinite(given[name]) and given[name] > 0):
            raise ValueError(f"tokens_per_sample of {name!r} is {given[name]}: expected a number above zero")
    return [float(given[name]) for name in names]
