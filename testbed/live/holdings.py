"""What processes hold while they run: memory, handles, threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import psutil

MIB = 2.0**20
Find = Callable[[], Iterable[psutil.Process]]


def holdings(processes: Iterable[psutil.Process]) -> dict[str, float]:
    """What these processes hold now, summed; one that has ended meanwhile holds nothing.

    Returns:
        `memory MiB` that is resident (pages that several of them share count several times), `handles` (open
        files, sockets and the like) and `threads`.
    """
    found = {"memory MiB": 0.0, "handles": 0.0, "threads": 0.0}
    for process in processes:
        try:
            with process.oneshot():
                now = process.memory_info().rss / MIB, process.num_fds(), process.num_threads()
        except psutil.NoSuchProcess:
            continue
        found = {what: value + more for (what, value), more in zip(found.items(), now, strict=True)}
    return found


def one(pid: int) -> Find:
    """Finds a process by its id."""
    process = psutil.Process(pid)
    return lambda: [process]


def below(pid: int) -> Find:
    """Finds those that a process has started, directly or not, and that still run."""
    process = psutil.Process(pid)
    return lambda: process.children(recursive=True)
