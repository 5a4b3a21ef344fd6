"""A draft of the settings for an emulated application: names, objectives and a load that matters."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from testbed.applications.application import Application
from testbed.applications.loading import load_application
from testbed.applications.truth import endpoint_shares, expected_visits, mean_demand
from testbed.engine import kernel as core
from testbed.engine.program import compile_program
from testbed.engine.simulator import LoadPlan, Simulator

SLA_FACTOR = 4.0
"""The bound on the mean response over the unloaded one."""
SLO_FACTOR = 2.5
"""The bound on one request over that on the mean, as in the settings of the shipped applications."""
REPLICAS = 2.5
"""Replicas that each service keeps busy on average at the highest load."""
PROBES = 200
GAP_SECONDS = 2.0

TEMPLATE = """\
# yaml-language-server: $schema={schema}
# Drafted for {application}: python -m testbed config --application {application}
app:
  name: {name}
  services: {{{services}}}
  entries:                         # sla: bound on the mean response of a minute, {factor:g}x the unloaded one
                                   # slo: bound on one request
{entries}

collect: {{step: 15, last: 172800, output_dir: data/{name}}}

process:
  step: 60
  window: 20
  label: required
  think_time: {think}
  requests_per_think: {requests:g}
  output_dir: data/{name}

scale:
  policy: deepscaler
  bundle: model_states/{name}/AdapGLA.pt
  run_dir: runs/{name}
  seeds: [1000]                    # 1-999 train, 1000-1999 validate, 2000-2999 test

evaluate: {{runs: runs/{name}, output_dir: runs/{name}, baseline: hpa_70}}

testbed:
  application: {application}
  initial_replicas: 4
  load: {{shape: mixed, low: {low}, high: {high}}}
"""


def unloaded_response(application: Application) -> NDArray[np.float64]:
    """Mean response of each endpoint in seconds, `[K]`, with two replicas and one request at a time."""
    program = compile_program(application)
    plan = LoadPlan.open(0.0, 0.0, program.task_weights)
    simulator = Simulator(program, plan, seed=1, replicas=[2] * program.num_services)
    count = len(application.endpoints)
    arrivals = np.zeros(PROBES * count, core.ARRIVAL)
    arrivals["id"] = np.arange(len(arrivals))
    arrivals["time"] = GAP_SECONDS * (1 + arrivals["id"])
    arrivals["endpoint"] = arrivals["id"] % count
    done = simulator.advance(GAP_SECONDS * (len(arrivals) + 20), arrivals)
    taken = done["time"] - done["start"]
    return np.array([taken[done["endpoint"] == endpoint].mean() for endpoint in range(count)])


def draft(text: str, schema: str) -> str:
    """The YAML of `config/<app>.yaml` for an emulated application.

    Args:
        text: as in `testbed.application`.
        schema: path of the JSON schema from the directory of the file, for editors.

    Raises:
        SettingsError: no such application.
    """
    application = load_application(text)
    services, pause = application.service_names, (application.think_low + application.think_high) / 2
    receivers = [services[endpoint.service] for endpoint in application.endpoints]
    sla = [_rounded(SLA_FACTOR * response) for response in unloaded_response(application)]
    high = _tens(_users(application))
    entries = [
        f'    - {{name: "{name}", service: {service}, sla: {bound:g}, slo: {SLO_FACTOR * bound:g}}}'
        for name, service, bound in zip(application.endpoint_names, receivers, sla, strict=True)
    ]
    return TEMPLATE.format(
        schema=schema,
        application=text,
        name=application.name.replace(":", "_"),
        services=", ".join(f"{name}: " for name in services),
        factor=SLA_FACTOR,
        entries="\n".join(entries),
        think=f"{pause:g}" if pause else "null",
        requests=round(requests_per_task(application), 3),
        low=_tens(high / 5),
        high=high,
    )


def requests_per_task(application: Application) -> float:
    """Mean number of requests between two pauses of a user."""
    weights = np.array([task.weight for task in application.tasks])
    return float(weights @ [len(task.requests) for task in application.tasks] / weights.sum())


def _users(application: Application) -> float:
    """Users with whom the services keep `REPLICAS` busy on average, if responses take no time."""
    limits = np.array([service.limit_cores for service in application.services])
    work = (
        endpoint_shares(application) @ expected_visits(application) * mean_demand(application)
    )  # cores at one request/s, [N]
    rate = REPLICAS / float((work / limits).mean())
    return rate * (application.think_low + application.think_high) / 2 / requests_per_task(application)


def _rounded(seconds: float) -> float:
    """Rounded up to a multiple of 0.05 s, of 0.1 s above half a second, of 0.5 s above two seconds."""
    step = 0.05 if seconds <= 0.5 else 0.1 if seconds <= 2 else 0.5
    return round(math.ceil(seconds / step - 1e-9) * step, 2)


def _tens(users: float) -> int:
    return max(round(users / 10) * 10, 10)
