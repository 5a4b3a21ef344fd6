"""What all sections of settings share: strictness, and the types that several of them use."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from deepscaler.artefacts import utc_seconds

Positive = Annotated[float, Field(gt=0)]
"""A number above 0."""
NotNegative = Annotated[float, Field(ge=0)]
"""A number that is 0 or more."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1."""
Count = Annotated[int, Field(ge=1)]
"""A whole number that is 1 or more."""
Port = Annotated[int, Field(ge=0, le=65535)]
"""A TCP port; 0 is any free one where we listen."""
Url = Annotated[str, Field(pattern=r"^https?://[^/\s@]+(/\S*)?$")]
"""An http(s) URL without a user name in it."""
Feature = Literal["pod", "cpu", "mem", "res", "req"]
"""A metric of one service, by the names that the README explains."""


Name = Annotated[str, Field(pattern=r"^\S+$")]
"""A name without white space."""


def _text_of_time(value: Any) -> Any:
    """The text of a time, checked; YAML reads an unquoted 2026-01-05T00:00:00Z as a time already.

    Values of other types are returned as they are: pydantic refuses them.
    """
    if isinstance(value, date):
        value = value.isoformat()
    if isinstance(value, str):
        try:
            utc_seconds(value)
        except ValueError as error:
            raise ValueError("not an ISO 8601 time such as 2026-01-05T00:00:00Z") from error
    return value


Moment = Annotated[str, BeforeValidator(_text_of_time)]
"""An ISO 8601 time as text; without an offset it is UTC."""


class Section(BaseModel):
    """A block of settings: types are strict, and values can't be changed.

    Unknown keys and numbers that aren't finite are refused.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
