"""`metrics.csv`: what is written reads back equal, and what is broken is named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepscaler.artefacts import utc_seconds
from deepscaler.calls import read_calls
from deepscaler.errors import DataError
from deepscaler.panel import MetricPanel, joined, read_panel, write_panel

T0 = utc_seconds("2026-01-05T00:00:00Z")
FIVE = ("pod", "cpu", "mem", "res", "req")
SERVICES = ("carts", "carts-db", "a_b")


def panel(values, services=SERVICES, features=FIVE, step=15.0, start=T0):
    return MetricPanel(
        start + step * np.arange(len(values)), services, features, np.asarray(values, np.float32)
    )


def some_panel(length=4):
    values = np.random.default_rng(1).random((length, 3, 5))
    values[1, 2, 3] = np.nan
    return panel(values)


def assert_same(one, other):
    assert one.services == other.services and one.features == other.features
    np.testing.assert_array_equal(one.times, other.times)
    np.testing.assert_array_equal(one.values, other.values)


@given(
    hnp.arrays(np.float32, (3, 3, 5), elements=st.floats(0, 1000, width=32) | st.just(np.nan)),
    st.integers(1, 100_000).map(lambda n: n / 1000),
)
def test_any_panel_reads_back_bit_by_bit_with_nan_as_an_empty_cell(tmp_path_factory, values, step):
    path = tmp_path_factory.mktemp("panel") / "metrics.csv"
    written = panel(values, step=step)
    write_panel(written, path)
    read = read_panel(path)
    np.testing.assert_array_equal(read.values, written.values)
    np.testing.assert_allclose(read.times, written.times, atol=5e-4)
    assert read.services == SERVICES and read.features == FIVE
    assert "nan" not in path.read_text().lower()


def test_zero_and_missing_stay_two_things(tmp_path):
    values = np.zeros((2, 3, 5))
    values[1] = np.nan
    write_panel(panel(values), tmp_path / "metrics.csv")
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[1] == "2026-01-05T00:00:00Z" + ",0" * 15
    assert lines[2] == "2026-01-05T00:00:15Z" + "," * 15
    read = read_panel(tmp_path / "metrics.csv").values
    assert (read[0] == 0).all() and np.isnan(read[1]).all()


def test_a_file_of_another_tool_may_have_its_columns_in_any_order(tmp_path):
    (tmp_path / "m.csv").write_text("b_req,time,a_cpu,a_req,b_cpu\n1,2026-01-05T01:00:00+01:00,2,3,\n")
    read = read_panel(tmp_path / "m.csv", services=("a", "b"), features=("cpu", "req"))
    np.testing.assert_array_equal(read.values[0], np.array([[2, 3], [np.nan, 1]], np.float32))
    assert read.times[0] == T0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not a readable CSV"),
        ("a_cpu\n1\n", "'time' is missing"),
        ("time,a_cpu\n", "no rows"),
        ("time,a_cpu\nyesterday,1\n", "line 2: time 'yesterday' is not ISO 8601"),
        ("time,a_cpu\n2026-01-05T00:00:00Z,lots\n", "line 2, column 'a_cpu': 'lots' is not a number"),
        ("time,a_cpu,b_req\n2026-01-05T00:00:00Z,1,2\n", "column 'a_req' is missing (2 of 4"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, text, expected):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        read_panel(path)
    assert expected in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def _seconds(*seconds: int) -> str:
    return "time,a_cpu\n" + "".join(f"2026-01-05T00:00:{second:02d}Z,0.{second:02d}\n" for second in seconds)


@pytest.mark.parametrize("text", [_seconds(30, 15, 0), _seconds(15, 0)])
def test_rows_that_stand_newest_first_are_turned_round(tmp_path, caplog, text):
    (tmp_path / "m.csv").write_text(text)
    with caplog.at_level("INFO"):
        read = read_panel(tmp_path / "m.csv")
    assert (np.diff(read.times) == 15).all() and read.times[0] == T0
    np.testing.assert_allclose(read.values[:, 0, 0], (read.times - T0) / 100, rtol=1e-6)
    assert "newest first" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            _seconds(0, 15, 45, 30, 50),
            "line 5: time 2026-01-05T00:00:30Z doesn't follow 2026-01-05T00:00:45Z (rows out of order: "
            "1 of 5); sort the rows by time",
        ),
        (_seconds(50, 30, 45, 15, 0), "line 4: time 2026-01-05T00:00:45Z doesn't follow"),
        (_seconds(0, 30, 15, 50, 20), "line 4: time 2026-01-05T00:00:15Z doesn't follow"),
        (
            _seconds(0, 15, 15, 30),
            "line 4: time 2026-01-05T00:00:15Z stands in line 3 already (repeated times: 1); keep one row",
        ),
        (_seconds(0, 0), "line 3: time 2026-01-05T00:00:00Z stands in line 2 already"),
        (_seconds(30, 15, 15, 0), "line 4: time 2026-01-05T00:00:15Z stands in line 3 already"),
        (
            _seconds(0, 15, 30, 0, 15, 30),
            "line 5: time 2026-01-05T00:00:00Z stands in line 2 already (repeated times: 3",
        ),
        (_seconds(30, 15, 0).replace("0.15", "lots"), "line 3, column 'a_cpu': 'lots' is not a number"),
    ],
    ids=["swapped", "swapped_falling", "mixed", "twice", "all_twice", "falling_twice", "appended", "broken"],
)
def test_rows_in_no_order_of_time_are_refused_with_the_way_to_mend_them(tmp_path, text, expected):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError) as error:
        read_panel(tmp_path / "m.csv")
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_names_the_command_that_makes_it(tmp_path):
    for read in (read_panel, read_calls):
        with pytest.raises(DataError, match=r"no such file; make it with: python metrics_fetch\.py"):
            read(tmp_path / "metrics.csv")


def test_a_panel_of_another_shape_is_refused():
    with pytest.raises(DataError, match=r"shape \(2, 3, 4\), expected \(2, 3, 5\)"):
        panel(np.zeros((2, 3, 4)))


def test_columns_are_taken_by_name():
    whole = some_panel()
    part = whole.select(("a_b", "carts"), ("req", "pod"))
    np.testing.assert_array_equal(part.feature("req")[:, 0], whole.feature("req")[:, 2])
    np.testing.assert_array_equal(part.feature("pod")[:, 1], whole.feature("pod")[:, 0])
    with pytest.raises(DataError, match="service cart not in the metrics; they hold carts, carts-db"):
        whole.select(("cart",), ("req",))
    with pytest.raises(DataError, match="feature 'latency' is not in the metrics"):
        whole.feature("latency")


def test_a_stretch_is_open_at_its_start_and_closed_at_its_end():
    np.testing.assert_array_equal(some_panel().between(T0, T0 + 30).times, [T0 + 15, T0 + 30])


def test_the_step_needs_two_regular_samples():
    assert some_panel().step == 15
    with pytest.raises(DataError, match="at least 2"):
        _ = some_panel(2).between(T0, T0 + 15).step
    uneven = MetricPanel(np.array([0.0, 15.0, 45.0]), SERVICES, FIVE, np.zeros((3, 3, 5), np.float32))
    with pytest.raises(DataError, match="not regular"):
        _ = uneven.step
    filled = uneven.regular(15.0)
    assert filled.step == 15 and len(filled) == 4
    assert np.isnan(filled.values[2]).all() and (filled.values[3] == 0).all()


def test_a_write_that_fails_leaves_the_previous_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    write_panel(some_panel(), path)
    before = path.read_bytes()

    def half(target, _text, **options):
        target.write_bytes(b"time,carts_po")
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space left"):
        write_panel(some_panel(9), path)
    assert path.read_bytes() == before and [item.name for item in tmp_path.iterdir()] == ["metrics.csv"]


# ------------------------------------------------------------------------------------------ what users waited
def waiting(waited):
    values = np.arange(45, dtype=np.float32).reshape(3, 3, 5)
    return replace(panel(values), waited=np.array(waited, np.float32))


def test_what_users_waited_goes_with_the_samples(tmp_path):
    one = waiting([0.1, np.nan, 0.3])
    write_panel(one, tmp_path / "metrics.csv")
    read = read_panel(tmp_path / "metrics.csv")
    assert_same(read, one)
    np.testing.assert_array_equal(read.waited, one.waited)
    few = read_panel(tmp_path / "metrics.csv", SERVICES[:1], ("req",))
    np.testing.assert_array_equal(few.waited, one.waited)
    np.testing.assert_array_equal(one.select(SERVICES[1:], ("res",)).waited, one.waited)
    np.testing.assert_array_equal(one.between(one.times[0], one.times[-1]).waited, one.waited[1:])
    gap = one.rows(np.array([True, False, True])).regular(15.0)
    np.testing.assert_array_equal(gap.waited, np.float32([0.1, np.nan, 0.3]))


def test_panels_are_joined_whether_or_not_they_tell_what_users_waited():
    early, late = waiting([0.1, 0.2, 0.3]), panel(np.zeros((2, 3, 5)))
    late = replace(late, times=late.times + 45.0)
    np.testing.assert_array_equal(joined([early, late]).waited, np.float32([0.1, 0.2, 0.3, np.nan, np.nan]))
    np.testing.assert_array_equal(joined([late, early]).waited, np.float32([np.nan, np.nan, 0.1, 0.2, 0.3]))
    assert joined([late, late]).waited is None and len(joined([early, late])) == 5


@pytest.mark.parametrize("waited", ["-1", "1e9", "inf"])
def test_what_nobody_can_have_waited_is_missing_and_said(tmp_path, caplog, waited):
    path = tmp_path / "metrics.csv"
    write_panel(waiting([0.1, 77.0, 0.3]), path)
    path.write_text(path.read_text().replace(",77\n", f",{waited}\n"))
    np.testing.assert_array_equal(read_panel(path).waited, np.float32([0.1, np.nan, 0.3]))
    assert "all entries" in caplog.text


def test_what_users_waited_is_as_long_as_the_panel():
    with pytest.raises(DataError, match=r"waited has shape \(2,\), expected \(3,\)"):
        waiting([0.1, 0.2])
