"""A policy that foresees the same at every tick, and a controller that is watched while it follows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from deepscaler.control.controller import Controller
from deepscaler.control.watch import Watch
from deepscaler.policies.base import Observation, Proposal, Reason
from deepscaler.policies.outlook import Budget, Learned, Outlook, Source
from deepscaler.upstream import Upstream
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings

STEP = 15.0
BUDGET = "violating minutes per month"


@dataclass
class Seer(ScriptedPolicy):
    """Foresees a load of 12 requests per second, by two sources that say 10 and 15.

    Attributes:
        why: what it says of the service `web`.
        wants: replicas of each service.
        consumed: what was used up of its budget.
    """

    why: str = "6 needed in 90 s in 40 of 48 scenarios"
    wants: float = 6.0
    consumed: float = 12.0
    made: list[float] = field(default_factory=list)

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        self.made.append(observation.now)
        names = [item.service for item in observation.workloads]
        said = {name: self.why if name == "web" else "" for name in names}
        return {
            name: Proposal(self.wants, Reason.PLAN, self.wants, 5.0, planned=True, why=said[name])
            for name in names
        }

    def outlook(self) -> Outlook:
        sources = {"season": Source(0.75, np.full(40, 10.0)), "network": Source(0.25, np.full(40, 15.0))}
        return Outlook(
            made=self.made[-1],
            step=STEP,
            load=np.tile([9.0, 12.0, 13.0], (40, 1)),
            replicas={"web": np.tile([5.0, 6.0, 7.0], (40, 1))},
            sources=sources,
            season_seconds=720.0,
            costs={"together": 7500.0, "season": 7200.0, "network": 8100.0},
            budget=Budget(30.0, self.consumed, BUDGET, 130.0, 100.0, 1.2, "kept", "kept"),
        )

    def learned(self) -> Learned:
        return Learned("a1b2", 1_767_830_400.0, (("web", "api", 20.0),), (("web", "db", 0.4),))


def watched(seconds: float = 700.0, **scale: object) -> tuple[FakeCluster, Seer, Watch]:
    """A shop that was watched for so long."""
    settings = make_settings(**scale)
    cluster = FakeCluster(upstreams={"prometheus": Upstream()})
    cluster.upstreams["prometheus"].clock_ahead = 0.0
    policy = Seer(lambda _now, _service: None)
    watch = Watch(Controller(cluster, policy, settings), settings)
    watch.controller.run(seconds)
    return cluster, policy, watch
