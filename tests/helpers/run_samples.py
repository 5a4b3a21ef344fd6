"""Small runs made of endpoint rows."""

import numpy as np
import pandas as pd

from deepscaler.cluster import ENDPOINT_COLUMNS, LATENCY_BUCKETS
from deepscaler.runs import DECISION_COLUMNS, POD_COLUMNS, Run, write_run
from helpers.moments import START

LIMITS = {"web": 0.5, "db": 1.0}
SLA = {"GET /": 0.2, "POST /cart": 0.2}


def endpoint_row(time, endpoint, done, seconds, *, failed=0, slow=0, offered=None):
    """One step in which `done` requests took `seconds` each."""
    counts = np.zeros(len(LATENCY_BUCKETS) + 1)
    counts[int(np.searchsorted(LATENCY_BUCKETS, seconds))] = done
    return (
        START + time,
        endpoint,
        done + failed if offered is None else offered,
        done,
        failed,
        slow,
        done * seconds,
        *counts,
    )


def make_run(endpoints, pods=None, *, policy="hpa_70", seed=1, **info):
    """A run of these endpoint rows; pods default to one ready replica of each service every 30 s."""
    frame = pd.DataFrame(endpoints, columns=ENDPOINT_COLUMNS)
    last = frame["time"].max() - START
    rows = pods or [(START + t, service, 1, 0, 1) for t in np.arange(30, last + 1, 30) for service in LIMITS]
    stated = {
        "policy": policy,
        "seed": seed,
        "limits": LIMITS,
        "sla": SLA,
        "slo": {name: 0.5 for name in SLA},
        **info,
    }
    return Run(
        stated, frame, pd.DataFrame([], columns=DECISION_COLUMNS), pd.DataFrame(rows, columns=POD_COLUMNS)
    )


LENGTH = 300
# policy -> (minutes over the SLA by seed, replicas)
POLICIES = {
    "deepscaler": ((0, 0, 1), 2),
    "hpa_50": ((0, 0, 0), 4),
    "hpa_70": ((2, 3, 2), 3),
    "hpa_80": ((4, 4, 5), 2),
    "static": ((1, 1, 1), 5),
}


def write_runs(directory, policies=POLICIES, seeds=(2000, 2001, 2002)):
    """Five minutes a run; the first minutes of each run are over the SLA."""
    for policy, (bad, replicas) in policies.items():
        for seed, minutes in zip(seeds, bad, strict=False):
            times = range(15, LENGTH + 1, 15)
            rows = [
                endpoint_row(t, "GET /", 10, 0.6, slow=10)
                if t <= 60 * minutes
                else endpoint_row(t, "GET /", 10, 0.1)
                for t in times
            ]
            pods = [(START + t, service, replicas, 0, replicas) for t in times for service in ("web", "db")]
            oracle = {
                "oracle": {"web": [2] * 5, "db": [2] * 5},
                "oracle_times": [START + 60 * i for i in range(5)],
            }
            write_run(
                make_run(rows, pods, policy=policy, seed=seed, **oracle), directory / f"{policy}-{seed}"
            )
