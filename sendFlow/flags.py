"""Numbers within bounds, as types of argparse."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from deepscaler.artefacts import one_line

MOST_DIGITS = 18
"""An integer of more digits is beyond every bound."""


def number(least: float, most: float) -> Callable[[str], float]:
    """The type of a flag that takes a number from `least` to `most`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise _refusal("a number", least, most, text)
        return value

    return read


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of a flag that takes an integer from `least` to `most`."""

    def read(text: str) -> int:
        if not text.isdecimal() or len(text) > MOST_DIGITS or not least <= int(text) <= most:
            raise _refusal("an integer", least, most, text)
        return int(text)

    return read


def _refusal(what: str, least: float, most: float, text: str) -> argparse.ArgumentTypeError:
    found = one_line(text, 40)
    return argparse.ArgumentTypeError(f"expected {what} from {least:,.12g} to {most:,.12g}, found {found!r}")
