"""A shop whose load has a peak, on the emulated API in virtual time: pods start, HPAs act, requests count."""

from dataclasses import dataclass, field

from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.cluster import Pod
from deepscaler.control.controller import Controller
from helpers.kube_shop import T0, Emulated, make
from testbed.kubernetes_api import PodState
from testbed.live.autoscaling import HpaController

BOOT, TICK, REQUEST = 45.0, 15.0, 0.1
HPA = "autoscaling/horizontalpodautoscalers"


def hpa(name="web", low=2, high=12, **metadata):
    """An autoscaler that keeps the pods of a Deployment at 70 % of their request."""
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, **{"namespace": "shop", **metadata}},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": name, "apiVersion": "apps/v1"},
            "minReplicas": low,
            "maxReplicas": high,
            "metrics": [{"type": "Resource", "resource": cpu}],
        },
    }


@dataclass
class Clock:
    now: float = T0

    def __call__(self):
        return self.now


@dataclass
class Peak:
    """`web` needs 0.1 cores per pod and idles at two pods' worth; the peak takes ten, from `at` to `end`."""

    at: float = 150.0
    end: float = 450.0
    usual: float = 0.12
    high: float = 0.65
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self):
        self.world = Emulated(clock=self.clock)
        self.server = self.world.server
        self.controller = HpaController(self.world.store, self.measured, self.clock)
        self.born = {name: [T0 - 600.0] * 2 for name in ("web", "api")}
        self.short = 0.0  # replica-seconds of the peak that were missing

    def cores(self, now):
        return self.high if self.at <= now - T0 < self.end else self.usual

    def needed(self, now):
        """Replicas that keep the pods at 70 %."""
        return -(-self.cores(now) // (0.7 * REQUEST))

    def measured(self, namespace, name):
        ready = [born for born in self.born[name] if born + BOOT <= self.clock.now]
        used = (self.cores(self.clock.now) if name == "web" else 0.1) / max(len(ready), 1)
        return [
            Pod(
                service=name,
                name=f"{name}-{at}",
                phase="Running",
                deleting=False,
                start_time=born,
                ready=born + BOOT <= self.clock.now,
                ready_since=born + BOOT if born + BOOT <= self.clock.now else born,
                usage_cores=used if born + BOOT + 15 <= self.clock.now else None,
                usage_time=self.clock.now,
                usage_window_seconds=15.0,
                cpu_request_cores=REQUEST,
            )
            for at, born in enumerate(self.born[name])
        ]

    def step(self, seconds=TICK):
        """The kubelets and the HPA's sync; then time passes."""
        for name, replicas in self.world.store.replicas("shop").items():
            kept = self.born[name][:replicas]
            self.born[name] = kept + [self.clock.now] * (replicas - len(kept))
        before = len(self.world.methods)
        self.controller.sync()
        del self.world.methods[before:]  # the autoscaler's own
        for name, born in self.born.items():
            states = [
                PodState(
                    f"{name}-5d9c5b8f6d-{at:05d}",
                    each,
                    each + BOOT if each + BOOT <= self.clock.now else None,
                )
                for at, each in enumerate(born)
            ]
            self.world.store.sync_pods("shop", name, states)
        ready = sum(each + BOOT <= self.clock.now for each in self.born["web"])
        self.short += max(self.needed(self.clock.now) - ready, 0) * seconds
        self.clock.now += seconds

    # ------------------------------------------------------------------------------------------------- asking
    @property
    def object(self):
        return self.world.store.peek(HPA, "shop", "web")

    @property
    def minimum(self):
        return self.object["spec"]["minReplicas"]

    @property
    def advice(self):
        return (self.object["metadata"].get("annotations") or {}).get("deepscaler.io/advice")

    @property
    def replicas(self):
        return self.world.store.replicas("shop")["web"]

    @property
    def patches(self):
        """Writes to the autoscaler."""
        return [each for each in self.world.writes if "horizontalpodautoscalers" in each]

    def cluster(self, tmp_path, **scale):
        settings = make(self.world, tmp_path, scale={"mode": "advise", **scale}, lease={"enabled": False})
        return KubernetesCluster(settings, clock=self.clock, steady=self.clock), settings

    def advisor(self, tmp_path, policy, **scale):
        """A controller beside the autoscaler."""
        cluster, settings = self.cluster(tmp_path, **scale)
        return Controller(cluster, policy, settings)
