"""Run directories: which policy ran."""

import numpy as np
import pandas as pd
import pytest
from helpers.run_samples import endpoint_row, make_run

from deepscaler.control.tables import Table, moment, optional_number, whole, word
from deepscaler.errors import DataError
from deepscaler.panel import MetricPanel, panel_lines
from deepscaler.runs import PolicyName, read_run, table_lines, write_run


@pytest.mark.parametrize(
    ("text", "family", "knob"),
    [
        ("hpa_70", "hpa", 70.0),
        ("foreseen_85", "foreseen", 85.0),
        ("hpa_7.5", "hpa", 7.5),
        ("hpa_r70", "hpa_r", 70.0),
        ("queueing_trend_80", "queueing_trend", 80.0),
        ("hpa_r", "hpa_r", None),
        ("deepscaler", "deepscaler", None),
        ("deepscaler_nofloor", "deepscaler_nofloor", None),
        ("hpa_", "hpa_", None),
        ("_70", "_70", None),
    ],
)
def test_the_number_after_the_last_underscore_of_a_name_is_its_knob(text, family, knob):
    assert PolicyName.parse(text) == PolicyName(text, family, knob)
    assert str(PolicyName.parse(text)) == text


def test_a_run_states_its_policy_and_an_older_one_by_name_alone(tmp_path):
    rows = [endpoint_row(t, "GET /", 10, 0.1) for t in (15, 30, 45, 60)]
    write_run(make_run(rows, policy="hpa_70"), tmp_path / "old")
    write_run(make_run(rows, policy="plan_b", family="plan", knob=2), tmp_path / "new")
    assert read_run(tmp_path / "old").policy == PolicyName("hpa_70", "hpa", 70.0)
    assert read_run(tmp_path / "new").policy == PolicyName("plan_b", "plan", 2)


def test_a_compact_run_says_the_same_and_takes_the_place_of_a_plain_one(tmp_path):
    run = make_run([endpoint_row(t, "GET /", 10, 0.1) for t in range(15, 7200, 15)])
    write_run(run, tmp_path)
    plain, size = read_run(tmp_path), sum(path.stat().st_size for path in tmp_path.iterdir())
    write_run(run, tmp_path, compact=True)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < size / 5
    again = read_run(tmp_path)
    for name in ("endpoints", "decisions", "pods"):
        assert not (tmp_path / f"{name}.csv").exists()
        pd.testing.assert_frame_equal(getattr(again, name), getattr(plain, name))
    write_run(run, tmp_path)
    assert not list(tmp_path.glob("*.gz"))


def _with_durations(directory, cells):
    write_run(make_run([endpoint_row(15 * n, "GET /", 10, 0.1) for n in range(len(cells))]), directory)
    table = pd.read_csv(directory / "endpoints.csv", dtype=str)
    table.assign(duration_seconds=cells).to_csv(directory / "endpoints.csv", index=False)
    return directory


