"""The dashboard's panels over a recorded time, asked of a real Prometheus."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import requests
from prometheus_client.parser import text_string_to_metric_families

from deepscaler.control.self_metrics import exposition
from deepscaler.control.watch import Watch
from deepscaler.errors import ClusterError
from deepscaler.pictures.evening import Panel
from testbed.cluster.exposition import Series

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy" / "grafana-dashboard.json"
VARIABLES = {"$__rate_interval": "2m", "$__range": "2h", "$instance": ".*", "$service": "frontend"}
"""What Grafana would fill in."""
SCRAPE_SECONDS = 30.0
Scraped = dict[tuple[tuple[str, str], ...], list[tuple[float, float]]]
"""Labels -> times in seconds since the epoch, and values."""


def scraping(watch: Watch) -> Scraped:
    """What a Prometheus scrapes of a controller from now on, while it runs."""
    found: Scraped = defaultdict(list)
    last = [-np.inf]

    def scrape(now: float) -> None:
        if now - last[0] < SCRAPE_SECONDS - 1e-6:
            return
        last[0] = now
        for family in text_string_to_metric_families(exposition(watch).decode()):
            for sample in family.samples:
                labels = {"__name__": sample.name, "instance": "deepscaler:9464", **sample.labels}
                found[tuple(sorted(labels.items()))].append((now, sample.value))

    watch.controller.watchers.append(lambda tick: scrape(tick.now))
    return found


def as_series(scraped: Scraped) -> list[Series]:
    """What was scraped, ready for `prometheus_server.remote_write`."""
    return [Series(labels, *map(np.array, zip(*samples, strict=True))) for labels, samples in scraped.items()]


def panels(url: str, begin: float, end: float) -> list[Panel]:
    """The dashboard's panels over time, those without numbers left out.

    Args:
        url: of a Prometheus that has the metrics.
        begin: seconds since the epoch.
        end: likewise.

    Raises:
        ClusterError: Prometheus refuses a query.
    """
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found = []
    for one in dashboard["panels"]:
        if one["type"] == "timeseries":
            lines: dict[str, Any] = {}
            for target in one["targets"]:
                lines |= _asked(url, target, begin, end)
            unit = one.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
            found.append(Panel(_filled(one["title"]), unit, lines))
    return [panel for panel in found if panel.lines]


def _asked(url: str, target: Mapping[str, Any], begin: float, end: float) -> dict[str, Any]:
    """Label -> times and values of a query."""
    query = {"query": _filled(target["expr"]), "start": begin, "end": end, "step": 30}
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(f"{url}/api/v1/query_range", data=query, timeout=30).json()
    if answer["status"] != "success":
        raise ClusterError(f"{DASHBOARD}: {query['query']}: Prometheus says {answer.get('error')}")
    lines = {}
    for one in answer["data"]["result"]:
        label = target.get("legendFormat") or ""
        for name, value in one["metric"].items():
            label = label.replace("{{" + name + "}}", value)
        times, values = np.array(one["values"], np.float64).T
        lines[label] = (times, values)
    return lines


def _filled(text: str) -> str:
    for name, value in VARIABLES.items():
        text = text.replace(name, value)
    return text
