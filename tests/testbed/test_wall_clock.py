"""What processes hold, and how it is told: counts that are known, and lines whose slope is."""

import os
import subprocess
import sys
from contextlib import ExitStack

import numpy as np
import pandas as pd
import psutil
import pytest

from testbed.experiments.wall_clock import sampled, table
from testbed.live.holdings import below, holdings, one


def test_files_that_are_opened_are_counted_and_those_that_are_closed_are_not():
    find = one(os.getpid())
    before = holdings(find())
    with ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(open(os.devnull, "rb"))
        during = holdings(find())
    assert during["handles"] - before["handles"] == 7 == during["handles"] - holdings(find())["handles"]
    assert before["memory MiB"] > 10 and before["threads"] >= 1


def test_children_are_found_and_one_that_has_ended_holds_nothing():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = list(below(os.getpid())())
        assert child.pid in {process.pid for process in found}
        process = psutil.Process(child.pid)
        assert holdings([process])["memory MiB"] > 0
        child.communicate(b"\n")
    assert holdings([process]) == {"memory MiB": 0.0, "handles": 0.0, "threads": 0.0}


def test_what_grows_is_told_with_its_slope_and_what_is_flat_as_flat():
    minutes = np.arange(61.0)
    rows = [(minute, "flat", "handles", 40.0) for minute in minutes]
    rows += [(minute, "leak", "memory MiB", 100.0 + minute / 2) for minute in minutes]
    found = pd.DataFrame(rows, columns=["minutes", "who", "what", "value"])
    heads, flat, leak = table(found)
    assert heads[3] == "minute 20" and flat == [
        "flat",
        "handles",
        "40",
        "40",
        "40",
        "+0.00 [+0.00, +0.00]",
        "+0.0",
    ]
    assert leak[2:] == ["100", "110", "130", "+30.00 [+30.00, +30.00]", "+27.3"]


def test_samples_are_kept_as_they_are_taken(tmp_path):
    values = iter(range(10))
    found = sampled({"it": lambda: {"handles": float(next(values))}}, 0.04, 0.02, tmp_path)
    assert found["value"].tolist() == [0.0, 1.0, 2.0]
    kept = pd.read_csv(tmp_path / "samples.csv")
    assert kept["value"].tolist() == [0, 1, 2] and kept["minutes"].tolist() == pytest.approx(
        [0, 0, 0], abs=0.1
    )
