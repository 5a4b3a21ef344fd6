"""A recorded evening: what its Events say."""

from deepscaler.control.controller import Controller
from deepscaler.policies.registry import make_policy
from testbed.experiments import evening
from testbed.kubernetes_api import KubernetesApi, KubernetesStore


def test_events_of_an_evening_come_back_from_the_api_in_the_order_of_time(tmp_path):
    arguments = evening.build_parser().parse_args(["--seconds", "600", "--policy", "hpa_70"])
    settings = evening._settings(arguments)
    store = KubernetesStore(controllers=False)
    with KubernetesApi(store) as api:
        cluster = evening.ToldCluster(settings, store, api, tmp_path)
        Controller(cluster, make_policy("hpa_70", settings), settings).run(600.0)
        lines = evening.events(cluster.asking, settings.app.namespace, cluster.now())
    written = [line.split()[0] for line in lines[2:]]
    assert len(written) > 3 and written == sorted(written) and min(written) >= "17:00:00"
    assert "Events of boutique in this evening" in lines[0]
    assert any("ScaledUp" in line and "deployment/frontend" in line for line in lines)
