"""The names that lead from an application's services to PromQL, and from series back to services."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache

from deepscaler.errors import MetricsError, SettingsError
from deepscaler.settings import App

POD_SUFFIX = "(?:-[a-z0-9]{5,10}-[a-z0-9]{5}|-[0-9]+)"
"""What pods have after their Deployment's name (hashes of ReplicaSet and pod) or StatefulSet's (ordinal)."""
LONG_NAME, LONGEST_BEGINNING = 47, 58
"""From so many characters on, a name and its hash don't fit into a pod's, which begins with 58 of them."""
LONG_POD_SUFFIX = "(?:-[a-z0-9]{0,10}-?)?[a-z0-9]{5}"
"""What pods have after (the beginning of) such a name."""

_REMEMBERED = 128
"""So many rendered queries are remembered: those of a tick, which are the same each time."""
_SUFFIX = re.compile(POD_SUFFIX)
_LONG_SUFFIX = re.compile(LONG_POD_SUFFIX)


class Names:
    """Which Deployments, containers and Istio workloads belong to which service.

    Attributes:
        namespace: of the application.
        services: in the order of the configuration.
        row: service -> its place in that order.
        workloads: Istio workload -> service.
        deployments: Deployment -> service.
        containers: container -> services that have one of this name.
        scaled: service -> the Deployment whose replicas are its own.
        strangers: pods that look like those of a service by their names, but belong to somebody else.

    Raises:
        SettingsError: two services claim one Deployment or workload.
    """

    def __init__(self, app: App, matchers: str = "") -> None:
        """Read the names of `app`; `matchers` stand in each built-in query, as in `cluster="a"`."""
        self.namespace = app.namespace
        self._matchers = matchers.rstrip(", ") + "," if matchers.strip(", ") else ""
        self.services = tuple(app.services)
        self.workloads: dict[str, str] = {}
        self.deployments: dict[str, str] = {}
        self.containers: dict[str, set[str]] = {}
        self.scaled: dict[str, str] = {}
        for service, spec in app.services.items():
            workloads = spec.workloads or [spec.deployment or service]
            self.scaled[service] = spec.deployment or workloads[0]
            self.containers.setdefault(spec.container or service, set()).add(service)
            for known, names in (
                (self.workloads, workloads),
                (self.deployments, [self.scaled[service], *workloads]),
            ):
                for name in names:
                    if known.setdefault(name, service) != service:
                        raise SettingsError(
                            f"app.services: {service} and {known[name]} both claim the workload {name!r}"
                        )
        self.row = {service: row for row, service in enumerate(self.services)}
        self._render = lru_cache(_REMEMBERED)(self._rendered)
        self.strangers: Collection[str] = ()
        beginnings = Counter(name[:LONGEST_BEGINNING] for name in self.deployments if len(name) >= LONG_NAME)
        # Names that begin alike can't be told apart by their pods.
        self._long = {
            name[:LONGEST_BEGINNING]: name
            for name in self.deployments
            if beginnings[name[:LONGEST_BEGINNING]] == 1
        }

    def _pod_pattern(self, alternatives: Callable[[Iterable[str]], str]) -> str:
        """The names of pods; group 1 is their Deployment, group 2 the beginning of one with a long name."""
        pattern = f"({alternatives(self.deployments)}){POD_SUFFIX}"
        return pattern + (f"|({alternatives(self._long)}){LONG_POD_SUFFIX}" if self._long else "")

    def service(self, label: str, value: str) -> str | None:
        """The service that a series with this label and value belongs to; None for none.

        Raises:
            MetricsError: the label can't tell, because several services share that container name.
        """
        if label == "container":
            owners = self.containers.get(value, set())
            if len(owners) > 1:
                raise MetricsError(
                    f"collect.queries: label 'container' can't tell {', '.join(sorted(owners))} apart, "
                    f"whose containers are all called {value!r}; group by pod or deployment instead"
                )
            return next(iter(owners), None)
        if label == "pod":
            return None if value in self.strangers else self._owner(value)
        if "workload" in label:
            return self.workloads.get(value)
        return self.deployments.get(value) or (value if value in self.row else None)

    def _owner(self, pod: str) -> str | None:
        """The service of a pod, whose name begins with that of its Deployment, or with most of a long one."""
        first = pod.rpartition("-")[0]
        for name in (first.rpartition("-")[0], first):
            if name in self.deployments and _SUFFIX.fullmatch(pod, len(name)):
                return self.deployments[name]
        for beginning, name in self._long.items():
            if pod.startswith(beginning) and _LONG_SUFFIX.fullmatch(pod, len(beginning)):
                return self.deployments[name]
        return None

    def render(
        self, template: str, label: str = "deployment", *, window: str, entries: tuple[str, ...] | None = None
    ) -> str:
        """The template with its placeholders filled.

        Args:
            template: PromQL with placeholders.
            label: label of the query, which decides what `{services}` are.
            window: a Prometheus duration.
            entries: services that `{workloads}` is narrowed to; None: all.
        """
        return self._render(template, label, window, entries, tuple(self.strangers))

    def _rendered(
        self,
        template: str,
        label: str,
        window: str,
        entries: tuple[str, ...] | None,
        strangers: tuple[str, ...],
    ) -> str:
        workloads = [
            name for name, service in self.workloads.items() if entries is None or service in entries
        ]
        # Of names that are longer than what pods carry, the whole has to be put back.
        cut = {beginning: name for beginning, name in self._long.items() if beginning != name}
        values = {
            "matchers": self._matchers,
            "namespace": quoted(self.namespace),
            "window": window,
            "seconds": f"{seconds(window):g}",
            "deployments": alternatives(self.deployments),
            "containers": alternatives(self.containers),
            "workloads": alternatives(workloads),
            "callers": alternatives(self.workloads),
            "pods": self._pod_pattern(alternatives),
            "strangers": alternatives(strangers),
            "whole(": "label_replace(" * len(cut),
            ")whole": "".join(
                f', "deployment", "{name}", "deployment", "{quoted(re.escape(beginning))}")'
                for beginning, name in cut.items()
            ),
        }
        plural = {"container": "containers", "pod": "pods"}.get(
            label, "workloads" if "workload" in label else "deployments"
        )
        values["services"] = values[plural]
        return re.sub(r"\{([\w()]+)\}", lambda found: values.get(found[1], found[0]), template)


def alternatives(names: Iterable[str]) -> str:
    """`a|b|c` with the characters of regular expressions escaped, to stand inside double quotes of PromQL."""
    return quoted("|".join(re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", name) for name in names))


def quoted(text: str) -> str:
    """`text` as it stands inside double quotes of PromQL."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def seconds(window: str) -> float:
    """Seconds of a Prometheus duration such as `1m` or `1m30s`."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"([0-9]+)(ms|[smhd])", window))


def duration(span_seconds: float) -> str:
    """A span as a Prometheus duration, to the millisecond."""
    return f"{round(span_seconds * 1000)}ms"
