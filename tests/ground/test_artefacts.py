"""Files are written whole or not at all, a CSV that can't be read is named, and times are UTC."""

import errno
import importlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.run_samples import endpoint_row, make_run

from deepscaler.artefacts import (
    ensure_writable,
    one_line,
    read_csv,
    replacing,
    utc_seconds,
    utc_text,
    write_json,
)
from deepscaler.errors import DataError, WriteError
from deepscaler.graphs.priors import write_graph
from deepscaler.runs import write_run
from sendFlow import make_trace

ROOT = Path(__file__).parents[2]

T0 = utc_seconds("2026-01-05T00:00:00Z")


def test_a_file_replaced_whole_is_readable_by_others(tmp_path):
    with replacing(tmp_path / "below" / "x.csv") as temporary:
        temporary.write_text("x")
        assert not (tmp_path / "below" / "x.csv").exists()
    assert (tmp_path / "below" / "x.csv").stat().st_mode & 0o044 == 0o044 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_times_are_utc_whatever_their_offset():
    assert (
        utc_seconds("2026-01-05T00:00:00")
        == utc_seconds("2026-01-05T01:00:00+01:00")
        == utc_seconds("2026-01-04T19:00-05:00")
        == T0
    )
    assert (
        utc_text(T0 + 0.25) == "2026-01-05T00:00:00.250Z" and utc_text(T0 + 59.9999) == "2026-01-05T00:01:00Z"
    )


# -------------------------------------------------------------------------------------------------------- CSV
def test_cells_are_text_as_written_unless_numbers_are_asked_for(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("name,value\n007,1.50\nNA,\n")
    assert read_csv(path).to_dict("list") == {"name": ["007", "NA"], "value": ["1.50", ""]}
    assert read_csv(path, header=False).iloc[0].tolist() == ["name", "value"]
    assert read_csv(path, text=False)["value"].tolist()[0] == 1.5
    assert read_csv(path, text=False).isna().sum().sum() == 2


def test_a_file_that_isnt_there_is_named_with_what_it_is_and_what_makes_it(tmp_path):
    path = tmp_path / "call.csv"
    with pytest.raises(DataError) as caught:
        read_csv(path, "graph", command="python data_process.py")
    assert str(caught.value) == f"{path}: no such graph; make it with: python data_process.py"
    with pytest.raises(DataError) as caught:
        read_csv(path)
    assert str(caught.value) == f"{path}: no such file"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a readable CSV (No columns to parse from file)"),
        (b"a,b\n1,2\n1,2,3\n", "not a readable CSV (Error tokenizing data"),
        (b"a,b\n\xff,2\n", "not a readable CSV ('utf-8' codec can't decode"),
        (b"a,c\n1,2\n", "column 'b' is missing; expected a, b"),
    ],
    ids=["empty", "broken line", "not text", "column missing"],
)
def test_a_broken_csv_is_one_line_that_says_where(tmp_path, content, says):
    path = tmp_path / "some.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_csv(path, columns=("a", "b"))
    assert str(caught.value).startswith(f"{path}: {says}") and "\n" not in str(caught.value)


def test_anything_fits_on_one_line_of_bounded_length():
    assert one_line(ValueError("first\n\tsecond  third ")) == "first second third"
    assert one_line("x" * 400) == "x" * 400
    assert one_line("x" * 401) == "x" * 399 + "…"
    assert one_line("four words of text", 10) == "four word…"


@pytest.mark.field
@pytest.mark.parametrize("blocked", ["run", "run/deeper/still"])
def test_a_place_that_cant_be_written_is_named_with_the_reason(tmp_path, blocked):
    (tmp_path / "run").touch()
    path = tmp_path / blocked / "x.json"
    for write in (lambda: write_json(path, {}), lambda: ensure_writable(path.parent)):
        with pytest.raises(WriteError, match=r"^[^\n]*run[^\n]*: can't be written \([^\n]+\)$"):
            write()


def test_a_full_disk_within_the_block_is_named_and_leaves_the_old_file(tmp_path):
    (tmp_path / "x").write_text("old")
    said = r"x: can't be written \(No space left on device\)"
    with pytest.raises(WriteError, match=said), replacing(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "x").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_another_files_error_within_the_block_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"), replacing(tmp_path / "x"):
        (tmp_path / "none").read_bytes()


def test_looking_whether_a_place_can_be_written_makes_nothing(tmp_path, monkeypatch):
    ensure_writable(tmp_path / "new" / "below")
    assert not list(tmp_path.iterdir())
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    with pytest.raises(WriteError, match="is no directory"):
        ensure_writable(tmp_path / "dangling" / "below")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(WriteError, match=r"below: can't be written \(no right to write in .*\)$"):
        ensure_writable(tmp_path / "new" / "below")


@pytest.mark.field
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("metrics_fetch", ["--config", "demo.yaml", "--set", "collect.output_dir=file"]),
        ("data_process", ["--config", "demo.yaml", "--set", "process.output_dir=file"]),
        ("predict_scale", ["--config", "demo.yaml", "--policy", "hpa_70", "--set", "scale.run_dir=file"]),
        ("calculate", ["--config", "demo.yaml", "--runs", "run-1", "--output", "file"]),
        ("similarity", ["--config", "demo.yaml", "--graphs", "a.csv", "b.csv", "--output", "file"]),
        ("deepscaler.settings.__main__", ["--docs", "file/settings.md"]),
        ("sendFlow.worldcup98", ["log", "--output", "file/counts.csv"]),
        ("sendFlow.worldcup98", ["log", "--output", "file/counts.req"]),
    ],
)
def test_a_script_says_in_a_line_that_its_output_cant_be_written(
    script, arguments, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for name in ("demo", "boutique"):
        (tmp_path / f"{name}.yaml").write_bytes((ROOT / "config" / f"{name}.yaml").read_bytes())
    write_run(make_run([endpoint_row(t, "GET /", 10, 0.1) for t in range(15, 915, 15)]), tmp_path / "run-1")
    for name, calls in (("a.csv", [[0, 1], [0, 0]]), ("b.csv", [[0, 0.5], [0, 0]])):
        write_graph(tmp_path / name, ("web", "api"), np.array(calls, float))
    (tmp_path / "log").write_bytes(struct.pack(">IIIIBBBB", 900_000_000, 1, 1, 100, 0, 2, 1, 0))
    assert importlib.import_module(script).main(arguments) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "can't be written (" in told and ": file" in told, told


def test_a_trace_that_cant_be_written_is_a_wrong_flag(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        make_trace.main(["--shape", "square", "--output", str(tmp_path / "file" / "x.req")])
    assert capsys.readouterr().err.endswith("x.req: can't be written (Not a directory)\n")
