"""A run directory belongs to one controller at a time."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepscaler.artefacts import one_line
from deepscaler.errors import ClusterError

log = logging.getLogger(__name__)
NAME = ".lock"


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Keep other controllers out of a run directory until the block ends, or this process does.

    Where the directory can't be written there is nothing to keep; the recorder says so.

    Raises:
        ClusterError: another controller writes there.
    """
    handle = _opened(directory / NAME)
    if handle is None:
        yield
        return
    try:
        if not _locked(handle):
            holder = one_line(os.pread(handle, 200, 0).decode(errors="replace")) or "one that doesn't say"
            raise ClusterError(
                f"{directory}: another controller ({holder}) writes there; "
                "stop it, or choose another scale.run_dir"
            )
        with suppress(OSError):  # a full disk
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _opened(path: Path) -> int | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        log.warning("%s: other controllers aren't kept out: %s", path, error)
        return None


def _locked(handle: int) -> bool:
    """Whether the lock is ours now; where the system or the file system has none, it always is."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("no lock on the run directory, so other controllers aren't kept out: %s", error)
    return True
