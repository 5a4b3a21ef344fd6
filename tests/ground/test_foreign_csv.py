"""Metrics as other programs write them are read, or refused with what to do; impossible values are named."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from helpers.paths import ROOT

from deepscaler.errors import DataError
from deepscaler.learning.wide import read_wide
from deepscaler.panel import MetricPanel, read_panel
from deepscaler.plausible import RANGES, without_nonsense

T0 = 1_767_571_200.0  # 2026-01-05T00:00:00Z
ISO = "time,web_cpu,web_req\n2026-01-05T00:00:00Z,0.5,1.5\n2026-01-05T00:00:15Z,,2\n"


def write(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.field
@pytest.mark.parametrize(
    "text",
    [
        ISO,
        ISO.replace("Z,", ",").replace("T", " "),
        "\ufeff" + ISO,
        "\n" + ISO,
        ISO.replace("\n", "\r\n"),
        ISO.replace(",", ";"),
        ISO.replace(",", "\t"),
        ISO.replace(",", ";").replace(".", ","),
        '"Time","web_cpu","web_req"\n"2026-01-05 00:00:00","0.5","1.5"\n"2026-01-05 00:00:15","null","2"\n',
        '"Time";"web_cpu";"web_req"\n1767571200000;"0,5";"1,5"\n1767571215000;;2\n',
        "timestamp,web_cpu,web_req\n1767571200,0.5,1.5\n1767571215,NaN,2\n",
        "time,web_cpu,web_req\n1767571200.000,0.5,1.5\n1767571215.000,NULL,2\n",
        "TIME,web_cpu,web_req\n1767571200000,5e-1,1.5\n1767571215000,none,2e0\n",
        ISO.replace("\n", ",\n"),
        "time;web_cpu;;web_req;\n1767571200;0,5;;1,5;\n1767571215;N/A;-;2;\n",
        "time,web_cpu,web_req\n1767571200,0.5,1.5\n1767571215,-,2\n",
    ],
)
@pytest.mark.parametrize("read", [read_panel, lambda path: read_wide(path, "cpu", ("req",))])
def test_a_foreign_csv_is_read(tmp_path, text, read):
    panel = read(write(tmp_path, text))
    np.testing.assert_array_equal(panel.times, [T0, T0 + 15])
    np.testing.assert_array_equal(panel.feature("req")[:, 0], [1.5, 2.0])
    np.testing.assert_array_equal(panel.feature("cpu")[:, 0], [0.5, np.nan])


@pytest.mark.field
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "time,web_cpu,time\n1767571200,1,1767571200\n",
            "2 columns of times (time, time); delete all but one",
        ),
        ("Time,web_cpu,timestamp\n1767571200,1,1767571200\n", "2 columns of times (Time, timestamp); delete"),
        ("time,web_cpu,web_cpu\n1767571200,1,2\n", "2 columns are called 'web_cpu'; rename them"),
        ("time,web_cpu\n05.01.2026 00:00,1\n", "line 2: time '05.01.2026 00:00' is not ISO 8601"),
        ("time,web_cpu\n12,1\n13,1\n", "nor are all times seconds or milliseconds since the epoch"),
        ("time,web_cpu\n1767571200,1\n1767571215000,1\n", "nor are all times seconds or milliseconds"),
        ("time,web_cpu\n1767571200,12%\n", "line 2, column 'web_cpu': '12%' is not a number"),
        ("time;web_cpu\n1767571200;1.234,5\n", "'1.234,5' is not a number"),
        ("time,web_cpu\n1767571200,1,2\n", "not a readable CSV"),
        ("time,web_cpu,\n1767571200,1,2\n", "column 3 of 3 has values and no name; name it"),
        (b"time,web_cpu\n\xff\xfe,1\n", "not a readable CSV"),
    ],
)
def test_a_csv_that_cant_be_read_is_refused_with_what_to_do(tmp_path, text, says):
    with pytest.raises(DataError) as error:
        read_panel(write(tmp_path, text))
    assert says in str(error.value) and "metrics.csv" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.field
@pytest.mark.stress
@pytest.mark.parametrize("value", ["1e39", "-1e39", "inf", "-inf", "-0.5", "1e30", "1e400"])
def test_an_impossible_value_is_missing_and_named(tmp_path, caplog, value):
    path = write(tmp_path, f"time,web_req,api_req\n1767571200,3,4\n1767571215,{value},5\n")
    with caplog.at_level(logging.WARNING):
        panel = read_panel(path)
    np.testing.assert_array_equal(panel.feature("req"), [[3, 4], [np.nan, 5]])
    assert "metrics.csv: req of web: 1 of 2 values are impossible (the first is " in caplog.text
    assert "api" not in caplog.text


@pytest.mark.field
def test_a_value_beyond_float32_of_a_foreign_feature_is_missing_and_named(tmp_path, caplog):
    panel = read_wide(write(tmp_path, "time,a,b\n1767571200,-3,1e39\n1767571215,-4,5\n"), "load")
    np.testing.assert_array_equal(panel.values[:, :, 0], [[-3, np.nan], [-4, 5]])
    assert "load of b: 1 of 2 values are impossible" in caplog.text


@pytest.mark.stress
@pytest.mark.parametrize("feature", RANGES)
def test_values_on_the_bounds_of_a_range_are_kept(feature):
    low, high = RANGES[feature]
    values = np.array([low, high, np.nan, (low + high) / 2, low - 1e-9, high * 1.01]).reshape(-1, 1, 1)
    kept, found = without_nonsense(values, ("web",), (feature,))
    assert np.isfinite(kept[:, 0, 0]).tolist() == [True, True, False, True, False, False]
    assert list(found) == [f"{feature} of web"] and "2 of 6" in found[f"{feature} of web"]


@pytest.mark.stress
@pytest.mark.parametrize("year", ["9226", "2926", "2226", "1999"])
def test_one_wrong_year_doesnt_fill_the_memory(tmp_path, year):
    """15 s steps: 2226 would take 31 GiB for this file. The child may use 300 MiB more than it has."""
    rows = [f"2026-01-05T00:{minute:02d}:{second:02d}Z" for minute in range(10) for second in (0, 15, 30, 45)]
    rows[0 if year < "2026" else -1] = f"{year}-01-05T00:10:00Z"
    columns = [f"{name}_{feature}" for name in map(chr, range(97, 117)) for feature in RANGES]
    lines = [",".join(["time", *columns]), *(",".join([row] + ["1"] * len(columns)) for row in rows)]
    path = write(tmp_path, "\n".join(lines) + "\n")
    script = f"""
