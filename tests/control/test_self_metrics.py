"""The controller's own metrics over HTTP."""

import requests
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings

from deepscaler.control.controller import Controller
from deepscaler.control.self_metrics import exposition, serving_metrics


def test_the_controllers_metrics_are_served():
    settings = make_settings(metrics_port=0)
    controller = Controller(
        FakeCluster(), ScriptedPolicy(lambda _time, _service: 6.0), settings, leading=lambda: False
    )
    controller.tick()
    with serving_metrics(controller, settings) as port:
        page = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).text == "ok\n"
        assert requests.get(f"http://127.0.0.1:{port}/nope", timeout=5).status_code == 404
    lines = page.splitlines()
    assert (
        'deepscaler_info{app="shop",policy="scripted",mode="standby"} 1' in lines
        and "deepscaler_leader 0" in lines
    )
    assert 'deepscaler_target_replicas{service="web"} 6' in lines and "deepscaler_ticks_total 1" in lines
    assert page == exposition(controller, "scripted", "shop")
    with serving_metrics(controller, make_settings()) as off:
        assert off is None
