"""What all sections of settings share: strictness, and the types that several of them use."""

from __future__ import annotations

import re
from collections import Counter
from datetime import date
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from deepscaler.artefacts import utc_seconds
from deepscaler.scrubbing import hide, is_secret_name

Positive = Annotated[float, Field(gt=0)]
"""A number above 0."""
NotNegative = Annotated[float, Field(ge=0)]
"""A number that is 0 or more."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1."""
Count = Annotated[int, Field(ge=1)]
"""A whole number that is 1 or more."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""A seed of random numbers."""


def _once(seeds: list[int]) -> list[int]:
    twice = [seed for seed, count in Counter(seeds).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]} stands there twice; one load counts once")
    return seeds


Seeds = Annotated[list[Seed], AfterValidator(_once)]
"""Seeds that are all different: two runs of one load are no further evidence."""
Replicas = Annotated[int, Field(ge=1, le=10_000)]
"""Replicas of one service; more than that is a slip of the pen."""
Span = Annotated[float, Field(ge=0, le=3_162_240_000)]
"""Seconds, at most a hundred years."""
Port = Annotated[int, Field(ge=0, le=65535)]
"""A TCP port; 0 is any free one where we listen."""


def _with_a_way(url: str) -> str:
    """The URL, if it leads to a host and a port that can be."""
    parts = urlsplit(url)  # a ValueError says what is wrong with host or port
    if not parts.hostname or parts.port == 0:
        raise ValueError("a host is missing, or the port is 0")
    return url


Url = Annotated[str, Field(pattern=r"^https?://[^/\s@?#]+(/[^\s@?#]*)?$"), AfterValidator(_with_a_way)]
"""An http(s) URL without a user name, parameters or a fragment in it: those are no place for secrets."""
RHO_MAX = 0.9
"""Highest utilisation of the CPU limit where neither a setting nor a fit says otherwise."""
RhoMax = Annotated[float, Field(gt=0, lt=1)] | Literal["auto"]
"""A highest utilisation of the CPU limit, or `auto`: what the demand fit says, by service."""
Feature = Literal["pod", "cpu", "mem", "res", "req"]
"""A metric of one service, by the names that the README explains."""


Name = Annotated[str, Field(pattern=r"^\S+$")]
"""A name without white space."""


def _hidden(value: Any) -> Any:
    """The value, which no message shows from now on."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        hide(str(value))
    return value


def _one_line(value: SecretStr) -> SecretStr:
    """A secret that fits into an HTTP header, without the line break that it may have at its end."""
    text = value.get_secret_value().strip()
    if not text or not all(" " <= char <= "~" or "\xa0" <= char <= "\xff" for char in text):
        raise ValueError("expected one line of characters that an HTTP header may have")
    return SecretStr(text)


Secret = Annotated[SecretStr, BeforeValidator(_hidden), AfterValidator(_one_line)]
"""A token or a password."""


def _headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError("expected names of HTTP headers")
        if is_secret_name(name):
            hide(value.get_secret_value())
    return {name: _one_line(value) for name, value in headers.items()}


Headers = Annotated[dict[str, SecretStr], AfterValidator(_headers)]
"""HTTP headers; their values aren't shown where settings are printed."""


LATEST_SECONDS = utc_seconds("9000-01-01")
"""Clocks and files know no year beyond 9999, and a load goes on after its start."""


def _text_of_time(value: Any) -> Any:
    """The text of a time, checked; YAML reads an unquoted 2026-01-05T00:00:00Z as a time already.

    Values of other types are returned as they are: pydantic refuses them.
    """
    if isinstance(value, date):
        value = value.isoformat()
    if isinstance(value, str):
        try:
            seconds = utc_seconds(value)
        except (ValueError, OverflowError) as error:
            raise ValueError("not an ISO 8601 time such as 2026-01-05T00:00:00Z") from error
        if not 0 <= seconds < LATEST_SECONDS:
            raise ValueError(f"a time from 1970 to 8999 is expected, found {value}")
    return value


Moment = Annotated[str, BeforeValidator(_text_of_time)]
"""An ISO 8601 time as text; without an offset it is UTC."""


class Section(BaseModel):
    """A block of settings: types are strict, and values can't be changed.

    Unknown keys and numbers that aren't finite are refused.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
