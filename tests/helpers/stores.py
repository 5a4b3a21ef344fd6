"""Real servers of metrics for tests: Prometheus and VictoriaMetrics, each fed by remote write."""

from contextlib import contextmanager

from helpers.needs import had
from testbed.live import prometheus_server, victoria_metrics

STORES = ("prometheus", "victoria_metrics")
_MODULES = {"prometheus": prometheus_server, "victoria_metrics": victoria_metrics}


class Store:
    """A running server of metrics.

    Attributes:
        name: one of `STORES`.
        url: its address.
    """

    def __init__(self, name, server):
        self.name, self.server, self.url = name, server, server.url

    def write(self, series):
        """Write series, and return when they can be queried."""
        prometheus_server.remote_write(self.url, series)
        if self.name == "victoria_metrics":
            victoria_metrics.flush(self.url)


@contextmanager
def running(name):
    """The store of this name. In CI a missing program is a failure, elsewhere a skip that says why."""
    module = _MODULES[name]
    had(module.install)
    with module.running() as server:
        yield Store(name, server)
