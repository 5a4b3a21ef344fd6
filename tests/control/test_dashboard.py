"""Every query of the dashboard and of the alerts, asked of a real Prometheus about a recorded half hour."""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from helpers.fakes import FakeCluster, make_settings
from helpers.live_shop import prometheus_or_skip
from helpers.moments import START
from helpers.paths import ROOT
from helpers.seer import Seer
from prometheus_client.parser import text_string_to_metric_families

from deepscaler.cluster import Workload
from deepscaler.control.controller import Controller
from deepscaler.control.self_metrics import exposition
from deepscaler.control.watch import Watch
from deepscaler.panel import MetricPanel
from deepscaler.upstream import Upstream
from testbed.cluster.exposition import Series
from testbed.live import prometheus_server
from testbed.live.dashboard import panels as pictured

DEPLOY = ROOT / "deploy"
SECONDS = 1800.0
VARIABLES = {"$__rate_interval": "2m", "$__range": "20m", "$instance": ".*", "$service": "web"}


class Troubled(FakeCluster):
    """All that a panel shows happens: partial answers, a refusal, an edit, no metrics, no API for a while."""

    def metrics(self, start: float, end: float, step: float) -> MetricPanel:
        upstream, age = self.upstreams["prometheus"], self.clock - START
        with upstream.timed():
            found = super().metrics(start, end, step)
        upstream.answered(503 if 900 <= age < 960 else 200)
        return replace(found, partial=bool(600 <= age < 660))

    def workloads(self) -> Sequence[Workload]:
        if 1200 <= self.clock - START < 1215:
            self.replicas["db"] = 3
        return super().workloads()


def recorded() -> list[Series]:
    """What Prometheus would have scraped after each tick."""
    cluster = Troubled(
        upstreams={"prometheus": Upstream()},
        metrics_down=(START + 1000, START + 1060),
        api_down=(START + 1300, START + 1330),
        refuse={"api": "403 Forbidden"},
        values={("web", "req"): lambda time: 10.0 + 3.0 * np.sin(time / 300)},
        unready={"db": 2},
    )
    settings = make_settings()
    policy = Seer(lambda _now, _service: None)
    controller = Controller(cluster, policy, settings)
    watch = Watch(controller, settings)
    found: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = defaultdict(list)

    def scrape(now: float) -> None:
        for family in text_string_to_metric_families(exposition(watch).decode()):
            for sample in family.samples:
                labels = {"__name__": sample.name, "instance": "shop:9464", **sample.labels}
                found[tuple(sorted(labels.items()))].append((now, sample.value))

    controller.watchers.append(lambda tick: scrape(tick.now + 1.0))
    controller.watchers.append(lambda tick: setattr(policy, "wants", 6.0 + (tick.now - START) // 300 % 2))
    controller.run(SECONDS)
    return [Series(labels, *map(np.array, zip(*samples, strict=True))) for labels, samples in found.items()]


@pytest.fixture(scope="module")
def recording() -> list[Series]:
    return recorded()


@pytest.fixture(scope="module")
def prometheus(recording: list[Series]) -> Iterator[str]:
    with prometheus_or_skip() as server:
        prometheus_server.remote_write(server.url, recording)
        yield server.url


def ask(url: str, query: str) -> list[dict[str, Any]]:
    form = {"query": query, "start": START + 300, "end": START + SECONDS, "step": 15}
    answer = requests.post(f"{url}/api/v1/query_range", data=form, timeout=30).json()
    assert answer["status"] == "success", (query, answer)
    return list(answer["data"]["result"])


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def alerts() -> list[dict[str, Any]]:
    [group] = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return list(group["rules"])


def filled(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query, query
    return query


def test_every_query_of_the_dashboard_finds_numbers(prometheus: str) -> None:
    empty = []
    for panel in panels():
        for target in panel["targets"]:
            values = [
                float(value)
                for series in ask(prometheus, filled(target["expr"]))
                for _, value in series["values"]
            ]
            if not np.isfinite(values).any():
                empty.append((panel["title"], target["expr"]))
    assert len(panels()) > 20 and not empty


def test_panels_for_pictures_have_the_lines_and_names_of_the_dashboard(prometheus: str) -> None:
    found = {panel.title: panel for panel in pictured(prometheus, START + 300, START + SECONDS)}
    drawn = [panel["title"] for panel in panels() if panel["type"] == "timeseries"]
    assert list(found) == [
        title.replace("$service", "frontend") for title in drawn if "$service" not in title
    ]
    weights = found["Who decides"].lines
    assert sum(values[-1] for _, values in weights.values()) == pytest.approx(1.0)
    assert all(label and "{{" not in label for label in weights)


def test_the_panels_say_what_happened(prometheus: str) -> None:
    """Numbers that are known on paper: what was refused, the ticks that failed, the weights, who was held."""

    def newest(query: str) -> list[float]:
        return sorted(float(series["values"][-1][1]) for series in ask(prometheus, query))

    assert newest("sum(deepscaler_source_weight)") == [1.0]
    assert newest("deepscaler_budget_shortage_price / deepscaler_budget_prior_shortage_price") == [1.3]
    assert newest("deepscaler_failed_ticks_total") == [2.0]
    assert newest("deepscaler_foreign_edits_total") == [1.0]
    assert newest('increase(deepscaler_forecasts_matured_total{source="all",lead="300"}[10m])')[0] > 30
    assert max(newest("max_over_time(deepscaler_restricted{reason='write_failed'}[30m])")) == 1.0
    assert newest("deepscaler_partial_answers_total") == [4.0]


def test_every_alert_is_a_query_that_prometheus_takes(prometheus: str) -> None:
    for rule in alerts():
        ask(prometheus, rule["expr"])


def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    """`promtool test rules`: each alert is in alerts_test.yaml."""
    with prometheus_or_skip():
        tool = prometheus_server.promtool()
    names = re.findall(r"- alert: (\w+)", (DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))
    cases = (DEPLOY / "alerts_test.yaml").read_text(encoding="utf-8")
    assert len(names) > 10 and all(re.search(rf"\b{name}\b", cases) for name in names)
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run(
            [tool, *command], cwd=DEPLOY, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr


def test_what_the_dashboard_and_the_alerts_ask_for_is_what_the_controller_tells(
    recording: list[Series],
) -> None:
    told = {dict(series.labels)["__name__"] for series in recording}
    texts = [target["expr"] for panel in panels() for target in panel["targets"]]
    texts += [rule["expr"] for rule in alerts()]
    asked = {name for text in texts for name in re.findall(r"deepscaler_[a-z_]+[a-z]", text)}
    assert len(asked) > 25 and asked <= told
