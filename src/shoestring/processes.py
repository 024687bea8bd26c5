"""Worker processes that joblib starts, ended when the one that asked for their work is gone."""

from __future__ import annotations

import os
import socket
import threading
import time
from functools import cache

import psutil

Asking = tuple[str, int]


def asking() -> Asking:
    """This machine and process, for `end_with`."""
    return socket.gethostname(), os.getpid()


@cache
def end_with(host: str, process: int) -> None:
    """End this process when the one that asked for its work is gone, which joblib's workers outlive.

    host, process  what `asking` said there; on another machine nothing is done: a cluster's back end sees to its own.
                   Nor where it is this very process, whose threads did the work
    """
    if socket.gethostname() != host or process == os.getpid():
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent and psutil.pid_exists(process):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
