"""What the answer to a range query says: series, and how complete they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from deepscaler.artefacts import one_line

_LAST_SECOND = 1e12
_Moment = Annotated[FiniteFloat, Field(ge=-_LAST_SECOND, le=_LAST_SECOND)]


class _Row(BaseModel):
    metric: dict[str, str]
    values: list[tuple[_Moment, float]] = []  # the floats are texts: JSON has neither NaN nor infinity


class _Data(BaseModel):
    result_type: str = Field(alias="resultType")
    result: list[Any]


_ROWS = TypeAdapter(list[_Row])
_DATA = TypeAdapter(_Data)


@dataclass(frozen=True, eq=False)
class Series:
    """One series as a store has it.

    Attributes:
        labels: its label set.
        moments: `[K]` seconds since the epoch.
        values: `[K]`; NaN and infinity where the store says so.
    """

    labels: Mapping[str, str]
    moments: NDArray[np.float64] = field(repr=False)
    values: NDArray[np.float64] = field(repr=False)


def read_matrix(answer: Mapping[str, Any]) -> list[Series]:
    """The series of an answer.

    Raises:
        ValueError: it isn't the answer to a range query; says what is wrong.
    """
    try:
        data = _DATA.validate_python(answer.get("data"))
        if data.result_type != "matrix":
            raise ValueError(f"resultType {one_line(data.result_type, 40)!r}")
        rows = _ROWS.validate_python(data.result)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        why = first["msg"].partition(" or instance of ")[0]
        raise ValueError(": ".join([".".join(map(str, first["loc"])) or "data", why])) from error
    numbers = chain.from_iterable(chain.from_iterable(row.values for row in rows))
    points = np.fromiter(numbers, np.float64).reshape(-1, 2)  # of all series at once: there are thousands
    ends = np.cumsum([len(row.values) for row in rows]).tolist()
    return [
        Series(row.metric, points[start:end, 0], points[start:end, 1])
        for row, start, end in zip(rows, [0, *ends], ends, strict=False)
    ]


def doubts(answer: Mapping[str, Any]) -> str:
    """What the server says of series that the answer may lack; "" where it is whole.

    Thanos and Prometheus's remote read say it in `warnings`, VictoriaMetrics in `isPartial`. What Prometheus
    remarks on the query itself says nothing of the data; such a warning begins with `PromQL`.
    """
    said = answer.get("warnings") or []
    warnings = [one_line(text) for text in (said if isinstance(said, list) else [said])]
    found = [text for text in warnings if not text.startswith("PromQL ")]
    if answer.get("isPartial") is True:
        found.append("isPartial: some of its storage nodes didn't answer")
    return "; ".join(found)
