"""Tables in plain text."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], numbers: bool = False, rule: bool = False) -> list[str]:
    """Lines in which the cells of a column stand below each other, two spaces between columns.

    Args:
        rows: cells; the first row is the heading. All rows have the same number of cells. Without rows there
            are no lines.
        numbers: all columns but the first are flush right, as figures are; False: all are flush left.
        rule: draw a line of dashes below the heading.
    """
    if not rows:
        return []
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(_padded(row, widths, numbers)).rstrip() for row in rows]
    return [lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]] if rule else lines


def _padded(row: Sequence[str], widths: Sequence[int], numbers: bool) -> list[str]:
    return [
        cell.rjust(width) if numbers and index else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
