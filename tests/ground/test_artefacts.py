"""Files are written whole or not at all, a CSV that can't be read is named, and times are UTC."""

import os

import pytest

from deepscaler.artefacts import one_line, read_csv, replacing, utc_seconds, utc_text
from deepscaler.errors import DataError

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
