"""The span of time that a user asks to collect."""

from __future__ import annotations

import re

import numpy as np

from deepscaler.artefacts import utc_seconds, utc_text
from deepscaler.errors import SettingsError
from deepscaler.settings import Settings

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""Seconds per unit of a duration."""


def asked_span(
    settings: Settings, start: str | None, end: str | None, last: str | None, now: float
) -> tuple[float, float]:
    """Times of the first and of the last sample, in seconds since the epoch, multiples of the step.

    On a real cluster the last sample isn't later than `now`: a sample of the future would be written as
    missing for good. On the testbed, time is simulated and begins at `testbed.start`. So does the span, but
    where `last` says how far it reaches back from an end that is given.

    Args:
        settings: of the application; `collect` says what the arguments leave open.
        start: `--start`, ISO 8601; None without.
        end: `--end`, ISO 8601; None without.
        last: `--last`, a duration; None without.
        now: the present time in seconds since the epoch.

    Raises:
        SettingsError: a text isn't a time or a duration, or no sample lies in the span.
    """
    collect, step = settings.collect, settings.collect.step
    first = _moment("--start", start or (None if last else collect.start))
    final = _moment("--end", end or collect.end)
    length = collect.last if last is None else duration_seconds(last)
    if settings.cluster.kind == "testbed":
        begin = utc_seconds(settings.testbed.start)
        back = final - length if last is not None and final is not None else begin
        first = max(back, begin) if first is None else first
        final = first + length if final is None else final
    else:
        final = min(now, np.inf if final is None else final)
        first = final - length if first is None else first
    on_grid = np.ceil(first / step - 1e-6) * step, np.floor(final / step + 1e-6) * step
    if on_grid[0] > on_grid[1]:
        raise SettingsError(
            f"nothing between start {utc_text(first)} and end {utc_text(final)} (now at the latest): "
            f"no sample of {step:g} s"
        )
    return float(on_grid[0]), float(on_grid[1])


def _moment(flag: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return utc_seconds(text)
    except ValueError as error:
        raise SettingsError(f"{flag} {text}: not an ISO 8601 time such as 2026-01-05T00:00:00Z") from error


def duration_seconds(text: str) -> float:
    """The seconds of `3600`, `90m`, `12h` or `4d`.

    Raises:
        SettingsError: it is none of these, or not above 0.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text.strip())
    if not found or float(found[1]) <= 0:
        raise SettingsError(f"--last {text}: expected seconds, or a number with s, m, h or d (90m, 4d)")
    return float(found[1]) * UNITS[found[2]]
