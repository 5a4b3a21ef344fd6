"""Minimums that hold at certain times, by cron or by dates, in the time zone of their owner.

Cron is read as Debian's cron reads it: what would begin in the hour that summer time skips begins right after
it, and what would begin in the hour that comes twice begins once. Source: cronsim.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim

from deepscaler.settings import CalendarEntry
from deepscaler.settings.rails import moment_of


class Calendar:
    """Tells the minimums of a moment.

    Args:
        entries: those of the settings.
    """

    def __init__(self, entries: Sequence[CalendarEntry]) -> None:
        self._entries = [(entry, _Span(entry)) for entry in entries]

    def minimums(self, services: Sequence[str], now: float) -> dict[str, int]:
        """Service -> the highest minimum that holds at `now` (seconds since the epoch), if any does."""
        found: dict[str, int] = {}
        for entry, span in self._entries:
            if span.holds(now):
                for service in services:
                    if not entry.services or service in entry.services:
                        found[service] = max(found.get(service, 0), entry.min_replicas)
        return found


class _Span:
    """When one entry holds. What was found is kept until its next edge, or until the clock is set back."""

    def __init__(self, entry: CalendarEntry) -> None:
        self._zone, self._crons = ZoneInfo(entry.time_zone), (entry.begin, entry.end)
        self._dates = [moment_of(text, entry.time_zone) for text in self._crons]
        self._known = (1.0, 0.0, False)  # from, until, whether it holds then

    def holds(self, now: float) -> bool:
        """Whether it holds at `now`; its begin counts, its end doesn't."""
        begin, end = self._dates
        if begin is not None and end is not None:
            return begin.timestamp() <= now < end.timestamp()
        if not self._known[0] <= now < self._known[1]:
            here = datetime.fromtimestamp(now, UTC).astimezone(self._zone)
            # In an hour that comes twice, the next one by the wall clock may be over.
            coming = ((each.timestamp() for each in CronSim(cron, here)) for cron in self._crons)
            opens, closes = (next(moment for moment in moments if moment > now) for moments in coming)
            self._known = (now, min(opens, closes), closes < opens)
        return self._known[2]
