"""The ledger: seven currencies, booked under the phase that spent them."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Cost:
    """Seven currencies. All add, save the peak, which takes the larger.

    flops           floating-point operations (a multiply-add counts two)
    tokens          input tokens trained on
    labels          labelled examples read
    teacher_tokens  tokens sent to and received from a teacher
    bytes_sent      bytes that crossed between clients and server
    seconds         wall time
    peak_bytes      the largest memory held: the accelerator's allocation where one is used, else the resident set
    """

    flops: float = 0
    tokens: float = 0
    labels: float = 0
    teacher_tokens: float = 0
    bytes_sent: float = 0
    seconds: float = 0
    peak_bytes: float = 0

    def __add__(self, other: Cost) -> Cost:
        mine, theirs = asdict(self), asdict(other)
        peak = max(self.peak_bytes, other.peak_bytes)
        return Cost(**{name: mine[name] + theirs[name] for name in mine} | {"peak_bytes": peak})

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


CURRENCIES = tuple(field.name for field in fields(Cost))


class Ledger:
    """Costs by phase. `charge` books under the open phase; phases nest by '/' and their seconds never count twice."""

    def __init__(self) -> None:
        self._entries: dict[str, Cost] = {}
        self._open: list[str] = [""]
        self._since = time.perf_counter()

    def charge(self, **amounts: float) -> None:
        """Book amounts, by currency, under the open phase. Raises ValueError on an unknown currency or a bad amount."""
        for name, amount in amounts.items():
            if name not in CURRENCIES:
                raise ValueError(f"the ledger has no currency {name!r}: expected one of {', '.join(CURRENCIES)}")
            if not 0 <= amount < math.inf:
                raise ValueError(f"the ledger cannot be charged {amount!r} {name}: expected zero or more, and finite")
        path = self._open[-1]
        self._entries[path] = self._entries.get(path, Cost()) + Cost(**amounts)

    @contextmanager
    def phase(self, name: str) -> Iterator[Ledger]:
        """Open a phase, below the one that is open: its own seconds and its own peak are booked under its name."""
        if not name:
            raise ValueError("a phase needs a name")
        self._settle()
        parent = self._open[-1]
        self._open.append(f"{parent}/{name}" if parent else name)
        try:
            yield self
        finally:
            self._settle()
            self._open.pop()

    def total(self, under: str = "") -> Cost:
        """The cost of a phase and all below it; of everything where none is named."""
        if len(self._open) > 1:
            self._settle()
        spent = Cost()
        for path, cost in self._entries.items():
            if not under or path == under or path.startswith(under + "/"):
                spent = spent + cost
        return spent

    def phases(self) -> dict[str, Cost]:
        """Each phase's own cost, by path, in the order in which they were first charged."""
        if len(self._open) > 1:
            self._settle()
        return dict(self._entries)

    def state_dict(self) -> dict[str, Any]:
        if len(self._open) > 1:
            self._settle()
        return {path: cost.as_dict() for path, cost in self._entries.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved ledger's entries. Time spent before this call on what was saved is not counted again."""
        self._entries = {path: Cost(**amounts) for path, amounts in state.items()}
        self._since = time.perf_counter()
        if len(self._open) > 1:
            reset_peak_bytes()

    def absorb(self, other: dict[str, Any], under: str) -> None:
        """Add another ledger's `state_dict` (of a worker process, say) below a phase of this one."""
        for path, amounts in other.items():
            name = f"{under}/{path}" if under and path else under or path
            self._entries[name] = self._entries.get(name, Cost()) + Cost(**amounts)

    def _settle(self) -> None:
        """Book the seconds and the peak since the last change of phase under the phase that was open."""
        _synchronize()
        now = time.perf_counter()
        if len(self._open) > 1:
            path = self._open[-1]
            spent = Cost(seconds=now - self._since, peak_bytes=peak_bytes())
            self._entries[path] = self._entries.get(path, Cost()) + spent
        reset_peak_bytes()
        self._since = now


def spent(state: dict[str, Any], *phases: str) -> Cost:
    """What phases themselves took, of a ledger's `state_dict`: nothing of those below them."""
    return sum((Cost(**amounts) for phase, amounts in state.items() if phase in phases), Cost())


def _synchronize() -> None:
    """Wait for what an accelerator was given under the phase that ends, so that it is booked there."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_bytes() -> int:
    """The most memory held since the last `reset_peak_bytes`: on an accelerator if torch uses one, else resident."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_bytes() -> None:
    """Start a new peak. Where the system offers no reset, the peak stays the process's so far."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        return
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        try:
            clear.write_text("5")
        except OSError:  # a container may mount /proc read-only: the peak then is the process's so far
            return
