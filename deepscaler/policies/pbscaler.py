"""The policy `pbscaler`: finds the bottlenecks behind slow calls and scales only these.

Source: PBScaler (Xie et al., IEEE TSC 2024) and its published repository, whose parameters these are.
Differs: telemetry has no p90 per call, so it is told from the callee's mean response; the SLO is the bound
`sla`, and the bounds on a service's pods (theirs are 1 and 8 for all) are those of the guard rails. The
demand fit stands in for the classifier that is trained on runs, and all replicas of the two bottlenecks are
weighed where theirs searches genetically.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from deepscaler.labels.demand import DemandModel
from deepscaler.panel import MetricPanel
from deepscaler.policies.base import Observation, Policy, Proposal, Reason
from deepscaler.policies.calls import P90_OVER_MEAN, RECENT_SECONDS, Calls, newest_means, newest_p90
from deepscaler.statistics import welch_p_below

Array = NDArray[np.float64]
PERIOD = 15.0
WASTE_PERIOD = 120.0
BUFFER = 0.2
"""α: a call is abnormal above 1 + α/2 times the SLO."""
WASTE_SHARE = 0.9
"""β: a rate has fallen if it is below this share of what it was."""
CONFIDENCE = 0.05
BEFORE_SECONDS = 300.0
"""The last minute is compared with what lies before it, up to so long ago."""
DAMPING = 0.85
BOTTLENECKS = 2


class PbScalerPolicy(Policy):
    """Adds replicas to the two likeliest bottlenecks of slow calls, and takes one away where rates fall.

    Args:
        model: the demand fit.
        calls: who calls whom.
        bounds: service -> its fewest and most replicas.
    """

    name = "pbscaler"
    guarded = False
    period_seconds = PERIOD
    history_seconds = BEFORE_SECONDS

    def __init__(self, model: DemandModel, calls: Calls, bounds: Callable[[str], tuple[int, int]]) -> None:
        self._model, self._calls, self._bounds = model, calls, bounds
        self._looked_for_waste = -math.inf

    def decide(self, observation: Observation) -> Mapping[str, Proposal]:
        """New replicas of the bottlenecks or of what is wasted; all others stay."""
        panel = observation.panel
        replicas = {item.service: item.replicas for item in observation.workloads}
        if not len(panel) or not {"req", "res"} <= set(panel.features):
            return {service: Proposal(None, Reason.HELD_MISSING) for service in replicas}
        abnormal = self._abnormal(panel)
        choices: dict[str, range] = {}
        if abnormal:
            ranked = bottlenecks(abnormal, self._calls.edges, panel, self._model.sla_seconds)
            most = {name: self._bounds(name)[1] for name in ranked if name in replicas}
            free = [name for name in most if replicas[name] + 1 < most[name]]
            choices = {name: range(replicas[name] + 1, most[name] + 1) for name in free[:BOTTLENECKS]}
        elif observation.steady - self._looked_for_waste >= WASTE_PERIOD - 1e-6:
            self._looked_for_waste = observation.steady
            fallen = [name for name in wasted(panel) if replicas.get(name, 0) > self._bounds(name)[0]]
            choices = {name: range(replicas[name] - 1, replicas[name] + 1) for name in fallen}
        chosen = choose(self._model, newest_means(panel, "req"), replicas, choices)
        return {name: Proposal(float(value), Reason.RULE) for name, value in chosen.items()}

    def _abnormal(self, panel: MetricPanel) -> set[str]:
        """The callees of abnormal calls; a request from outside is a call, too."""
        bound = self._model.sla_seconds * (1 + BUFFER / 2)
        called = {callee for _, callee in self._calls.edges} | set(self._model.entries)
        found = newest_p90(panel)
        return {name for name in called if found.get(name, 0.0) > bound}


def bottlenecks(
    abnormal: set[str], edges: Sequence[tuple[str, str]], panel: MetricPanel, slo: float
) -> list[str]:
    """The services of abnormal calls, the likeliest bottleneck first, by personalised PageRank.

    An edge weighs as much as the caller's response correlates with any metric of the callee. A service is
    preferred by its topology potential: its slow samples, and those of its callers weighted by e^(-d²).

    Args:
        abnormal: callees of the abnormal calls.
        edges: pairs of caller and callee.
        panel: the metrics; the last minute counts.
        slo: bound on the p90 in seconds.
    """
    import networkx

    recent = panel.between(float(panel.times[-1]) - RECENT_SECONDS, float(panel.times[-1]))
    slow = {
        name: int((P90_OVER_MEAN * recent.feature("res")[:, column] > slo).sum())
        for column, name in enumerate(panel.services)
    }
    graph = networkx.DiGraph()
    graph.add_nodes_from(sorted(abnormal))
    for caller, callee in edges:
        if callee in abnormal and caller in slow:
            graph.add_edge(caller, callee, weight=_correlation(recent, caller, callee))
    preference = {node: _potential(graph, node, slow) for node in graph}
    if len(graph) == 1 or not any(preference.values()):
        return sorted(graph)
    ranks = networkx.pagerank(graph, alpha=DAMPING, personalization=preference, max_iter=1000)
    return sorted(ranks, key=lambda name: (-ranks[name], name))


def _potential(graph: object, node: str, slow: Mapping[str, int]) -> float:
    """Slow samples of a service, and of its callers at distances 1 and 2."""
    before = list(graph.predecessors(node))  # type: ignore[attr-defined]
    further = [name for one in before for name in graph.predecessors(one) if name != node]  # type: ignore[attr-defined]
    parts = ((0, [node]), (1, before), (2, further))
    return sum(math.exp(-(distance**2)) * slow.get(name, 0) for distance, names in parts for name in names)


def _correlation(recent: MetricPanel, caller: str, callee: str) -> float:
    """Largest |correlation| of the caller's response with a metric of the callee; 0 where nothing moves."""
    response = recent.feature("res")[:, recent.services.index(caller)].astype(np.float64)
    found = 0.0
    for feature in recent.features:
        other = recent.feature(feature)[:, recent.services.index(callee)].astype(np.float64)
        both = np.isfinite(response) & np.isfinite(other)
        if both.sum() > 1 and np.ptp(response[both]) > 0 and np.ptp(other[both]) > 0:
            found = max(found, abs(float(np.corrcoef(response[both], other[both])[0, 1])))
    return found


