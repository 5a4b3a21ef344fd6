"""Whether a real cluster has all that the controller needs, from Prometheus to the Lease."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from deepscaler.adapters.kubernetes.api import ApiError, KubeApi
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.adapters.kubernetes.orchestrator import Orchestrator
from deepscaler.adapters.kubernetes.rights import (
    ANNOTATIONS,
    BUFFERS,
    MORE_READS,
    Right,
    missing_rights,
    needed_rights,
    reading_rights,
)
from deepscaler.adapters.names import Names
from deepscaler.adapters.prometheus import PrometheusClient
from deepscaler.adapters.queries import ENTRY_QUERIES, FEATURE_QUERIES
from deepscaler.adapters.store import store_kind
from deepscaler.artefacts import one_line
from deepscaler.cluster import Workload
from deepscaler.errors import ClusterError, DeepScalerError, MetricsError
from deepscaler.findings import Finding, State
from deepscaler.settings import Settings

PATIENCE_SECONDS = 5.0
"""No request of a check takes longer."""
STEPS = 4
"""Steps of the window that is read."""
NAMES = "check app.namespace and app.services (deployment, container, workloads)"


class ClusterCheck:
    """Looks at one cluster, with one try per request.

    Args:
        settings: those of the application.
    """

    def __init__(self, settings: Settings) -> None:
        section = settings.cluster
        address = section.prometheus.model_copy(
            update={"retries": 0, "timeout": min(section.prometheus.timeout, PATIENCE_SECONDS)}
        )
        hasty = {"prometheus": address, "timeout": min(section.timeout, PATIENCE_SECONDS)}
        self._settings = settings.model_copy(update={"cluster": section.model_copy(update=hasty)})
        self._acting = not settings.watching
        self._names = Names(settings.app, address.matchers)
        self._prometheus = PrometheusClient(address)
        self._api = KubeApi(self._settings.cluster, retries=0)
        self._orchestrator = Orchestrator(self._settings, self._api)
        self.workloads: Sequence[Workload] = ()

    # --------------------------------------------------------------------------------------------- Prometheus
    def prometheus(self) -> Iterator[Finding]:
        """Whether it answers, what it is, and which services answer each query."""
        now = time.time()
        url = self._settings.cluster.prometheus.url
        try:
            self._prometheus.query("vector(1)", now)
            yield Finding("ok", "Prometheus", f"{url} answers")
            yield Finding("ok", "store", store_kind(self._settings.cluster.prometheus))
        except MetricsError as error:
            yield Finding("MISSING", "Prometheus", str(error))
            return
        yield self._clock()
        for feature, usual in FEATURE_QUERIES.items():
            query = self._settings.collect.queries.get(feature, usual)
            needed = feature in self._settings.process.features
            yield self._answering(f"metric {feature}", query.query, query.label, self._names.services, needed)
        entries = tuple(dict.fromkeys(entry.service for entry in self._settings.app.entries))
        offered = self._settings.collect.entry_queries.get("offered", ENTRY_QUERIES["offered"])
        yield self._answering("requests at the entries", offered.query, offered.label, entries, False)
        yield self._window(now)

    def _clock(self) -> Finding:
        """Whether our clock is that of Prometheus: one that is behind takes old samples for new ones."""
        ahead, stale = self._prometheus.upstream.clock_ahead, self._settings.scale.stale_after
        if ahead is None:
            return Finding("note", "clock", "Prometheus doesn't tell its time; keep the clocks of both alike")
        if abs(ahead) <= self._settings.collect.step:
            return Finding("ok", "clock", "agrees with that of Prometheus")
        way = "behind" if ahead > 0 else "ahead of"
        remedy = f"set it; from {stale:g} s on all services are held"
        state: State = "MISSING" if abs(ahead) > stale else "note"
        return Finding(state, "clock", f"{abs(ahead):.0f} s {way} that of Prometheus; {remedy}")

    def _answering(
        self, about: str, query: str, label: str, services: tuple[str, ...], needed: bool
    ) -> Finding:
        """How many of the services have a sample now."""
        window = self._settings.collect.window
        text = self._names.render(query, label, window=window, entries=services)
        try:
            found = self._prometheus.query(text, time.time())
            samples = [labels.get(label, "") for labels, value in found if np.isfinite(value)]
            known = {self._names.service(label, name) for name in samples}
        except MetricsError as error:
            return Finding("MISSING" if needed else "note", about, str(error))
        silent = [service for service in services if service not in known]
        count = f"{len(services) - len(silent)} of {len(services)} services answer"
        if not silent:
            return Finding("ok", about, count)
        none = needed and len(silent) == len(services)
        remedy = f"no sample of {', '.join(silent)}; {NAMES}, or set collect.queries"
        return Finding("MISSING" if none else "note", about, f"{count}; {remedy}; query: {one_line(text)}")

    def _window(self, now: float) -> Finding:
        """Read the newest window as a tick does."""
        step = self._settings.collect.step
        cluster = KubernetesCluster(self._settings)
        began = time.monotonic()
        try:
            panel = cluster.metrics(now - STEPS * step, now, step)
        except DeepScalerError as error:
            return Finding("MISSING", "window of metrics", str(error))
        took, known = time.monotonic() - began, int(np.isfinite(panel.values[-1]).sum())
        text = f"read in {took:.1f} s; {known} of {panel.values[-1].size} newest samples are there"
        return Finding("ok", "window of metrics", text)

    # --------------------------------------------------------------------------------------------- Kubernetes
    def kubernetes(self) -> Iterator[Finding]:
        """Whether it answers, each right, the application's Deployments, other autoscalers, and the Lease."""
        try:
            version = self._api.get("/version").get("gitVersion")
            yield Finding("ok", "Kubernetes API", f"answers, version {version}")
        except ApiError as error:
            yield Finding("MISSING", "Kubernetes API", str(error))
            return
        yield from self._rights()
        yield from self._deployments()
        if self._acting:
            yield self._lease()

    def _rights(self) -> Iterator[Finding]:
        namespace, lease = self._settings.app.namespace, self._settings.cluster.lease
        of_lease = (lease.namespace or namespace) if lease.enabled else None
        modes = self._settings.modes
        events = self._settings.scale.events
        writing = needed_rights(namespace, of_lease, modes, events)
        needed = writing if self._acting else reading_rights(namespace)
        mode = "shadow" if not self._acting else "act" if "act" in modes else "advise"
        for right in needed:
            try:
                absent = bool(missing_rights(self._api, [right]))
            except ApiError as error:
                yield Finding("MISSING", f"right to {right}", str(error))
                continue
            remedy = f"no; bind a Role with it, as deploy/overlays/{mode} does"
            yield Finding("MISSING" if absent else "ok", f"right to {right}", remedy if absent else "yes")
        for right, without in MORE_READS.items():
            yield from self._optional(right, without, "more-reads")
        if self._acting and self._settings.scale.annotations:
            for parts in ANNOTATIONS:
                yield from self._optional(Right(*parts), "Deployments aren't annotated", "annotations")
        if self._acting and self._settings.scale.capacity_buffer.enabled:
            for parts in BUFFERS:
                yield from self._optional(Right(*parts), "no room is asked for on nodes", "capacity-buffer")

    def _optional(self, right: Right, without: str, component: str) -> Iterator[Finding]:
        """A right that the controller does without, and the component that gives it."""
        whole = right.within(self._settings.app.namespace)
        try:
            absent = bool(missing_rights(self._api, [whole]))
        except ApiError:
            return  # said already
        remedy = f"no, so {without}; add deploy/components/{component} to have it"
        yield Finding("note" if absent else "ok", f"right to {whole}", remedy if absent else "yes")

    def _deployments(self) -> Iterator[Finding]:
        about = "Deployments"
        try:
            self.workloads = self._orchestrator.workloads()
            other = self._orchestrator.unsupported()
        except ClusterError as error:
            yield Finding("MISSING", about, str(error))
            return
        scaled = [name for name, service in self._settings.app.services.items() if service.scaled]
        live = {item.service for item in self.workloads}
        state: State = "MISSING" if self._acting else "note"
        absent = [name for name in scaled if name not in live]
        count = f"{len(scaled) - len(absent)} of {len(scaled)} scaled services have one"
        if absent:
            yield Finding("note", about, f"{count}; none has {', '.join(absent)}; {NAMES}")
        else:
            yield Finding("ok", about, count)
        for service, kind in other.items():
            remedy = f"only Deployments are scaled; leave it alone: --set app.services.{service}.scaled=false"
            yield Finding(state, service, f"it is a {kind}; {remedy}")
        for item in self.workloads:
            if item.service in scaled:
                yield from self._incumbent(item)

    def _incumbent(self, item: Workload) -> Iterator[Finding]:
        """What its other autoscalers mean for a service."""
        names, mode = ", ".join(item.autoscalers), self._settings.scale.mode_of(item.service)
        if mode == "advise" and not names:
            remedy = f"there is nothing to advise: --set scale.modes.{item.service}=act"
            yield Finding("note", item.service, f"no HorizontalPodAutoscaler acts on it; {remedy}")
        elif mode == "advise" and (len(item.hpas), len(item.autoscalers)) == (1, 1):
            low, high = item.hpas[0].minimum, item.hpas[0].maximum
            yield Finding("ok", item.service, f"{names} stays in charge, between {low} and {high} replicas")
        elif names:
            alone = f"--set scale.modes.{item.service}=shadow"
            remedy = f"two can't scale it: delete that, advise it (docs/modes.md), or {alone}"
            state: State = "note" if mode == "shadow" else "MISSING"
            yield Finding(state, item.service, f"{names} acts on it; {remedy}")

    def _lease(self) -> Finding:
        section = self._settings.cluster.lease
        where = f"{section.namespace or self._settings.app.namespace}/{self._settings.lease_name}"
        if not section.enabled:
            text = "cluster.lease is off, so nothing keeps another controller from acting too"
            return Finding("note", "Lease", f"{text}; --set cluster.lease.enabled=true")
        namespace, _, name = where.partition("/")
        path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
        try:
            found = self._api.find(path)
        except ApiError as error:
            return Finding("MISSING", "Lease", str(error))
        holder = ((found or {}).get("spec") or {}).get("holderIdentity")
        text = f"{holder} holds it, and this controller would stand by" if holder else "nobody holds it"
        return Finding("ok", "Lease", f"{where}: {text}")
