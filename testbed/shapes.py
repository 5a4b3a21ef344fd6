"""Offered load over time: a generated shape (`sendFlow/shapes.py`) or a trace that is replayed in a loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepscaler.artefacts import utc_seconds
from deepscaler.errors import SettingsError
from deepscaler.settings import Load
from sendFlow.shapes import SHAPES, Floats, as_users, shape_values, times_of
from sendFlow.trace import MOST_USERS, README_TRACE, Series, read_trace

TRACES = (".req", ".csv", ".txt", ".gz")


def users(load: Load, duration: float, seed: int) -> tuple[Floats, NDArray[np.int64] | Floats]:
    """Times `[K]` (seconds from 0, `load.step` apart) and the load `[K]` that holds from each until the next.

    With `load.kind` closed these are users (integers, at least 1); with open, arrivals per second (floats, at
    least 0). An arrival is a user who does one task, of one request or several, and leaves. `load.shape` is
    one of `SHAPES`, `req` (the README's trace), or a path to `.req`, `.txt` or `.csv`; `#` and an ISO 8601
    time after a CSV say where in it to begin. Each value of a trace lasts `load.step` seconds. Counts of a
    CSV are taken as a rate per second; times `load.scale` they are users or arrivals per second.

    Raises:
        SettingsError: unknown shape (names those that are known), low above high, or a closed trace that
            never has a user.
        DataError: a trace is missing or broken.
    """
    times = times_of(load, duration)
    values = shape_values(load, duration, seed) if load.shape in SHAPES else _trace(times, load)
    return times, np.maximum(values, 0.0) if load.kind == "open" else as_users(values)


def earlier_users(load: Load, earlier: float, duration: float, seed: int) -> tuple[Floats, Floats]:
    """The load of the `earlier` seconds before a run, `[K]` each: seconds from its beginning, and values.

    A run of the trace begins where this ends, so a run that has something earlier is a part of a longer one.
    """
    times, values = users(load, earlier + duration, seed)
    before = times < earlier - 1e-9
    return times[before], np.asarray(values[before], np.float64)


def later_users(
    load: Load, earlier: float, duration: float, seed: int
) -> tuple[Floats, NDArray[np.int64] | Floats]:
    """As `users`, of the part that comes after the first `earlier` seconds."""
    times, values = users(load, earlier + duration, seed)
    after = times >= earlier - 1e-9
    return times[after] - earlier, values[after]


def _trace(times: Floats, load: Load) -> Floats:
    name, _, begin = load.shape.partition("#")
    path = README_TRACE if name == "req" else Path(name)
    if path.suffix not in TRACES:
        known = ", ".join([*SHAPES, "req"])
        raise SettingsError(
            f"testbed.load.shape: unknown shape {load.shape!r}; shapes: {known}; "
            f"or a path to a {', '.join(TRACES)} trace"
        )
    series = read_trace(path)
    if begin:
        try:
            series = series.since(utc_seconds(begin))
        except ValueError as error:
            raise SettingsError(
                f"testbed.load.shape: {load.shape!r}: {begin!r} is not an ISO 8601 time"
            ) from error
    if path.suffix == ".req":
        series = series.with_idle_ends()
    _check_users(series, load)
    values = series.adjusted(scale=load.scale, step=load.step).at(times)
    if load.kind == "open" and not values.max(initial=0.0) <= MOST_USERS:
        raise SettingsError(
            f"testbed.load.scale: {load.scale:g} makes more than {MOST_USERS:,} arrivals per second of {name}"
        )
    return values


def _check_users(series: Series, load: Load) -> None:
    """Refuse a closed load that is one user throughout, because a trace of users was taken for counts.

    Raises:
        SettingsError: it says which settings play the trace as it stands.
    """
    most = float(series.values.max()) * load.scale
    if load.kind == "closed" and most < 1:
        step = f"{series.step:g}"
        raise SettingsError(
            f"testbed.load.shape: {load.shape}: at its highest it has {most:.3g} users. Counts of a CSV are "
            f"divided by the {step} s between its rows, and each row plays {load.step:g} s; if they are "
            f"users, play them with testbed.load.scale={step} and testbed.load.step={step}"
        )
