"""Is a window of weights fit to be averaged? Sentences about what speaks against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from shoestring.methods.averaging.weights import local_shard

OUTLIER_DEVIATIONS = 3.0
OUTLIER_DISTANCES = 3.0
JUMP = 5.0
GROWTH = 10.0
RETURN = 0.75
FLAT = 0.64


class SuspiciousWindow(UserWarning):
    """The weights were averaged, and something speaks against it."""


def suspicious(
    states: Sequence[Mapping[str, Tensor]], steps: Sequence[int] | None = None, elements: int = 1024
) -> list[str]:
    """What speaks against averaging these state dicts, one sentence each; nothing for a healthy window.

    steps     of the states, oldest first; states are numbered from 0 where None
    elements  looked at in each tensor at most, evenly spread: cheap at any size, and the same at every call
    See `suspicious_sample` for what is looked for.
    """
    if len(states) < 2:
        return suspicious_sample(torch.zeros(len(states), 0), torch.float32, steps)
    rows = torch.stack([sample(state, elements).cpu() for state in states])
    sizes: dict[torch.dtype, int] = {}
    for tensor in states[-1].values():
        if tensor.is_floating_point():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    return suspicious_sample(rows, max(sizes, key=sizes.__getitem__, default=torch.float32), steps)


def sample(state: Mapping[str, Tensor], elements: int = 1024) -> Tensor:
    """At most `elements`, evenly spread, of each float tensor of a state, by name, in one row of float32."""
    rows = []
    for name in sorted(state):
        tensor = local_shard(state[name].detach())
        if tensor.is_floating_point():
            flat = tensor.flatten()
            stride = max(1, -(-flat.numel() // elements))
            rows.append(flat[::stride].to(torch.float32))
    return torch.cat(rows) if rows else torch.zeros(0)


def suspicious_sample(sample: Tensor, dtype: torch.dtype, steps: Sequence[int] | None = None) -> list[str]:
    """What speaks against averaging a window, from the same elements of each of its states.

    sample  (states, elements), oldest first
    dtype   what the states are stored in, whatever the sample is in
    steps   of the states, or None
    Looked for: steps that go back or are unevenly spaced; NaN and infinities; states that are the same, or in 16 bits
    and fewer closer than these can tell; and from four states on one far from the others, a jump, a growing pace, and
    a return to an earlier state. The thresholds are rules of thumb, wide enough that training at a constant learning
    rate raises none of them.
    """
    count = len(sample)
    if steps is not None and len(steps) != count:
        raise ValueError(f"there are {len(steps)} steps for {count} states: give one a state")
    names = [f"state {index}" for index in range(count)] if steps is None else [f"step {step}" for step in steps]
    found = _spacing(steps) if steps is not None else []
    bad = [name for name, row in zip(names, sample, strict=True) if not bool(torch.isfinite(row).all())]
    if bad:
        return [*found, f"NaN or infinities at {', '.join(bad)}: leave these out."]
    if count < 2 or sample.shape[1] == 0:
        return found
    rows = sample.to(torch.float64)
    distances = torch.stack([(rows - row).norm(dim=1) for row in rows])
    same = [(i, j) for j in range(count) for i in range(j) if float(distances[i, j]) == 0]
    if same:
        pairs = "; ".join(f"{names[i]} and {names[j]}" for i, j in same[:3])
        return [*found, f"The same weights twice: {pairs}. A frozen run, or one checkpoint given twice."]
    found += _flat(rows, dtype)
    if count >= 4:
        found += _outliers(rows, names) + _paces(distances, names, steps) + _returns(distances, names)
    return found


def _spacing(steps: Sequence[int]) -> list[str]:
    gaps = [later - earlier for earlier, later in pairwise(steps)]
    back = next((index for index, gap in enumerate(gaps) if gap <= 0), None)
    if back is not None:
        return [f"The steps go from {steps[back]} to {steps[back + 1]}: the window spans a restart."]
    if len(set(gaps)) > 1:
        return [f"The steps are unevenly spaced, {min(gaps)} to {max(gaps)} apart: the weights are not alike in time."]
    return []


def _flat(rows: Tensor, dtype: torch.dtype) -> list[str]:
    """States closer to each other than rounding: averaging them averages the rounding.

    0.64 of the dtype's relative spacing, which is 0.5 % in bfloat16.
    """
    spacing = torch.finfo(dtype).eps
    if torch.finfo(dtype).bits > 16:
        return []
    mean = rows.mean(dim=0)
    weighty = mean != 0
    if not bool(weighty.any()):
        return []
    moved = float(((rows - mean)[:, weighty].abs() / mean[weighty].abs()).median())
    if moved >= FLAT * spacing:
        return []
    told = f"{100 * moved:.2g} % of the weights, and {dtype} tells no less than {100 * FLAT * spacing:.2g} % apart"
    return [f"A flat window: the states lie {told}: average float32 weights, or take them further apart."]


def _outliers(rows: Tensor, names: list[str]) -> list[str]:
    """States far from the middle of all.

    The middle is the elementwise median, which an outlier does not pull along as it does a mean. Beside the deviations
    a multiple of the usual distance is asked for: in many dimensions healthy distances are so alike that three median
    deviations are crossed by chance.
    """
    middle = (rows - _median(rows)).norm(dim=1)
    usual = float(_median(middle))
    deviation = float(_median((middle - usual).abs()))
    bar = max(usual + OUTLIER_DEVIATIONS * deviation, OUTLIER_DISTANCES * usual)
    return [
        f"An outlier at {name}: {float(distance) / usual:.1f} times as far from the middle of the window as is usual."
        for name, distance in zip(names, middle, strict=True)
        if float(distance) > bar and usual > 0
    ]


def _paces(distances: Tensor, names: list[str], steps: Sequence[int] | None) -> list[str]:
    """Moves between neighbours that are not of one run at one pace."""
    moves = distances.diagonal(1)
    if steps is not None:
        gaps = torch.tensor([max(1, b - a) for a, b in pairwise(steps)], dtype=moves.dtype)
        moves = moves / (gaps / _median(gaps)).clamp(min=1)
    usual = float(_median(moves))
    longest = int(moves.argmax())
    times = float(moves[longest]) / usual
    if times > JUMP:
        between = f"between {names[longest]} and {names[longest + 1]}"
        return [f"A jump {between}, {times:.1f} times the usual move: a spike, a diverged stretch or another run."]
    growth = float(moves.max() / moves.min())
    if growth > GROWTH:
        return [f"The moves within the window differ {growth:.0f} times: a warm-up, a restart or a diverged stretch."]
    return []


def _returns(distances: Tensor, names: list[str]) -> list[str]:
    """One state much closer to an earlier one than to its neighbour. Several are oscillation, which averaging heals."""
    found = []
    for later in range(2, len(names)):
        nearest = int(distances[later, : later - 1].argmin())
        if float(distances[later, nearest]) < RETURN * float(distances[later, later - 1]):
            found.append((nearest, later))
    if len(found) != 1:
        return []
    earlier, later = found[0]
    return [f"At {names[later]} the weights are back near {names[earlier]}: the run restarted from there."]


def _median(values: Tensor) -> Tensor:
    """Along the first dimension; the mean of the middle two where even. `torch.quantile` stops at 16M elements."""
    ordered = values.sort(dim=0).values
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
