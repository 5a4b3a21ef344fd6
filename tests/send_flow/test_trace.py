"""Traces: the README's, `.req` files, and counts with a time column."""

from __future__ import annotations

import codecs
import gzip
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import ROOT, WORLDCUP98, WORLDCUP98_MISSING
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscaler.errors import DataError
from sendFlow import make_trace, trace

README_TRACE = ROOT / "sendFlow" / "random-100max.req"


def written(tmp_path: Path, text: str, name: str = "trace.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


# ----------------------------------------------------------------------------------------------- the README's
def test_the_committed_trace_is_what_its_script_makes(tmp_path: Path) -> None:
    assert make_trace.main(["--output", str(tmp_path / "made.req")]) == 0
    assert (tmp_path / "made.req").read_bytes() == README_TRACE.read_bytes()


def test_the_script_can_be_run_as_the_readme_says(tmp_path: Path) -> None:
    command = [sys.executable, "sendFlow/make_trace.py", "--output", str(tmp_path / "made.req")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "903 values, 25-100, mean 47.80, step deviation 1.63, largest step 9" in done.stdout


def test_the_readme_trace_has_the_published_statistics() -> None:
    values = trace.read_req(README_TRACE)
    steps = np.diff(values)
    assert (len(values), values.min(), values.max()) == (903, 25, 100)
    assert values.mean() == pytest.approx(47.8, abs=0.05)
    assert steps.std() == pytest.approx(1.63, abs=0.02)
    assert abs(steps).max() == 9


def test_one_round_of_the_readme_trace_takes_76_minutes() -> None:
    one = trace.read_trace(README_TRACE).with_idle_ends()
    assert len(one.values) * one.step / 60 == pytest.approx(76, abs=0.1)
    assert not one.values[:5].any() and not one.values[-5:].any() and one.values[5:-5].all()


# ------------------------------------------------------------------------------------------------------- .req
@settings(deadline=None)
@given(values=st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_what_is_written_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, values: list[int]
) -> None:
    path = tmp_path_factory.mktemp("req") / "x.req"
    trace.write_req(path, values)
    assert trace.read_req(path).tolist() == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3\nx\n", ":2: .*'x'"),
        ("3\n\n4\n", ":2: "),
        ("3\n4.5\n", ":2: "),
        ("-1\n", ":1: "),
        ("", "no values"),
    ],
)
def test_a_broken_req_file_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=f"broken.req.*{words}"):
        trace.read_req(written(tmp_path, text, "broken.req"))


def test_a_missing_trace_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"make_trace\.py"):
        trace.read_req(tmp_path / "none.req")


@pytest.mark.parametrize(
    ("name", "content", "values"),
    [
        ("x.req", b"1\n2\n", [1, 2]),
        ("x.txt", b"1\r\n2\r\n", [1, 2]),
        ("x.csv", b"time,requests\n0,60\n60,120\n", [1, 2]),
        ("x.csv.gz", gzip.compress(codecs.BOM_UTF8 + b"ts,requests\n0,60\n60,120\n", mtime=0), [1, 2]),
    ],
    ids=["req", "txt", "csv", "csv.gz"],
)
def test_a_byte_order_mark_is_no_part_of_a_trace(
    tmp_path: Path, name: str, content: bytes, values: list[int]
) -> None:
    packed = name.endswith(".gz")
    (tmp_path / name).write_bytes(content if packed else codecs.BOM_UTF8 + content)
    assert trace.read_trace(tmp_path / name).values.tolist() == values


@pytest.mark.parametrize("name", ["none.csv", "none.csv.gz"])
def test_a_missing_csv_is_no_matter_for_make_trace(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: no such file$"):
        trace.read_trace(tmp_path / name)


# ------------------------------------------------------------------------------------------------- make_trace
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--low", "5"], "--low: the trace of the README has no such option; add --shape"),
        (["--duration", "60", "--noise", "0"], "--duration, --noise: the trace of the README has no such"),
        (["--shape", "random-100max", "--high", "90", "--period", "9"], "--high, --period: the trace of the"),
        (["--shape", "course"], "--shape: invalid choice: 'course'"),
        (["--shape", "cycle"], "--shape: invalid choice: 'cycle'"),
        (["--shape", "square", "--noise", "-5"], "--noise: expected a number from 0 to 100,000,000, found"),
        (["--shape", "square", "--noise", "nan"], "--noise: expected a number from 0 to 100,000,000, found"),
        (["--shape", "square", "--seed", "-3"], "--seed: expected an integer from 0 to 4,294,967,295, found"),
        (["--shape", "square", "--seed", "9" * 5000], "--seed: expected an integer from 0 to 4,294,967,295"),
        (["--shape", "square", "--duration", "1e-9"], "--duration: expected a number from 5 to 8,640,000"),
        (["--shape", "mixed", "--duration", "1e9"], "--duration: expected a number from 5 to 8,640,000"),
        (["--shape", "square", "--high", "1e300"], "--high: expected a number from 0.001 to 100,000,000"),
        (["--shape", "square", "--low", "0"], "--low: expected a number from 0.001 to 100,000,000, found"),
        (["--shape", "square", "--period", "soon"], "--period: expected a number from 1 to 1,000,000,000"),
        (
            ["--shape", "bursts", "--period", "1", "--duration", "1e6"],
            "--period: 1 s makes more than 100,000",
        ),
    ],
)
def test_make_trace_refuses_in_one_line_what_it_cant_make(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        make_trace.main([*arguments, "--out", str(tmp_path / "x.req")])
    last = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2
    assert said in last and not (tmp_path / "x.req").exists()


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz", "c.json", "c"])
@pytest.mark.parametrize("arguments", [[], ["--shape", "square"]])
def test_make_trace_writes_no_file_that_readers_take_for_another_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit):
        make_trace.main([*arguments, "--out", str(tmp_path / name)])
    assert f"{name}: expected a name that ends in .req" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_another_seed_does_not_replace_the_readme_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = README_TRACE.read_bytes()
    with pytest.raises(SystemExit):
        make_trace.main(["--seed", "7"])
    assert "--seed: it would replace random-100max.req" in capsys.readouterr().err
    assert README_TRACE.read_bytes() == before
    assert make_trace.main(["--seed", "7", "--out", str(tmp_path / "x.req")]) == 0
    assert (tmp_path / "x.req").read_bytes() != before


