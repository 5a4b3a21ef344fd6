"""One policy on a live cluster: a single tick, or a run that leaves a run directory behind."""

from __future__ import annotations

import gc
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from deepscaler.adapters.deadline import sharing
from deepscaler.artefacts import write_json
from deepscaler.cluster import Cluster, Leadership, Undisputed
from deepscaler.control.controller import Controller
from deepscaler.control.keeping import FILES, Keeper
from deepscaler.control.lock import only_writer
from deepscaler.control.memory import Memory
from deepscaler.control.recorder import DecisionRow, Recorder
from deepscaler.control.renewal import renewal_of
from deepscaler.control.serving import serving
from deepscaler.errors import ClusterError, MetricsError
from deepscaler.policies.base import Policy
from deepscaler.runs import PolicyName
from deepscaler.settings import Settings

log = logging.getLogger(__name__)
GRACE_SECONDS = 10.0
"""So long after a signal a controller may take to end; Kubernetes waits for 30 s before it kills."""
END_SECONDS = 4.0
"""So long giving back what was raised may take; the run directory has half of the grace."""
COLLECTOR_THRESHOLDS = (100_000, 50, 50)
_Part = TypeVar("_Part")


def tick_once(cluster: Cluster, policy: Policy, settings: Settings) -> list[DecisionRow]:
    """Decide and, unless it is a dry run, write once; returns the decisions.

    Raises:
        ClusterError: the cluster can't be read, the rights to write are missing, or another controller leads.
    """
    with _leave_to_write(cluster, settings, wait=True) as leadership:
        return Controller(cluster, policy, settings, leading=leadership.leading).tick()


def run_live(cluster: Cluster, policy: Policy, settings: Settings) -> Path:
    """Run a policy until `scale.duration` is over or a signal comes; returns the run directory.

    Decisions and pods are appended to the directory at every tick, after those of an earlier run in it. A new
    bundle in the old one's place takes over, see `deepscaler.control.renewal`; SIGHUP has it read at once.

    Raises:
        ClusterError: the rights to write are missing, the port of the metrics page is taken, or another
            controller writes to the same run directory.
    """
    seed = (settings.scale.seeds or [0])[0]
    directory = Path(settings.scale.run_dir) / f"{policy.name}-{seed}"
    renewal = renewal_of(policy, settings, cluster.now())
    with only_writer(directory), patient_collector(), stopping_on_signals(renewal.ask) as stop:
        recorder = Recorder(directory)
        first = recorder.first_time()
        start = cluster.now() if first is None else min(first, cluster.now())
        with _leave_to_write(cluster, settings, wait=False) as leadership:
            leading = leadership.leading
            controller = Controller(
                cluster, policy, settings, recorder, survive_bugs=True, leading=leading, renewal=renewal
            )
            leadership.require(controller.healthy)
            controller.watch_health()
            controller.watchers.append(Memory(directory, lambda: controller.policy, cluster))
            # What was before the run counts in a shadow's decisions, too: a replay has to know it.
            history = policy.history_seconds if settings.watching else 0.0
            keeper = Keeper(directory, cluster, settings.collect.step, start, history)
            controller.watchers.append(keeper)
            with serving(controller, settings):
                controller.run(settings.scale.duration, stop=stop)
            with sharing(END_SECONDS):
                controller.end()
        try:
            seconds = GRACE_SECONDS / 2 if stop.is_set() else math.inf
            write_json(directory / "run.json", _ended(controller, keeper, seed, start, seconds))
        except OSError as error:
            log.error("%s is incomplete: %s", directory, error)
    return directory


@contextmanager
def stopping_on_signals(renew: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set until the block ends, to stop a controller after its tick.

    SIGHUP calls `renew`, and ends nothing: a terminal sends it, too, when it is closed.
    If the block hasn't ended `GRACE_SECONDS` after the signal, whatever hangs in it, the process is killed.
    """
    stop, over = threading.Event(), threading.Event()

    def end_at_last() -> None:
        if not over.wait(GRACE_SECONDS):
            log.error("still not done %g s after the signal: ending at once", GRACE_SECONDS)
            os.kill(os.getpid(), signal.SIGKILL)

    def end(number: int, _frame: object) -> None:
        log.info("%s: ending after the tick", signal.Signals(number).name)
        if not stop.is_set():
            threading.Thread(target=end_at_last, name="end", daemon=True).start()
        stop.set()

    def stay(number: int, _frame: object) -> None:
        name = signal.Signals(number).name
        log.info("%s: going on; the bundle is read anew, settings at the start only", name)
        renew()

    handlers = {signal.SIGTERM: end, signal.SIGINT: end}
    if hasattr(signal, "SIGHUP"):  # not on Windows
        handlers[signal.SIGHUP] = stay
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def patient_collector() -> Iterator[None]:
    """Let Python look for garbage cycles less often until the block ends.

    A tick of a thousand services makes millions of small objects from JSON, which form no cycles; looking for
    them took half of its time.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _leave_to_write(cluster: Cluster, settings: Settings, wait: bool) -> AbstractContextManager[Leadership]:
    """Unless it is a dry run, check the rights and let the replicas of the controller elect a leader."""
    return nullcontext(Undisputed()) if settings.watching else cluster.leadership(wait=wait)


def _ended(controller: Controller, keeper: Keeper, seed: int, start: float, seconds: float) -> dict[str, Any]:
    """What run.json says; the keeper adds what its files still lack.

    After a signal there is little time: `seconds` bounds all of it. Each part that can't be read any more is
    logged by name, and run.json lists it as missing. The decisions alone are worth keeping.
    """
    start = min(start, controller.cluster.now())  # the clock may have been set back
    missing: list[str] = []
    began = time.monotonic()

    def part(name: str, read: Callable[[], _Part], otherwise: _Part) -> _Part:
        try:
            with sharing(seconds - (time.monotonic() - began)):
                return read()
        except (MetricsError, ClusterError) as error:
            missing.append(name)
            log.error("the run directory is incomplete, %s is missing: %s", name, error)
            return otherwise

    policy = {**PolicyName.parse(controller.policy.name).to_dict(), "seed": seed, "start": start}
    info = part("run.json", lambda: controller.describe(seed, start), policy)
    for name in FILES:
        part(name, partial(keeper.finish, name), None)
    return {**info, "missing": missing} if missing else info
