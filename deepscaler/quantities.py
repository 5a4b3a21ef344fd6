"""Kubernetes quantities such as `250m`, `1.5` or `64Mi`: their value, and how the API server writes them."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from functools import lru_cache

_POWERS_OF_TEN = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {name: 1024**power for power, name in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}

_MOST_DIGITS = 60
"""No quantity has more digits before or after the point: int64 with nine digits behind it, and the suffix."""


@lru_cache(4096)
def parse_quantity(text: str | float) -> Decimal:
    """The value of a quantity such as `100m`, `0.1`, `64Mi` or `1e3`.

    Raises:
        ValueError: the text is no quantity.
    """
    digits = str(text)
    suffix = next((name for name in (*_BINARY, *_POWERS_OF_TEN) if name and digits.endswith(name)), "")
    try:
        number = Decimal(digits.removesuffix(suffix))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or abs(number.adjusted()) > _MOST_DIGITS:
        raise ValueError(f"{text!r} is not a Kubernetes quantity such as 100m, 0.1 or 64Mi")
    return number * _BINARY[suffix] if suffix in _BINARY else number.scaleb(_POWERS_OF_TEN[suffix])


def canonical_quantity(text: str | float) -> str:
    """The quantity as the API server writes it.

    A decimal quantity gets the largest suffix that leaves an integer. A binary one (`64Mi`) stays as it is.

    Raises:
        ValueError: the text is no quantity.
    """
    if str(text).endswith("i"):
        return str(text)
    value = parse_quantity(text)
    if not value:
        return "0"
    for suffix, power in sorted(_POWERS_OF_TEN.items(), key=lambda item: -item[1]):
        scaled = value.scaleb(-power)
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{suffix}"
    return f"{math.ceil(value.scaleb(9))}n"
