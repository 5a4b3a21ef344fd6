"""Leader election: of all replicas of the controller, the one that holds a Kubernetes Lease writes.

Source: the protocol of client-go's `leaderelection`. A record of holder and renewal is kept in a Lease. The
others wait for `duration` by their own clock after the last *change* they saw, so that clocks of machines are
never compared.
Differs: `kubernetes.leaderelection` isn't used. Its requests have no time-out, a broken connection ends its
thread, it doesn't release the Lease, and nothing tells its leader for how long a write is still safe. Here a
leader may write until `renew_deadline` after the *start* of its last successful renewal, which ends before
the `duration` that anybody else waits.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from deepscaler.adapters.kubernetes.api import ApiError, KubeApi
from deepscaler.adapters.kubernetes.checked import LeaseObject, check
from deepscaler.errors import ClusterError
from deepscaler.settings import Settings
from deepscaler.upstream import Upstream

_LOG = logging.getLogger(__name__)
_JOIN_SECONDS = 5.0


def steady_seconds() -> float:
    """Seconds of a clock that never jumps; on Linux it also counts while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class LeaseElection:
    """One candidate for the lead.

    Args:
        settings: name, namespace and times of the Lease.
        api: carries the requests; by default a client of its own, so that slow requests of others can't delay
            a renewal.
        steady: seconds of a clock that never jumps.
        wall: seconds since the epoch, for people who read the Lease.

    Attributes:
        name: of the Lease.
        namespace: of the Lease.
        identity: of this candidate.
        holder: who held the Lease when it was last read; "" for nobody.
    """

    def __init__(
        self,
        settings: Settings,
        api: KubeApi | None = None,
        steady: Callable[[], float] = steady_seconds,
        wall: Callable[[], float] = time.time,
    ) -> None:
        section = settings.cluster.lease
        self._section, self._steady, self._wall = section, steady, wall
        patience = min(settings.cluster.timeout, section.renew_deadline / 2)  # of one request
        self._api = api or KubeApi(settings.cluster.model_copy(update={"timeout": patience}), retries=0)
        self.name = settings.lease_name
        self.namespace = section.namespace or settings.app.namespace
        self.identity = f"{section.identity or socket.gethostname()}_{secrets.token_hex(4)}"
        self.holder = ""
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"
        self._renewed: float | None = None  # start of the last successful renewal; None: not leading
        self._observed: tuple[str, float] | None = None  # version of the record and when it was first seen
        self._lock = threading.Lock()  # one round at a time
        self._released = False
        self._fit: Callable[[], bool] = lambda: True

    @property
    def upstream(self) -> Upstream:
        """Counts the requests."""
        return self._api.upstream

    def require(self, fit: Callable[[], bool]) -> None:
        """From now on take or renew the Lease only while `fit()` is true, and stop leading when it isn't."""
        self._fit = fit

    # ------------------------------------------------------------------------------------------------- asking
    def seconds_left(self) -> float:
        """For how many seconds this candidate may still write; 0 when it doesn't lead."""
        renewed = self._renewed
        return 0.0 if renewed is None else max(renewed + self._section.renew_deadline - self._steady(), 0.0)

    def leading(self) -> bool:
        """Whether this candidate may write now."""
        return self.seconds_left() > 0.0

    # ------------------------------------------------------------------------------------------------ a round
    def attempt(self) -> bool:
        """Take the Lease if it is free, renew it if it is ours, and return whether we lead afterwards.

        An API that refuses or can't be reached is logged, not raised. A leader then goes on until its
        deadline.
        """
        with self._lock:
            if self._released:
                return False
            led = self.leading()
            try:
                if self._fit():
                    self._round()
                else:
                    self._renewed = None
            except ClusterError as error:
                _LOG.warning("Lease %s/%s: %s%s", self.namespace, self.name, error, self._consequence())
            leads = self.leading()
            if not leads:
                self._renewed = None
            if leads != led:
                _LOG.info(
                    "Lease %s/%s: %s",
                    self.namespace,
                    self.name,
                    f"{self.identity} leads" if leads else f"{self.identity} no longer leads",
                )
            return leads

    def _consequence(self) -> str:
        left = self.seconds_left()
        return f"; still leading for {left:.0f} s" if left else "; not writing"

    def _round(self) -> None:
        began = self._steady()
        lease = self._api.find(f"{self._path}/{self.name}")
        if lease is None:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self.name, "namespace": self.namespace},
                "spec": self._spec({}),
            }
            self._accept("POST", self._path, body, began)
            return
        check(LeaseObject, lease, "Lease")
        spec = lease.get("spec") or {}
        self._see(str(lease["metadata"].get("resourceVersion", "")), str(spec.get("holderIdentity") or ""))
        if self.holder not in ("", self.identity) and not self._expired(spec):
            self._renewed = None
            return
        self._accept("PUT", f"{self._path}/{self.name}", {**lease, "spec": self._spec(spec)}, began)

    def _see(self, version: str, holder: str) -> None:
        if holder != self.holder:
            _LOG.info("Lease %s/%s: held by %s", self.namespace, self.name, holder or "nobody")
        self.holder = holder
        if self._observed is None or self._observed[0] != version:
            self._observed = version, self._steady()

    def _expired(self, spec: dict[str, Any]) -> bool:
        """Whether the holder hasn't renewed its record for as long as it promised to, by our own clock."""
        assert self._observed is not None
        return self._steady() >= self._observed[1] + float(
            spec.get("leaseDurationSeconds") or self._section.duration
        )

    def _accept(self, method: str, path: str, body: dict[str, Any], began: float) -> None:
        """Write the record; the resourceVersion in `body` lets only one of several candidates win."""
        try:
            answer = self._api.send(method, path, body)
        except ApiError as error:
            if error.status == 409:
                self._renewed = None if self.holder != self.identity else self._renewed
                _LOG.info("Lease %s/%s: another candidate was faster", self.namespace, self.name)
                return
            raise
        check(LeaseObject, answer, "Lease")
        self._see(str(answer["metadata"].get("resourceVersion", "")), self.identity)
        self._renewed = began

    def _spec(self, before: dict[str, Any]) -> dict[str, Any]:
        now = _micro_time(self._wall())
        taken = before.get("holderIdentity") != self.identity
        transitions = int(before.get("leaseTransitions") or 0)
        return {
            **before,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self._section.duration,
            "acquireTime": now if taken else before.get("acquireTime") or now,
            "renewTime": now,
            "leaseTransitions": transitions + bool(taken and before),
        }

    def release(self) -> None:
        """Stop leading, and give the Lease back so that others needn't wait for it to run out."""
        with self._lock:
            held, self._renewed, self._released = self._renewed is not None, None, True
            if not held:
                return
            try:
                lease = check(LeaseObject, self._api.get(f"{self._path}/{self.name}"), "Lease")
                spec = lease.get("spec") or {}
                if spec.get("holderIdentity") == self.identity:
                    spec = {
                        **spec,
                        "holderIdentity": "",
                        "leaseDurationSeconds": 1,
                        "renewTime": _micro_time(self._wall()),
                    }
                    self._api.send("PUT", f"{self._path}/{self.name}", {**lease, "spec": spec})
                    _LOG.info("Lease %s/%s: released", self.namespace, self.name)
            except ClusterError as error:
                _LOG.warning(
                    "Lease %s/%s: not released, so others wait %d s: %s",
                    self.namespace,
                    self.name,
                    self._section.duration,
                    error,
                )

    # -------------------------------------------------------------------------------------- in the background
    def wait(self, sleep: Callable[[float], object] = time.sleep) -> bool:
        """Try to lead, and return whether we do.

        It gives up after the time in which a holder that is gone would have lost the Lease.

        Args:
            sleep: waits between tries for the seconds that it is given.
        """
        end = self._steady() + self._section.duration + 2 * self._section.retry_period
        while not (self.leading() or self.attempt()):
            if self._steady() >= end:
                return False
            sleep(self._section.retry_period)
        return True

    @contextmanager
    def running(self) -> Iterator[LeaseElection]:
        """Try at once, then every `retry_period` in a thread of its own. The Lease is released at the end."""
        self.attempt()
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(self._section.retry_period):
                try:
                    self.attempt()
                except Exception:  # a thread that ends silently would never lead again
                    _LOG.exception(
                        "Lease %s/%s: a round failed; the next one is tried", self.namespace, self.name
                    )

        thread = threading.Thread(target=work, name="lease", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join(_JOIN_SECONDS)
            self.release()


def _micro_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