@pytest.mark.parametrize("cell", ["True", "0x10", "1_0", "٣x", "inf", "-1e400", "1e16", "9" * 20, "fast"])
@pytest.mark.parametrize("others", ["15", "", "2.5", None])
def test_a_cell_that_is_no_number_is_named_with_its_line(tmp_path, cell, others):
    cells = [cell] * 3 if others is None else [others, others, cell]
    line = 2 if others is None else 4
    with pytest.raises(DataError, match=rf"endpoints.csv: line {line}: column 'duration_seconds' holds"):
        read_run(_with_durations(tmp_path, cells))


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "null", "N/A", "-", " "])
@pytest.mark.parametrize("other", ["15", "2.5", "1e3"])
def test_a_cell_that_says_nothing_is_unknown_and_the_others_stay_exact(tmp_path, cell, other):
    read = read_run(_with_durations(tmp_path, [other, cell, "0.30000000000000004"])).endpoints
    assert read["duration_seconds"].tolist() == pytest.approx(
        [float(other), float("nan"), 0.1 + 0.2], abs=0, rel=0, nan_ok=True
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_compressed_table_that_is_cut_short_is_named(tmp_path, share):
    write_run(make_run([endpoint_row(15, "GET /", 10, 0.1)]), tmp_path, compact=True)
    table = tmp_path / "endpoints.csv.gz"
    table.write_bytes(table.read_bytes()[: int(share * table.stat().st_size)])
    with pytest.raises(DataError, match=r"endpoints\.csv\.gz"):
        read_run(tmp_path)


# --------------------------------------------------------------------------- parts that were moved aside
def grown(directory):
    """A run of 100 moments whose tables were moved aside as they grew; returns what it tells."""
    moments = range(15, 1515, 15)
    run = make_run([endpoint_row(t, "GET /", 10, 0.1) for t in moments])
    columns = dict.fromkeys(("spec", "starting", "ready"), whole)
    run.pods = pd.DataFrame(
        [(float(t), "web", 2, 0, t) for t in moments], columns=["time", "service", *columns]
    )
    values = np.arange(100, dtype=np.float32).reshape(-1, 1, 1)
    run.panel = MetricPanel(np.array(moments, float), ("web",), ("req",), values)
    write_run(run, directory)
    plain = read_run(directory)
    cells = {"time": moment, "service": word, **columns}
    for name, kinds, lines in (
        ("pods", cells, table_lines(run.pods)),
        ("metrics", {"time": moment, "web_req": optional_number}, panel_lines(run.panel)),
    ):
        (directory / f"{name}.csv").unlink()
        table = Table(directory / f"{name}.csv", kinds, largest=700, kept=9)
        for line in lines.splitlines(keepends=True):
            table.append(line, 1)
        assert (directory / f"{name}.1.csv").is_file() and (directory / f"{name}.3.csv").is_file()
    return plain


def test_parts_that_were_moved_aside_are_read_in_order(tmp_path, caplog):
    plain = grown(tmp_path)
    again = read_run(tmp_path)
    pd.testing.assert_frame_equal(again.pods, plain.pods)
    np.testing.assert_array_equal(again.panel.values, plain.panel.values)
    np.testing.assert_array_equal(again.panel.times, plain.panel.times)
    assert not [record for record in caplog.records if record.name.startswith("deepscaler")]
    write_run(plain, tmp_path)
    assert not list(tmp_path.glob("*.1.csv"))
    pd.testing.assert_frame_equal(read_run(tmp_path).pods, plain.pods)


def test_torn_last_lines_and_missing_parts_cost_their_rows_and_are_said(tmp_path, caplog):
    plain = grown(tmp_path)
    for name in ("pods", "metrics"):
        with (tmp_path / f"{name}.csv").open("a") as file:
            file.write('1970-01-01T00:25:15Z,"we')
    lost = pd.read_csv(tmp_path / "pods.2.csv")["ready"]
    (tmp_path / "pods.2.csv").unlink()
    again = read_run(tmp_path)
    assert [*again.pods["ready"]] == [value for value in plain.pods["ready"] if value not in set(lost)]
    assert len(again.panel) == 100
    said = [record.getMessage() for record in caplog.records]
    assert sorted(text.split(": ", 1)[1] for text in said) == [
        "its last line has no end and is left out",
        "its last line has no end and is left out",
        "its rows have a gap: pods.2.csv is missing, though older parts are there",
    ]


def test_a_part_of_another_version_is_left_out_and_a_broken_one_is_named(tmp_path, caplog):
    plain = grown(tmp_path)
    oldest = max(tmp_path.glob("pods.?.csv"))
    rows = len(oldest.read_text().splitlines()) - 1
    oldest.write_text(oldest.read_text().replace("starting", "begun", 1))
    assert len(read_run(tmp_path).pods) == len(plain.pods) - rows
    assert f"with other columns: {oldest.name}" in caplog.text
    (tmp_path / "pods.1.csv").write_text("time,service,spec,starting,ready\n1970-01-01T00:00:15Z,web,x,0,1\n")
    with pytest.raises(DataError, match=r"pods\.1\.csv: line 2: column 'spec'"):
        read_run(tmp_path)
