"""Quantities such as `250m`, `1.5` or `64Mi`."""

from __future__ import annotations

import re
from decimal import Decimal

RULE = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_TEXT = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {name: 1024**power for power, name in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}


def value(quantity: object) -> Decimal:
    """What a quantity stands for.

    Raises:
        ValueError: it is none.
    """
    found = _TEXT.fullmatch(str(quantity))
    if found is None or isinstance(quantity, bool):
        raise ValueError(RULE)
    number, suffix = Decimal(found[1]), found[2] or ""
    if suffix in _BINARY:
        return number * Decimal(_BINARY[suffix])
    return number.scaleb(_DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:] or 0))


def text(amount: Decimal, binary: bool) -> str:
    """A quantity as the API writes it: the largest unit that leaves a whole number.

    Args:
        amount: what it stands for.
        binary: whether units are `Ki`, `Mi`, …, as for memory.
    """
    if not amount:
        return "0"
    if binary and amount == amount.to_integral_value():
        fit = [name for name, size in _BINARY.items() if amount % size == 0]
        return f"{int(amount / _BINARY[fit[-1]])}{fit[-1]}" if fit else str(int(amount))
    whole = amount == amount.to_integral_value()
    return str(int(amount)) if whole else f"{int(amount.scaleb(3).to_integral_value('ROUND_CEILING'))}m"
