"""A recorded run once more in the emulated cluster: its load, its demands, and another policy in charge.

What a replay knows comes from the record alone: request counts, CPU, replicas, responses. The demands, the
balancing and the random streams of the cluster that was recorded are unknown to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepscaler.artefacts import utc_text
from deepscaler.errors import DataError
from deepscaler.evaluation.measures import evaluate_run
from deepscaler.evaluation.span import Span, replicas
from deepscaler.labels.demand import DemandModel
from deepscaler.panel import MetricPanel
from deepscaler.runs import Run
from deepscaler.settings import Settings
from deepscaler.statistics import nan_mean
from testbed.applications.application import Application
from testbed.applications.loading import load_application
from testbed.cluster.virtual import VirtualCluster
from testbed.engine.program import Program, compile_program
from testbed.engine.simulator import LoadPlan
from testbed.experiments.recorded import RecordedCluster, fitted_application, recorded_load
from testbed.experiments.shadow import follow

SEEDS = (9001, 9002, 9003, 9004)
"""Random streams of the replays; no run has these."""
BALANCING = ("least_request", "two_choices", "round_robin", "random")
"""Ways of sharing out requests that are tried on what was."""
TRIED_SECONDS = 7200.0
"""So much of the record each of them is tried on."""


@dataclass(frozen=True, eq=False)
class Replayed:
    """Measures of the replays, one entry per random stream.

    Attributes:
        was: with the recorded replicas, set when the record says.
        would: with the other policy in charge.
        balancing: how requests were shared out, see `testbed.balancing`.
    """

    was: Sequence[Mapping[str, Any]]
    would: Sequence[Mapping[str, Any]]
    balancing: str


def replay(
    run: Run, settings: Settings, model: DemandModel, policy: str, warmup: float, seeds: Sequence[int] = SEEDS
) -> Replayed:
    """Replay the recorded replicas, and the policy in charge instead.

    Args:
        run: with metrics, of an application that can be emulated.
        settings: of the run; of `testbed` only the application and the number of replicas at the start count.
        model: the demands fitted to the run.
        policy: who is in charge.
        warmup: seconds cut from the start of each run before it is measured.
        seeds: of the random streams, one pair of replays each.

    Raises:
        DataError: the record lacks what a replay needs.
        SettingsError: the application can't be emulated.
    """
    stage = _stage(run, settings, model)
    was, would = [], []
    for seed in seeds:
        was.append(evaluate_run(_with_recorded_replicas(stage.cluster(seed), run, stage.settings), warmup))
        seconds = float(stage.settings.testbed.duration)
        acted = follow(stage.cluster(seed), stage.settings, policy, None, seed, seconds)
        would.append(evaluate_run(acted, warmup))
    return Replayed(was, would, stage.settings.testbed.balancing)


@dataclass(frozen=True, eq=False)
class _Stage:
    """All that a replay needs, found in the record.

    Attributes:
        settings: of the replay.
        program: the application with the fitted demands.
        plan: the recorded load.
        record: the metrics, with what was known before the run.
        model: the fitted demands.
        replicas: those at the beginning.
    """

    settings: Settings
    program: Program
    plan: LoadPlan
    record: MetricPanel
    model: DemandModel
    replicas: Mapping[str, int]

    def cluster(self, seed: int) -> VirtualCluster:
        """A cluster at the beginning of the run."""
        return RecordedCluster(
            self.settings,
            self.record,
            self.model,
            seed=seed,
            plan=self.plan,
            program=self.program,
            replicas=self.replicas,
        )


def _stage(run: Run, settings: Settings, model: DemandModel) -> _Stage:
    """The stage on which requests are shared out as makes what was most alike."""
    if run.panel is None:
        raise DataError("metrics.csv: no such file, so what a policy saw isn't known")
    application = fitted_application(load_application(settings.testbed.application), run, model)
    program, busiest, unlike = compile_program(application), _busiest(run), {}
    for balancing in BALANCING:
        there = _staged(busiest, _with(settings, balancing=balancing), application, program, model, run.panel)
        again = _with_recorded_replicas(there.cluster(SEEDS[0]), busiest, there.settings)
        unlike[balancing] = _unlike(busiest, again)
    likeliest = _with(settings, balancing=min(unlike, key=lambda name: unlike[name]))
    return _staged(run, likeliest, application, program, model, run.panel)


def _staged(
    run: Run,
    settings: Settings,
    application: Application,
    program: Program,
    model: DemandModel,
    record: MetricPanel,
) -> _Stage:
    told = _told(settings, run)
    return _Stage(told, program, recorded_load(run, told, application), record, model, _at_first(run))


def _busiest(run: Run) -> Run:
    """The part of a run in which most was asked for, `TRIED_SECONDS` long."""
    offered = run.endpoints.groupby("time")["offered"].sum()
    times = offered.index.to_numpy(np.float64)
    rows = int(TRIED_SECONDS // np.min(np.diff(times))) if len(times) > 1 else 0
    if not 0 < rows < len(times):
        return run
    last = float(times[np.argmax(np.convolve(offered.to_numpy(), np.ones(rows), "valid")) + rows - 1])
    begin = last - TRIED_SECONDS
    part = Span(begin, begin, last, TRIED_SECONDS / rows)
    decisions = run.decisions[(run.decisions["time"] >= begin - 1e-6) & (run.decisions["time"] < last)]
    info = {**run.info, "start": begin, "history_seconds": 0.0}
    return Run(info, part.cut(run.endpoints), decisions, part.cut(run.pods))


def _with(settings: Settings, **changes: object) -> Settings:
    """The settings with another testbed."""
    return settings.model_copy(update={"testbed": settings.testbed.model_copy(update=changes)})


def _at_first(run: Run) -> dict[str, int]:
    """Replicas when the first decision was made, by service."""
    first = run.decisions.drop_duplicates("service")
    return {
        str(name): int(count)
        for name, count in zip(first["service"], first["current"], strict=True)
        if count >= 1
    }


def _unlike(run: Run, replayed: Run) -> float:
    """How far the responses of a replay are from those recorded: the mean of |log ratio| over the minutes."""
    responses = []
    for one in (run, replayed):
        begin = float(one.endpoints["time"].min())
        minute = ((one.endpoints["time"] - begin) // 60.0).rename("minute")
        sums = one.endpoints.groupby(minute)[["done", "duration_seconds"]].sum()
        responses.append(sums["duration_seconds"] / sums["done"].where(sums["done"] > 0))
    both = np.log(responses[1] / responses[0]).to_numpy(np.float64)
    return nan_mean(np.abs(both))


def _told(settings: Settings, run: Run) -> Settings:
    times = np.unique(run.endpoints["time"].to_numpy(np.float64))
    if len(times) < 2:
        raise DataError("endpoints.csv: fewer than two samples; a replay needs a load over time")
    step = float(np.min(np.diff(times)))
    update = {
        "demand_sigma": 0.0,
        "history": 0.0,
        "start": utc_text(float(times[0] - step)),
        "duration": float(times[-1] - times[0] + step),
    }
    bed = settings.testbed.model_copy(update=update)
    scale = settings.scale.model_copy(update={"dry_run": False, "mode": "act", "modes": {}})
    collect = settings.collect.model_copy(update={"step": step})
    return settings.model_copy(update={"testbed": bed, "scale": scale, "collect": collect})


def _with_recorded_replicas(cluster: VirtualCluster, run: Run, settings: Settings) -> Run:
    """Set the replicas of pods.csv when the record says, and measure as the record was measured.

    A change was made after the sample before the one that shows it.
    """
    start, step = cluster.now(), settings.collect.step
    table = replicas(run.pods, "spec")
    shift = start - float(run.endpoints["time"].min() - step)
    current: dict[str, int] = {}
    for moment, counts in zip(table.index.to_numpy(np.float64), table.to_numpy(), strict=True):
        wanted = {str(name): max(int(count), 1) for name, count in zip(table.columns, counts, strict=True)}
        changed = {name: value for name, value in wanted.items() if current.get(name) != value}
        current = wanted
        cluster.sleep_until(max(moment + shift - step, start))
        if changed:
            cluster.scale(changed)
    cluster.sleep_until(start + settings.testbed.duration)
    return Run(
        info={**run.info, "oracle": None, "start": settings.testbed.start},
        endpoints=cluster.latencies(start, cluster.now(), step),
        decisions=run.decisions.iloc[:0],
        pods=cluster.pod_history(start, cluster.now()),
    )
