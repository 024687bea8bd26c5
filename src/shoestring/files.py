"""Small files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Give a file this text: written beside, forced to the disk and renamed, so that no kill leaves a torn one.

    Its folder is made where there is none. What stood under the name is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    with beside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)
