"""Rails that hold at certain times or for several services together: the calendar, and linear constraints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from deepscaler.settings.base import Count, Positive, Section


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("not a time zone such as Europe/Berlin or UTC") from error
    return name


def _text(value: Any) -> Any:
    """YAML reads an unquoted 2026-11-27T08:00:00 as a time already."""
    return value.isoformat() if isinstance(value, datetime) else value


def _cron_or_date(text: str) -> str:
    if moment_of(text, "UTC") is None:
        try:
            next(CronSim(text, datetime(2026, 1, 1, tzinfo=UTC)))
        except (CronSimError, StopIteration) as error:
            raise ValueError(
                'neither a time such as 2026-11-27T08:00 nor five fields of cron such as "0 8 * * 1-5"'
            ) from error
    return text


def moment_of(text: str, zone: str) -> datetime | None:
    """The moment that a date states, in its own offset or else in the zone; None if it is no date."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=ZoneInfo(zone))


Edge = Annotated[str, BeforeValidator(_text), AfterValidator(_cron_or_date)]
"""When something begins or ends, each time (five fields of cron) or once (a date and a time)."""


class CalendarEntry(Section):
    """A higher minimum at certain times."""

    services: list[str] = Field([], description="services that it holds for; empty: all")
    min_replicas: Count = Field(description="fewest replicas of each of them meanwhile")
    begin: Edge = Field(
        description='when it begins: five fields of cron ("0 8 * * 1-5"), or a date (2026-11-27T08:00)'
    )
    end: Edge = Field(description="when it ends, likewise: cron if `begin` is cron, else a later date")
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        "UTC",
        description="time zone of both (Europe/Berlin), with its summer time; "
        "a date with an offset of its own needs none",
    )

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        begin, end = (moment_of(text, self.time_zone) for text in (self.begin, self.end))
        if (begin is None) != (end is None):
            raise ValueError("begin and end: both cron, or both dates")
        if begin is not None and end is not None and begin >= end:
            raise ValueError(f"end {self.end} is not after begin {self.begin}")
        if begin is None and self.begin.split() == self.end.split():
            raise ValueError(f"begin and end are the same: {self.begin!r}")
        return self


class Constraint(Section):
    """Services that share something: the sum of replicas x what each takes stays within what there is."""

    name: str = Field(description="what is shared, for people (connections of the database)")
    takes: dict[str, Positive] = Field(
        description="what one replica of each of these services takes", strict=False, min_length=1
    )
    at_most: Positive = Field(description="what there is in all")
    reduce: list[str] = Field(
        description="the services whose replicas are cut until it fits, the first one first and down to its "
        "minimum before the next; those that aren't named are never cut"
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        for service in self.reduce:
            if service not in self.takes:
                raise ValueError(f"reduce: {service!r} takes nothing; takes has {', '.join(self.takes)}")
        if len(set(self.reduce)) < len(self.reduce):
            raise ValueError("reduce: a service is named twice")
        return self
