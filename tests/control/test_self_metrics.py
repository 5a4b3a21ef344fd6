"""The controller's own metrics: what they count, that promtool finds no fault, and that they are served."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import requests
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings
from helpers.needs import had
from helpers.paths import ROOT
from helpers.seer import BUDGET, Seer, watched
from prometheus_client.parser import text_string_to_metric_families

from deepscaler.adapters.web import Web
from deepscaler.control import self_metrics
from deepscaler.control.controller import Controller
from deepscaler.control.drift import Drift
from deepscaler.control.health import Health
from deepscaler.control.renewal import Renewal
from deepscaler.control.self_metrics import exposition
from deepscaler.control.serving import serving
from deepscaler.control.watch import Watch
from deepscaler.upstream import Upstream
from testbed.live import prometheus_server


def values(watch: Watch) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Sample name -> labels -> value, as Prometheus's own parser reads them."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(exposition(watch).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def one(found: Mapping[tuple[tuple[str, str], ...], float], **labels: str) -> float:
    return found[tuple(sorted(labels.items()))]


def test_the_controllers_metrics_are_served():
    settings = make_settings(metrics_port=0)
    policy = ScriptedPolicy(lambda _time, _service: 6.0)
    controller = Controller(FakeCluster(), policy, settings, leading=lambda: False)
    with serving(controller, settings) as port:
        controller.tick()
        page = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5)
        assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).text == "ok\n"
        assert requests.get(f"http://127.0.0.1:{port}/nope", timeout=5).status_code == 404
    assert page.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = page.text.splitlines()
    assert 'deepscaler_info{app="shop",app_namespace="default",mode="standby",policy="scripted"} 1.0' in lines
    assert "deepscaler_leader 0.0" in lines and "deepscaler_ticks_total 1.0" in lines
    assert 'deepscaler_target_replicas{service="web"} 6.0' in lines
    with serving(controller, make_settings()) as off:
        assert off is None


def test_decisions_are_counted_by_what_they_do_and_why():
    _, _, watch = watched(60.0, guard_rails={"max_replicas": 5})
    found = values(watch)
    counts = found["deepscaler_decisions_total"]
    assert one(counts, action="up", reason="max_replicas") == 3
    assert one(counts, action="keep", reason="max_replicas") == 9 and sum(counts.values()) == 12
    assert one(found["deepscaler_restricted"], reason="max_replicas") == 3
    for name, wanted in {"proposed": 6, "floor": 5, "target": 5, "applied": 5, "current": 5}.items():
        assert one(found[f"deepscaler_{name}_replicas"], service="api") == wanted


def test_replicas_that_lack_and_that_idle_are_summed_over_time():
    """Four are ready at the first tick, where five are needed; from the second on there are six."""
    _, _, watch = watched(60.0)
    found = values(watch)
    assert one(found["deepscaler_deficient_replica_seconds_total"], service="web") == 0.0
    assert one(found["deepscaler_excess_replica_seconds_total"], service="web") == 3 * 15.0
    cluster = FakeCluster(unready={"web": 3})
    settings = make_settings()
    slow = Controller(cluster, Seer(lambda _now, _service: None), settings)
    watch = Watch(slow, settings)
    slow.run(60.0)
    assert one(values(watch)["deepscaler_deficient_replica_seconds_total"], service="web") == 3 * 2 * 15.0


def test_forecasts_are_judged_when_their_time_has_come():
    """Ten requests per second come, always: the sources err by 0 and 5, all of them together by 2."""
    _, _, watch = watched()
    found = values(watch)
    ticks = found["deepscaler_ticks_total"][()]
    for lead, due in {"60": ticks - 4, "300": ticks - 20, "600": ticks - 40}.items():
        for source, error in {"all": 2.0, "season": 0.0, "network": 5.0}.items():
            assert one(found["deepscaler_forecasts_matured_total"], source=source, lead=lead) == due
            errors = one(found["deepscaler_forecast_absolute_error_total"], source=source, lead=lead)
            assert errors == pytest.approx(error * due)
        assert one(found["deepscaler_forecasts_inside_band_total"], lead=lead) == due
    assert one(found["deepscaler_forecast_requests_per_second"], lead="300", edge="high") == 13.0
    assert found["deepscaler_source_weight"] == {
        (("source", "season"),): 0.75,
        (("source", "network"),): 0.25,
    }


def test_the_model_the_season_and_the_budget_are_told_where_there_are_any():
    _, _, watch = watched(20.0)
    found = values(watch)
    assert (
        one(found["deepscaler_model_trained_until_timestamp_seconds"], bundle_sha256="a1b2")
        == 1_767_830_400.0
    )
    assert found["deepscaler_season_seconds"] == {(): 720.0}
    assert one(found["deepscaler_way_cost_seconds"], way="network") == 8100.0
    assert one(found["deepscaler_budget_consumed"], unit=BUDGET) == 12.0
    assert found["deepscaler_budget_shortage_price"] == {(): 130.0}
    assert found["deepscaler_budget_prior_shortage_price"] == {(): 100.0}
    assert found["deepscaler_budget_spending_ratio"] == {(): 1.2}
    assert one(found["deepscaler_budget_standing"], standing="kept") == 1.0
    settings = make_settings()
    plain = Controller(FakeCluster(), ScriptedPolicy(lambda _now, _service: 6.0), settings)
    watch = Watch(plain, settings)
    plain.tick()
    assert not {"deepscaler_season_seconds", "deepscaler_budget_asked", "deepscaler_source_weight"} & set(
        values(watch)
    )


def test_ages_of_the_input_are_told_and_a_service_without_any_has_infinity():
    cluster, watch = FakeCluster(values={("db", "cpu"): float("nan")}), None
    settings = make_settings()
    controller = Controller(cluster, ScriptedPolicy(lambda _now, _service: 6.0), settings)
    watch = Watch(controller, settings)
    controller.tick()
    ages = values(watch)["deepscaler_input_age_seconds"]
    assert one(ages, service="web") == 0.0 and one(ages, service="db") == float("inf")


def test_requests_are_timed_and_their_errors_counted_by_kind():
    upstream = Upstream()
    web = Web(upstream=upstream)
    with pytest.raises(requests.ConnectionError):
        web.send("GET", "http://127.0.0.1:9/", 5.0)
    upstream.answered(200)
    upstream.answered(503)
    with pytest.raises(TimeoutError), upstream.timed():
        raise TimeoutError("timed out")
    assert upstream.requests().errors == {"connection": 1, "http_503": 1, "timeout": 1}
    assert sum(upstream.requests().buckets) == 2
    settings = make_settings()
    controller = Controller(
        FakeCluster(upstreams={"prometheus": upstream}), ScriptedPolicy(lambda *_: 6.0), settings
    )
    found = values(Watch(controller, settings))
    assert one(found["deepscaler_upstream_errors_total"], source="prometheus", error="timeout") == 1
    assert one(found["deepscaler_upstream_request_seconds_count"], source="prometheus") == 2


def test_a_tick_counts_once_what_it_decided_can_be_read():
    controller = Controller(FakeCluster(), ScriptedPolicy(lambda *_: 6.0), make_settings())
    pages: list[dict[str, dict[tuple[tuple[str, str], ...], float]]] = []
    controller.watchers.append(lambda _tick: pages.append(values(watch)))  # as if asked while a tick ends
    watch = Watch(controller, make_settings())
    for _ in range(2):
        controller.tick()
    pages.append(values(watch))
    told = [int(one(page["deepscaler_ticks_total"])) for page in pages]
    decided = [sum(page.get("deepscaler_decisions_total", {}).values()) for page in pages]
    assert told == [0, 1, 2] and decided == [0, 3, 6]


def test_a_watcher_that_fails_costs_no_tick(caplog):
    controller = Controller(FakeCluster(), ScriptedPolicy(lambda _now, _service: 6.0), make_settings())
    controller.watchers.append(lambda _tick: 1 / 0)
    controller.run(60.0)
    assert controller.statistics.ticks == 4 and controller.failed_ticks == 0
    assert "a watcher of the ticks failed" in caplog.text


def test_promtool_finds_nothing_to_mend():
    tool = had(prometheus_server.promtool)
    cluster, _, watch = watched()
    cluster.upstreams["prometheus"].failed("timeout")
    cluster.api_failures[403] = 2
    done = subprocess.run(
        [tool, "check", "metrics"], input=exposition(watch), capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0 and done.stdout + done.stderr == b"", done.stderr.decode()


def metrics_table() -> str:
    """All families as docs/operator.md lists them: name, kind, labels and what it says.

    They are those of a controller that has everything: a bundle that is watched, and a day that was judged.
    """
    cluster, policy, watch = watched()
    cluster.upstreams["prometheus"].failed("timeout")
    with cluster.upstreams["prometheus"].timed():
        cluster.api_failures[403] = 2
    watch.controller.policy.wants = 40.0
    watch.controller.run(15.0)
    watch.controller._renewal = Renewal(policy, Path("AdapGLQ.pt"), lambda: policy, 0.0)
    watch.controller.watch_health()
    watch.controller._health.health = Health(
        error=0.4, usual_error=0.3, drift=Drift(0.3, "req", ("web",)), usual_drift=0.1
    )
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for family in text_string_to_metric_families(exposition(watch).decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
        names = ", ".join(f"`{label}`" for label in labels)
        lines.append(f"| `{name}` | {family.type} | {names} | {family.documentation} |")
    return "\n".join(lines)


def test_the_page_for_operators_lists_every_metric():
    page = (ROOT / "docs" / "operator.md").read_text(encoding="utf-8")
    table = metrics_table()
    assert table in page, "write this table into docs/operator.md"
    source = Path(self_metrics.__file__).read_text(encoding="utf-8")
    made = re.findall(r'_(?:gauge|counter)\(\s*"(\w+)"|HistogramMetricFamily\(\s*f"{PREFIX}(\w+)"', source)
    names = [gauge or histogram for gauge, histogram in made]
    assert len(names) > 30
    assert [name for name in names if not re.search(rf"`deepscaler_{name}(_total)?`", table)] == []
