"""Runs with one policy in charge and another in its shadow: both decide, one of them writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deepscaler.control.controller import Controller
from deepscaler.policies.registry import make_policy
from deepscaler.runs import Run
from deepscaler.settings import Settings
from testbed.cluster.virtual import VirtualCluster


@dataclass(frozen=True, eq=False)
class Watched:
    """A cluster and those who decide on it, until its end.

    Attributes:
        cluster: the clock stands at the start.
        controllers: at the same moment they tick in this order.
    """

    cluster: VirtualCluster
    controllers: Sequence[Controller]

    def go_on(self, seconds: float) -> None:
        """Let everybody tick for so long."""
        start = self.cluster.now()
        due = [start] * len(self.controllers)
        while min(due) < start + seconds - 1e-6:
            moment = min(due)
            self.cluster.sleep_until(moment)
            for place, controller in enumerate(self.controllers):
                if due[place] <= moment + 1e-6:
                    controller.tick()
                    due[place] = moment + controller.policy.period_seconds
        self.cluster.sleep_until(start + seconds)


def shadow_run(settings: Settings, acting: str, shadow: str | None, seed: int) -> Run:
    """A run in virtual time in which `acting` scales; it keeps the decisions of `shadow`, if there is one.

    Args:
        settings: of the run; `testbed.load` and `testbed.duration` count, and `testbed.history` doesn't.
        acting: the policy that writes.
        shadow: the policy that decides beside it and writes nothing.
        seed: of the load and of all that is random.
    """
    cluster = VirtualCluster(settings, seed=seed)
    return follow(cluster, settings, acting, shadow, seed, settings.testbed.duration)


def follow(
    cluster: VirtualCluster, settings: Settings, acting: str, shadow: str | None, seed: int, seconds: float
) -> Run:
    """The same on a cluster that is there already."""
    controllers = [Controller(cluster, make_policy(acting, settings, seed=seed), settings)]
    if shadow is not None:
        scale = settings.scale.model_copy(update={"dry_run": True, "mode": "shadow", "modes": {}})
        dry = settings.model_copy(update={"scale": scale})
        controllers.insert(0, Controller(cluster, make_policy(shadow, dry, seed=seed), dry))
    start, step = cluster.now(), settings.collect.step
    earlier = controllers[0].policy.history_seconds if shadow is not None else 0.0
    Watched(cluster, controllers).go_on(seconds)
    kept = controllers[0]
    info = {
        **kept.describe(seed, start),
        "shape": settings.testbed.load.shape,
        "duration_seconds": seconds,
        **({"acting": acting} if shadow is not None else {}),
    }
    return Run(
        info=info,
        endpoints=cluster.latencies(start, cluster.now(), step),
        decisions=kept.recorder.decisions(),
        pods=cluster.pod_history(start, cluster.now()),
        panel=cluster.metrics(start - earlier + step, cluster.now(), step).since_first_sample(),
    )
