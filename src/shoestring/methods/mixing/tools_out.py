"""Where a command's result goes: looked at before anything is paid for."""

from __future__ import annotations

import os
from pathlib import Path


def check_out(out: Path, suffix: str) -> None:
    """Make the folder of a result. Raises ValueError where the result could not be written there."""
    if out.suffix != suffix or out.is_dir():
        raise ValueError(f"--out {out}: expected the name of a file ending in {suffix}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out}: its folder cannot be made ({error.strerror}): give another") from error
    if not os.access(out.parent, os.W_OK):
        raise ValueError(f"--out {out}: its folder cannot be written: give another")
