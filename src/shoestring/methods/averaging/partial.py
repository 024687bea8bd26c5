"""A result that grows under another name, with a journal: a killed call goes on, and a torn result is never seen."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import IO

from shoestring.models.manifest import flush

JOURNAL = "journal.jsonl"


class Partial:
    """The folder `<out>.partial`, locked while it is open.

    fingerprint  of all that the result depends on: work under another fingerprint is thrown away, not gone on with
    done         how many spans of the work were finished, and safe on the disk, when it was opened
    """

    def __init__(self, out: Path, fingerprint: str) -> None:
        self.out = out
        self.folder = out.with_name(out.name + ".partial")
        self.done = 0
        self._fingerprint = fingerprint
        self._journal: IO[str] | None = None

    def __enter__(self) -> Partial:
        if self.out.exists() and not (self.out.is_dir() and not any(self.out.iterdir())):
            raise ValueError(f"{self.out}: exists already: choose another name, or remove it first")
        journal = self.folder / JOURNAL
        if self.folder.exists() and not journal.exists() and any(self.folder.iterdir()):
            raise ValueError(f"{self.folder}: is in the way, and holds no {JOURNAL}: move it elsewhere")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._journal = self._locked(journal)
        self.done = self._resumed(journal)
        if not self.done:
            self._restart()
        return self

    def __exit__(self, *_: object) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def note(self, done: int) -> None:
        """Write down that the leading `done` spans are on the disk; they must be, before this is called."""
        assert self._journal is not None
        self._journal.write(json.dumps({"done": done}) + "\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def finish(self) -> None:
        """Give the folder its final name."""
        self.folder.replace(self.out)
        (self.out / JOURNAL).unlink()
        flush(self.out)
        flush(self.out.parent)

    def discard(self) -> None:
        """Throw the work away."""
        shutil.rmtree(self.folder)

    def _locked(self, journal: Path) -> IO[str]:
        stream = journal.open("a", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.close()
            raise ValueError(f"{self.folder}: another call is writing it: wait for that one to end") from error
        return stream

    def _resumed(self, journal: Path) -> int:
        """How far the journal says that work of this very fingerprint got; a power cut may have torn its last line."""
        first, *lines = journal.read_text(encoding="utf-8", errors="replace").split("\n")
        done = 0
        if first == json.dumps({"fingerprint": self._fingerprint}):
            for line in lines:
                try:
                    done = int(json.loads(line)["done"])
                except (ValueError, KeyError, TypeError):
                    break
        return done

    def _restart(self) -> None:
        assert self._journal is not None
        for path in self.folder.iterdir():
            if path.name != JOURNAL:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._journal.truncate(0)
        self._journal.write(json.dumps({"fingerprint": self._fingerprint}) + "\n")
        self._journal.flush()
