"""A shop whose counters are known on paper, as exporters would show them."""

import numpy as np
import yaml

from deepscaler.artefacts import utc_seconds
from deepscaler.calls import EXTERNAL
from testbed.cluster.exposition import (
    ISTIO_BOUNDS_SECONDS,
    CounterSnapshot,
    Durations,
    PodCounters,
    ServiceCounters,
    pod_name,
)

T0 = utc_seconds("2026-01-05T00:00:00Z")
SCRAPE = 15.0
LIMIT = 0.2


def settings_file(tmp_path, server, namespace, services, **collect):
    document = {
        "app": {
            "name": "shop",
            "namespace": namespace,
            "services": services,
            "entries": [{"name": "GET /", "service": next(iter(services)), "slo": 0.15}],
        },
        "cluster": {
            "kind": "kubernetes",
            "prometheus": {"url": server.url, "retries": 0},
            "kubeconfig": str(tmp_path / "none"),
        },
        "collect": {"output_dir": str(tmp_path / "data"), **collect},
    }
    path = tmp_path / "app.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


class Shop:
    """Counters that grow at rates set per scrape; what the features must be follows from the rates."""

    def __init__(
        self, app, length, *, requests_per_second, pods=None, utilisation=0.5, limit=LIMIT, request=0.1
    ):
        self.app, self.times = app, T0 + SCRAPE * np.arange(length)
        self.services = tuple(app.services)
        self.rates = requests_per_second  # [L, N]
        self.pods = np.full((length, len(self.services)), 2) if pods is None else pods
        self.utilisation, self.limit, self.request = utilisation, limit, request

    def snapshots(self, missing=()):
        counts = np.cumsum(self.rates * SCRAPE, axis=0)
        born = {}
        out = []
        for k, moment in enumerate(self.times):
            services = {}
            for n, service in enumerate(self.services):
                if (k, service) in missing:
                    continue
                caller = EXTERNAL if n == 0 else self.services[0]
                spec = self.app.services[service]
                names = [pod_name(spec.deployment or service, j) for j in range(self.pods[k, n])]
                cores = self.utilisation * (self.limit or self.request or 1)
                cpu = {name: cores * SCRAPE * (k - born.setdefault(name, k)) for name in names}
                born = {
                    name: at
                    for name, at in born.items()
                    if name in names or not name.startswith(f"{service}-7d9c")
                }
                duration = 0.01 * (n + 1)
                below = [counts[k, n] * (bound >= duration) for bound in ISTIO_BOUNDS_SECONDS]
                services[service] = ServiceCounters(
                    pods=tuple(PodCounters(name, cpu[name], 30e6 * (n + 1), start_time=T0) for name in names),
                    spec_replicas=len(names),
                    cpu_limit_cores=self.limit,
                    cpu_request_cores=self.request,
                    memory_limit_bytes=120e6 * (n + 1),
                    memory_request_bytes=60e6,
                    requests={(caller, 200): counts[k, n], (caller, 503): counts[k, n] / 4},
                    durations={(caller, 200): Durations(duration * counts[k, n], counts[k, n], tuple(below))},
                )
            out.append(CounterSnapshot(moment, services))
        return out


def wave(length, services):
    """Rates that differ by time and service."""
    return 2 + np.arange(services)[None, :] + np.sin(np.arange(length))[:, None]
