"""Columns of a table stand below each other."""

from deepscaler.text import aligned

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