def wasted(panel: MetricPanel) -> list[str]:
    """The services whose last minute's rate is below 0.9 of the four minutes before, by Welch's test."""
    ages = panel.times[-1] - panel.times
    now, before = ages < RECENT_SECONDS, (ages >= RECENT_SECONDS) & (ages < BEFORE_SECONDS)
    rates = panel.feature("req").astype(np.float64)
    return [
        name
        for column, name in enumerate(panel.services)
        if welch_p_below(rates[now, column], WASTE_SHARE * rates[before, column]) <= CONFIDENCE
    ]


def choose(
    model: DemandModel,
    rates: Mapping[str, float],
    replicas: Mapping[str, int],
    choices: Mapping[str, Sequence[int]],
) -> dict[str, int]:
    """The replicas that keep the SLO with the fewest pods; if none do, the fewest pods.

    The published reward adds 1 for a kept SLO and takes the share of all pods that are used. Where some pods
    of a service keep the SLO, more do, too, so that of the last service the fewest are found by bisection.

    Args:
        model: says whether the SLO is kept.
        rates: requests per second.
        replicas: those ordered so far.
        choices: what may be ordered of the services that are scaled, rising; all others stay.
    """
    if not choices:
        return dict(replicas)
    *names, last = choices
    best, least = {name: options[0] for name, options in choices.items()}, math.inf
    for combination in product(*(choices[name] for name in names)):
        tried = {**replicas, **dict(zip(names, combination, strict=True))}

        def kept(count: int, others: Mapping[str, int] = tried) -> bool:
            return meets(model, rates, {**others, last: count})

        at = bisect_left(choices[last], True, key=kept)
        if at < len(choices[last]) and sum(combination) + choices[last][at] < least:
            least = sum(combination) + choices[last][at]
            best = {**dict(zip(names, combination, strict=True)), last: choices[last][at]}
    return {**replicas, **best}


def meets(model: DemandModel, rates: Mapping[str, float], replicas: Mapping[str, int]) -> bool:
    """Whether the fit says that these replicas keep the SLA; without a response fit, by its utilisation."""
    served = np.array([rates.get(name, np.nan) for name in model.services])
    pods = np.array([float(replicas.get(name, 1)) for name in model.services])
    used = model.idle_cores + model.demand_seconds * served / np.maximum(pods, 1.0)
    if np.nanmax(used / model.limit_cores, initial=0.0) > 1.0:
        return False  # beyond capacity the response has no stationary mean
    response = float(model.response_at(served[None], pods[None])[0])
    if math.isnan(response):
        return bool(np.nanmax(used / model.limit_cores, initial=0.0) <= model.rho_max)
    return response <= model.sla_seconds
