"""Telemetry of a small application whose truth is known, for the tests of demand, labels and data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from deepscaler.artefacts import write_json
from deepscaler.calls import EXTERNAL, CallGraph, write_calls
from deepscaler.labels.demand import FORMS, DemandModel, Response
from deepscaler.labels.diagnostics import Diagnostics, diagnose
from deepscaler.labels.facts import Facts
from deepscaler.labels.minutes import starting_pods
from deepscaler.labels.required import Labelled, label_requirements
from deepscaler.labels.visits import follow_visits
from deepscaler.panel import MetricPanel, write_panel
from deepscaler.settings import Process
from helpers.moments import START

STEP = 15.0
SERVICES = ("web", "cart", "db")
CALLS_PER_REQUEST = np.array([[0, 2, 0.3], [0, 0, 0.5], [0, 0, 0]])
VISITS = np.array([1, 2, 1.3])
DEMAND = np.array([0.007, 0.002, 0.005])
IDLE = np.array([0.003, 0.002, 0.004])
LIMITS = np.array([0.2, 0.2, 0.3])
BOOTS = np.array([15.0, 30.0, 45.0])
RESPONSE = Response(r0=0.03, kappa=1.5, form="least_request")
FACTS = Facts(LIMITS, BOOTS)


def truth(**changes: object) -> DemandModel:
    """The model that the telemetry follows."""
    known: dict[str, object] = {
        "services": SERVICES,
        "idle_cores": IDLE,
        "demand_seconds": DEMAND,
        "limit_cores": LIMITS,
        "boot_seconds": BOOTS,
        "entries": ("web",),
        "visits": VISITS[None],
        "external_share": np.ones(1),
        "sla_seconds": 0.2,
        "think_seconds": None,
        "rho_max": 0.9,
        "sla_margin": 0.75,
        "response": RESPONSE,
        "quality": {},
        "unloaded_seconds": 0.03,
    }
    return DemandModel(**{**known, **changes})  # type: ignore[arg-type]


def one_service(**changes: object) -> DemandModel:
    """One service with 0.2 cores, 10 ms CPU per request and 20 millicores idle; no response rule."""
    known: dict[str, object] = {
        "services": ("web",),
        "idle_cores": np.array([0.02]),
        "demand_seconds": np.array([0.01]),
        "limit_cores": np.array([0.2]),
        "boot_seconds": np.array([15.0]),
        "visits": np.ones((1, 1)),
        "response": None,
    }
    return truth(**{**known, **changes})


def telemetry(
    minutes: int, seed: int = 1, noise: float = 0.02, lowest: float = 0.35, highest: float = 1.1
) -> MetricPanel:
    """Samples of `minutes`: the entry rate wanders, pods are redrawn every few minutes to a utilisation.

    Containers of pods that start count in the share of the limit, and use nothing yet.
    """
    rng = np.random.default_rng(seed)
    length = round(minutes * 60 / STEP)
    wander = np.cumsum(rng.normal(0, 1.5, length))
    entry = 60 + 30 * np.sin(np.arange(length) / 50) + wander - np.linspace(0, wander[-1], length)
    entry = np.clip(entry, 15, 130)
    rates = entry[:, None] * VISITS
    pods = np.empty((length, 3))
    for service in range(3):
        row = 0
        while row < length:
            stop = row + int(rng.integers(16, 40))
            need = DEMAND[service] * rates[row:stop, service].max() / LIMITS[service]
            pods[row:stop, service] = max(np.ceil(need / rng.uniform(lowest, highest)), 1)
            row = stop
    rho = (IDLE + DEMAND * rates / pods) / LIMITS
    waits = VISITS * DEMAND / LIMITS * FORMS["least_request"](np.minimum(rho, 0.97), pods)
    response = (RESPONSE.r0 + RESPONSE.kappa * waits.sum(axis=1)) * np.exp(rng.normal(0, noise, length))
    req = rng.poisson(rates * STEP) / STEP
    cores = IDLE * pods + DEMAND * req
    containers = pods + starting_pods(pods.astype(np.float32), BOOTS, STEP)
    cpu = cores * (1 + rng.normal(0, noise, cores.shape)) / LIMITS / containers
    res = np.stack([response, response / 4, response / 8], axis=1)
    times = START + STEP * np.arange(1, length + 1)
    return MetricPanel(
        times,
        SERVICES,
        ("pod", "cpu", "res", "req"),
        np.stack([pods, cpu, res, req], axis=2).astype(np.float32),
    )


def calls_of(panel: MetricPanel, window: float = 300.0) -> CallGraph:
    """Calls behind the panel's entry rate, one row per pair and window."""
    rows, per = [], round(window / STEP)
    entry = panel.feature("req")[:, 0]
    for end in range(per, len(panel) + 1, per):
        rate, moment = float(entry[end - per : end].mean()), float(panel.times[end - 1])
        rows.append((moment, EXTERNAL, "web", rate))
        for caller, callee in zip(*np.nonzero(CALLS_PER_REQUEST), strict=True):
            rows.append(
                (
                    moment,
                    SERVICES[caller],
                    SERVICES[callee],
                    rate * VISITS[caller] * CALLS_PER_REQUEST[caller, callee],
                )
            )
    return CallGraph(pd.DataFrame(rows, columns=["time", "caller", "callee", "calls_per_second"]))


def collected(directory: Path, minutes: int, **options: object) -> MetricPanel:
    """Write metrics.csv, calls.csv and workloads.json as metrics_fetch.py does."""
    panel = telemetry(minutes, **options)  # type: ignore[arg-type]
    write_panel(panel, directory / "metrics.csv")
    write_calls(calls_of(panel), directory / "calls.csv")
    facts = zip(SERVICES, LIMITS, BOOTS, strict=True)
    write_json(
        directory / "workloads.json",
        {name: {"cpu_limit_cores": limit, "boot_seconds": boot} for name, limit, boot in facts},
    )
    return panel


def constant(rates: np.ndarray, response: float | np.ndarray = 0.04) -> MetricPanel:
    """A noise-free panel at the entry rates `[L]`, one pod each."""
    length = len(rates)
    values = np.ones((length, 3, 4), np.float32)
    values[:, :, 3] = np.asarray(rates)[:, None] * VISITS
    values[:, :, 2] = np.broadcast_to(np.asarray(response, np.float32), (length,))[:, None]
    return MetricPanel(
        START + STEP * np.arange(1, length + 1), SERVICES, ("pod", "cpu", "res", "req"), values
    )


def diagnosed(panel: MetricPanel, minutes: int, **changes: object) -> Diagnostics:
    """Labels by the model that made the telemetry, with the first `minutes` as the training split."""
    model = truth(**changes)
    process = Process(rate_window=15.0)
    visits = follow_visits(panel, calls_of(panel), ["web"], 1800.0)
    labels, unrounded = label_requirements(model, visits, panel, process)
    rows = round(minutes * 60 / STEP)
    wrong = replace(model, demand_seconds=DEMAND * 1.1)
    return diagnose(Labelled(labels, unrounded, model=model, visits=visits), panel, (rows, rows), truth=wrong)
