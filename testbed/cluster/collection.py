"""A virtual cluster of these settings, to scale or to collect telemetry from."""

from __future__ import annotations

from tqdm import tqdm

from deepscaler.artefacts import utc_seconds
from deepscaler.errors import ClusterError
from deepscaler.settings import Settings
from testbed.cluster.virtual import VirtualCluster


def connect(settings: Settings, seed: int | None = None) -> VirtualCluster:
    """The virtual cluster of these settings, its clock at `testbed.start`."""
    return VirtualCluster(settings, seed=seed)


def collect(settings: Settings, start: float, end: float) -> VirtualCluster:
    """A virtual cluster observed up to `end` under the exploring policy, re-simulated from `testbed.start`.

    Raises:
        ClusterError: `start` lies before `testbed.start`.
    """
    from deepscaler.control.controller import Controller
    from deepscaler.policies.registry import make_policy

    origin = utc_seconds(settings.testbed.start)
    if start < origin:
        raise ClusterError(
            f"collect.start lies {origin - start:g} s before testbed.start; the testbed knows nothing earlier"
        )
    longer = settings.testbed.model_copy(update={"duration": max(end - origin, settings.testbed.load.step)})
    settings = settings.model_copy(update={"testbed": longer})
    cluster = VirtualCluster(settings)
    controller = Controller(cluster, make_policy("explore", settings), settings)
    with tqdm(
        total=round((end - origin) / 3600, 2), desc="simulate", unit="h", disable=None, leave=False
    ) as bar:
        moment = origin
        while moment < end:
            moment = min(moment + 3600.0, end)
            controller.run(duration=moment - cluster.now())
            bar.update(round((moment - origin) / 3600 - bar.n, 2))
    return cluster
