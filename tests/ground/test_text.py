"""Columns of a table stand below each other."""

import pytest

from deepscaler.errors import DataError
from deepscaler.text import aligned, put_blocks

ROWS = [["policy", "cost"], ["hpa", "9.5"], ["deepscaler", "10.25"]]


def test_words_are_flush_left_without_blanks_at_the_end():
    assert aligned(ROWS) == ["policy      cost", "hpa         9.5", "deepscaler  10.25"]


def test_figures_are_flush_right_below_a_rule_as_wide_as_the_table():
    assert aligned(ROWS, numbers=True, rule=True) == [
        "policy       cost",
        "-----------------",
        "hpa           9.5",
        "deepscaler  10.25",
    ]


def test_a_table_without_rows_has_no_lines():
    assert aligned([]) == aligned([], rule=True) == []


BEGIN, END = "<!-- made by make x: a -->", "<!-- end of a -->"


def test_a_page_gets_its_blocks_between_their_marks_and_keeps_the_rest():
    page = f"Before\n{BEGIN}\nold\n{END}\nafter\n"
    once = put_blocks(page, {"a": r"| \1 new |"}, "make x")
    assert once == f"Before\n{BEGIN}\n| \\1 new |\n{END}\nafter\n"
    assert put_blocks(once, {"a": r"| \1 new |"}, "make x") == once


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n" * 2])
def test_a_page_without_its_marks_is_refused(page):
    with pytest.raises(DataError, match=r"blocks 'a', expected one between <!-- made by make x: a -->"):
        put_blocks(page, {"a": "text"}, "make x")
