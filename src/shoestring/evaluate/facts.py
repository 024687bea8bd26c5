"""The facts that let another repeat a measurement: command, date, commit, machine, versions."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import psutil

from shoestring import __version__


def gather(command: str) -> dict[str, str]:
    """Command, date, commit, machine and versions, as text."""
    return {
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers")),
    }


def commit() -> str:
    """The commit of the checkout this package runs from, with `+` where sources changed since; else its version."""
    try:
        top = _git(Path(__file__).parent, "rev-parse", "--show-toplevel")
        head = _git(Path(top), "rev-parse", "--short=12", "HEAD")
        changed = _git(Path(top), "status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks")
    except (OSError, subprocess.CalledProcessError):
        return f"version {__version__}"
    return head + ("+" if changed else "")


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def machine() -> str:
    """The processor, its cores, the memory, and the accelerators in use."""
    import torch

    memory = psutil.virtual_memory().total / 2**30
    parts = [f"{os.cpu_count()} cores of {_processor()}", f"{memory:.0f} GB of memory"]
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
    return ", ".join(parts)


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        for line in listed.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
