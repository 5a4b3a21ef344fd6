"""A small archive in the layout of the published records of a real cluster."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from testbed.fidelity.records import GATEWAY, QUANTILES

BEGAN = 1_743_606_920
"""Seconds since the epoch at which Locust starts in the synthetic archive."""
LIMITS = {"front": "200m", "back": "300m"}


def archive(path: Path, *, without: str = "", policy: str = "KHPA-70") -> Path:
    """A small zip in the published layout: two services, 120 seconds, times in a zone of +8 hours."""
    late, count = 30, 120
    times = pd.to_datetime(BEGAN + 8 * 3600 + late + np.arange(count), unit="s")
    columns: dict[str, object] = {"timestamp": times.strftime("%Y-%m-%d %H:%M:%S")}
    pods = np.where(np.arange(count) < 46, 1.0, 2.0)
    for name, rate, cores in (("front", 50.0, 120.0), ("back", 100.0, 60.0)):
        columns |= {
            f"{name}&count": pods,
            f"{name}&qps": np.full(count, rate),
            f"{name}&cpu_usage_mean": np.full(count, cores / 2),  # over the two pods that there ever were
            f"{name}&cpu_usage_max": np.where(pods == 1, cores, cores / 2),
        }
    slow = np.where(np.arange(count) < 30, 900.0, 80.0)
    columns |= {f"{GATEWAY}&{q:g}": slow for q in QUANTILES}
    stats = pd.DataFrame(
        {
            "Type": ["GET", "GET", "GET", "POST", ""],
            "Name": ["/", "/product/A", "/product/B", "/cart", "Aggregated"],
            "Request Count": [10, 20, 30, 5, 65],
        }
    )
    history = pd.DataFrame(
        {"Timestamp": BEGAN + np.arange(4), "User Count": [0, 50, 80, 70], "Requests/s": np.zeros(4)}
    )
    files = {
        "record.csv": pd.DataFrame(columns).to_csv(index=False),
        "_stats.csv": stats.to_csv(index=False),
        "_stats_history.csv": history.to_csv(index=False),
        "limit.json": json.dumps({name: [limit, "128Mi"] for name, limit in LIMITS.items()}),
    }
    with zipfile.ZipFile(path, "w") as out:
        for name, text in files.items():
            if name != without:
                out.writestr(f"shop/dist1/wiki/{policy}/{name}", text)
        out.writestr("other/dist1/wiki/None/record.csv", "timestamp,web&count\n2025-04-02 15:15:52,1.0\n")
        for name in ("_stats.csv", "_stats_history.csv", "limit.json"):
            out.writestr(f"other/dist1/wiki/None/{name}", files[name])
    return path


def broken(path: Path, name: str, content: bytes) -> Path:
    """The small archive with other content in one file of its cell."""
    whole = archive(path.with_name("whole.zip"))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as out:
        for one in source.namelist():
            wrong = one == f"shop/dist1/wiki/KHPA-70/{name}"
            out.writestr(one, content if wrong else source.read(one))
    return path
