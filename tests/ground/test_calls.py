"""`calls.csv`: what is written reads back equal, and what is broken is named."""

import numpy as np
import pandas as pd
import pytest

from deepscaler.artefacts import utc_seconds
from deepscaler.calls import EXTERNAL, CallGraph, read_calls, write_calls
from deepscaler.errors import DataError

T0 = utc_seconds("2026-01-05T00:00:00Z")


def calls(*rows):
    return CallGraph(pd.DataFrame(rows, columns=["time", "caller", "callee", "calls_per_second"]))


GRAPH = calls(
    (T0 + 300, EXTERNAL, "carts", 4.0),
    (T0 + 300, "carts", "carts-db", 8.0),
    (T0 + 600, EXTERNAL, "carts", 2.0),
    (T0 + 600, "elsewhere", "carts", 100.0),
)


def test_calls_read_back(tmp_path):
    write_calls(GRAPH, tmp_path / "calls.csv")
    assert (tmp_path / "calls.csv").read_text().splitlines()[:2] == [
        "time,caller,callee,calls_per_second",
        "2026-01-05T00:05:00Z,external,carts,4",
    ]
    pd.testing.assert_frame_equal(read_calls(tmp_path / "calls.csv").frame, GRAPH.frame, check_dtype=False)


def test_a_pair_absent_from_a_window_had_no_calls_in_it():
    np.testing.assert_array_equal(GRAPH.mean_rates(("carts-db", "carts")), [[0, 0], [4, 0]])
    np.testing.assert_array_equal(GRAPH.external_rates(("carts-db", "carts")), [0, 3])
    np.testing.assert_array_equal(GRAPH.mean_rates(("carts", "carts-db"), end=T0 + 300), [[0, 8], [0, 0]])
    np.testing.assert_array_equal(GRAPH.mean_rates(("carts", "carts-db"), start=T0 + 600), np.zeros((2, 2)))


def test_rates_without_a_fraction_are_numbers_like_others(tmp_path):
    text = "time,caller,callee,calls_per_second\n2026-01-05T00:05:00Z,a,b,1\n"
    (tmp_path / "calls.csv").write_text(text)
    np.testing.assert_array_equal(read_calls(tmp_path / "calls.csv").mean_rates(("a", "b")), [[0, 1], [0, 0]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("time,caller,callee\n", "column 'calls_per_second' is missing"),
        (
            "time,caller,callee,calls_per_second\n"
            "2026-01-05T00:00:00Z,a,b,1\n2026-01-05T00:00:00Z,a,c,many\n",
            "line 3 is broken",
        ),
        ("time,caller,callee,calls_per_second\nsoon,a,b,1\n", "line 2 is broken"),
    ],
)
def test_broken_calls_are_named_with_their_line(tmp_path, text, expected):
    (tmp_path / "calls.csv").write_text(text)
    with pytest.raises(DataError, match=expected):
        read_calls(tmp_path / "calls.csv")