import re, resource
from deepscaler.errors import DataError
from deepscaler.panel import read_panel
size = 1024 * int(re.search(r"VmSize:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_AS, (size + 300 * 2**20,) * 2)
try:
    read_panel({str(path)!r}).regular(15.0)
except DataError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "none from" in done.stdout and "is a year wrong?" in done.stdout and year in done.stdout


@pytest.mark.stress
def test_a_gap_in_a_small_file_is_filled_and_in_a_large_one_bounded_by_its_size():
    times = np.array([0.0, 15.0, 86_400.0])
    panel = MetricPanel(T0 + times, ("web",), ("req",), np.ones((3, 1, 1), np.float32))
    assert len(panel.regular(15.0)) == 5761


def test_collected_metrics_are_read_as_any_csv_whether_or_not_they_tell_what_users_waited(tmp_path):
    text = "time,web_cpu,web_req,waited\n1767571200,0.5,3,0.1\n1767571215,0.6,4,\n"
    panel = read_wide(write(tmp_path, text), "req", ("cpu",))
    assert panel.services == ("web",) and panel.features == ("cpu", "req")
    other = read_wide(write(tmp_path, "time,walked,waited\n1767571200,-3,1\n1767571215,-4,5\n"), "seconds")
    assert other.services == ("walked", "waited")