# -------------------------------------------------------------------------------------------------------- CSV
def test_counts_become_a_rate_per_second(tmp_path: Path) -> None:
    path = written(
        tmp_path, "time,requests\n2026-01-05T00:00:00Z,60\n2026-01-05T00:01:00Z,120\n2026-01-05T00:02:00Z,0\n"
    )
    series = trace.read_trace(path)
    assert series.values.tolist() == [1, 2, 0]
    assert (series.step, series.start) == (60, 1767571200)


def test_times_may_be_seconds_and_a_column_may_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a,time,b\n1,0,10\n2,5,20\n")
    assert trace.read_counts(path, "b").values.tolist() == [2, 4]
    with pytest.raises(
        DataError, match="found a, b; write the times and the one to play into a file of their own"
    ):
        trace.read_counts(path)
    with pytest.raises(DataError, match="no column 'c'"):
        trace.read_counts(path, "c")


def test_a_missing_row_is_bridged_and_a_long_gap_refused(tmp_path: Path) -> None:
    rows = [(0, 10), (10, 10), (20, 20), (40, 40), (50, 50)]
    assert trace.read_counts(written(tmp_path, _csv(rows))).values.tolist() == [1, 1, 2, 3, 4, 5]
    with pytest.raises(DataError, match=":7: 150 s without a row"):
        trace.read_counts(written(tmp_path, _csv([*rows, (200, 1), (210, 1)])))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("when,requests\n1,2\n", ":1: expected a column `time`"),
        ("", ":1: expected a column `time`"),
        ("time,requests\n0,1\n5,x\n", ":3: expected a time and a number"),
        ("time,requests\n0,1\nnoon,2\n", ":3: expected a time and a number"),
        ("time,requests\n0,1\n5\n", ":3: expected a time and a number"),
        ("time,requests\n0,1\n5,nan\n", ":3: expected a count"),
        ("time,requests\n-7e10,1\n5,2\n", ":2: expected a time, found '-7e10'"),
        ("time,requests\n0,1\n1e11,2\n", ":3: expected a time, found '1e11'"),
        ("time,requests\n0,1\n5,-2\n", ":3: expected a count"),
        ("time,requests\n0,1\n5," + "1" * 140_000 + "\n", ":3: can't be read as CSV"),
        ("time,requests\n0,1e15\n5e-324,2\n", ":3: its time isn't later than that of line 2"),
        ("time,requests\n5,1\n5,2\n", ":3: its time isn't later than that of line 2; sort the rows"),
        ("time,requests\n0,1\n10,2\n5,2\n", ":4: its time isn't later than that of line 3"),
        ("time,requests\n0,1\n", "at least two rows"),
    ],
)
def test_a_broken_csv_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=f"trace.csv.*{words}"):
        trace.read_counts(written(tmp_path, text))


def test_a_trace_is_scaled_stretched_and_looped() -> None:
    series = trace.Series(np.array([1.0, 2.0, 3.0]), 60).adjusted(scale=10, step=5)
    assert series.at(np.array([0.0, 4.9, 5.0, 10.0, 14.9, 15.0, 31.0])).tolist() == [
        10,
        10,
        20,
        30,
        30,
        10,
        10,
    ]


def test_a_trace_begins_where_it_is_told() -> None:
    series = trace.Series(np.arange(4.0), 60, start=1000)
    assert series.since(1100).values.tolist() == [2, 3]
    with pytest.raises(DataError, match="outside"):
        series.since(1240)


def test_rows_that_stand_newest_first_are_turned_round(tmp_path: Path) -> None:
    (tmp_path / "up.csv").write_text("time,requests\n0,5\n10,20\n20,40\n")
    (tmp_path / "down.csv").write_text("time,requests\n20,40\n10,20\n0,5\n")
    up, down = trace.read_counts(tmp_path / "up.csv"), trace.read_counts(tmp_path / "down.csv")
    np.testing.assert_array_equal(down.values, up.values)
    assert (down.start, down.step) == (up.start, up.step) and up.values[0] == 0.5


def test_the_world_cup_counts_are_read_whole() -> None:
    if not WORLDCUP98.exists():
        pytest.skip(WORLDCUP98_MISSING)
    series = trace.read_trace(WORLDCUP98)
    assert series.step == 60
    assert series.values.max() * 60 == 229426
    assert (
        1_352_804_107 <= series.values.sum() * 60 <= 1_352_804_107 * 1.0001
    )  # the few bridged minutes add a little


def _csv(rows: list[tuple[int, int]]) -> str:
    return "\n".join(",".join(map(str, row)) for row in itertools.chain([("time", "requests")], rows)) + "\n"


@pytest.mark.stress
@pytest.mark.parametrize("line", ["\x1f1", "\u00a01 ", "1" * 13, "\u00b2", "-1", "1e3", "1 2"])
def test_a_line_is_a_count_or_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.req").write_text(f"{line}\n", encoding="utf-8")
    try:
        assert trace.read_req(tmp_path / "x.req").tolist() == [1]
    except DataError as error:
        assert "x.req:1: expected one integer" in str(error) and line.strip() != "1"
