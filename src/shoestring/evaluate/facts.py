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
    """The commit of the checkout that this package runs from, with `+` where files changed since; else its version."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "."], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return f"version {__version__}"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


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
