"""Tables in plain text, and pages of which a command writes parts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from deepscaler.errors import DataError


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


def put_blocks(page: str, blocks: Mapping[str, str], command: str) -> str:
    """The page with each block's text between its two marks.

    A block begins after the line `<!-- made by COMMAND: NAME -->` and ends before `<!-- end of NAME -->`.

    Args:
        page: a text with marks.
        blocks: name -> text, without a line feed at its end.
        command: what writes them, as it stands in the marks.

    Raises:
        DataError: a mark is missing, or there several times.
    """
    for name, text in blocks.items():
        begin, end = f"<!-- made by {command}: {name} -->", f"<!-- end of {name} -->"
        pattern = f"({re.escape(begin)}\n).*?({re.escape(end)})"
        found = re.findall(pattern, page, flags=re.DOTALL)
        if len(found) != 1:
            raise DataError(
                f"the page has {len(found)} blocks {name!r}, expected one between {begin} and {end}"
            )
        before, _, rest = page.partition(f"{begin}\n")
        page = f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}"
    return page
