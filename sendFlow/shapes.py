"""Generated load: the five shapes of the README and more, by seed, without Locust.

A shape moves between `load.low` and `load.high` and carries normal noise. Everything is drawn from streams
that belong to (seed, shape), so one seed is one load for every policy, in virtual time and behind Locust.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deepscaler.errors import SettingsError
from deepscaler.settings import Load
from sendFlow.trace import MOST_USERS

DAY = 86400.0
MOST_VALUES = 50_000_000
MOST_PERIODS = 100_000
Floats = NDArray[np.float64]


def times_of(load: Load, duration: float) -> Floats:
    """Seconds from 0 every `load.step` below `duration`, `[K]`.

    Raises:
        SettingsError: these are more than `MOST_VALUES`.
    """
    if not duration / load.step <= MOST_VALUES:
        raise SettingsError(
            f"testbed.load.step: {load.step:g} s makes {duration / load.step:g} values of a load of "
            f"{duration:g} s, more than {MOST_VALUES:,}; raise the step or shorten the load"
        )
    return np.arange(int(np.ceil(duration / load.step - 1e-9)), dtype=np.float64) * np.float64(load.step)


def shape_values(load: Load, duration: float, seed: int) -> Floats:
    """The load of a generated shape at each of `times_of(load, duration)`, with noise, `[K]`.

    Raises:
        KeyError: `load.shape` is not one of `SHAPES`.
        SettingsError: low above high, `period` above `longest_period`, or a number beyond all bounds.
    """
    _check(load, duration)
    times, load = times_of(load, duration), _with_period(load, seed)
    held = load.hold if load.shape in ONCE else 0.0
    begun, lasts = np.maximum(times - held, 0.0), max(duration - held, load.step)
    values = SHAPES[load.shape](begun, load, lasts, stream(seed, load.shape, 0))
    return values * load.scale + load.noise * stream(seed, load.shape, 1).standard_normal(len(times))


def as_users(values: Floats) -> NDArray[np.int64]:
    """Whole users, at least one, `[K]`.

    Raises:
        SettingsError: these are more than `MOST_USERS`, or no numbers.
    """
    if not (values <= MOST_USERS).all():
        raise SettingsError(
            f"testbed.load: it reaches {values.max():g} users, more than {MOST_USERS:,}; lower "
            "testbed.load.high, testbed.load.low, testbed.load.noise or testbed.load.scale"
        )
    return np.maximum(np.rint(values), 1).astype(np.int64)


def stream(seed: int, shape: str, part: int) -> np.random.Generator:
    """The random numbers of one part (0: form, 1: noise, 2: period) of a shape."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(shape.encode()), part]))


def _check(load: Load, duration: float) -> None:
    levels = {"low": load.low * load.scale, "high": load.high * load.scale, "noise": load.noise}
    for name, value in levels.items():
        if value > MOST_USERS:
            scaled = " or testbed.load.scale" if load.scale > 1 and name != "noise" else ""
            raise SettingsError(
                f"testbed.load.{name}: {value:g} users, more than {MOST_USERS:,}; lower it{scaled}"
            )
    if load.low > load.high:
        raise SettingsError(f"testbed.load.low: {load.low:g} is above testbed.load.high {load.high:g}")
    if duration / load.period > MOST_PERIODS:
        raise SettingsError(
            f"testbed.load.period: {load.period:g} s makes more than {MOST_PERIODS:,} periods of a load of "
            f"{duration:g} s; raise it"
        )


def _with_period(load: Load, seed: int) -> Load:
    if load.longest_period is None:
        return load
    edges = load.period, load.longest_period
    if edges[0] > edges[1]:
        raise SettingsError(
            f"testbed.load.longest_period: {edges[1]:g} is below testbed.load.period {edges[0]:g}"
        )
    period = float(np.exp(stream(seed, load.shape, 2).uniform(*np.log(edges))))
    return load.model_copy(update={"period": period})


# ----------------------------------------------------------------------------------------------------- shapes
def _steady(times: Floats, load: Load, duration: float, random: np.random.Generator) -> Floats:
    return np.full(len(times), (load.low + load.high) / 2)


def _slight_increase(times: Floats, load: Load, duration: float, random: np.random.Generator) -> Floats:
    return load.low * (1 + 0.8 * times / duration)


def _slight_decrease(times: Floats, load: Load, duration: float, random: np.random.Generator) -> Floats:
    return load.high * (1 - 0.4 * times / duration)


def _rise(times: Floats, duration: float, random: np.random.Generator) -> Floats:
    """0 at first, 1 at the end; the rise begins after 30-50 % of the time and takes 0-30 s."""
    at, takes = random.uniform(0.3, 0.5) * duration, random.uniform(0.0, 30.0)
    return np.clip((times - at) / max(takes, 1e-9), 0.0, 1.0)


def _sharp_increase(times: Floats, load: Load, duration: float, random: np.random.Generator) -> Floats:
    return load.low + (load.high - load.low) * _rise(times, duration, random)


def _sharp_decrease(times: Floats, load: Load, duration: float, random: np.random.Generator) -> Floats:
    return load.high - (load.high - load.low) * _rise(times, duration, random)


def _fluctuation(times: Floats, load: Load, duration: float, random: np.random.Generator) -> Floats:
    """A sine from low to high; the seed draws its phase."""
    phase = random.uniform(0, 2 * np.pi)
    return (load.low + load.high) / 2 + (load.high - load.low) / 2 * np.sin(
        2 * np.pi * times / load.period + phase
    )


def _square(times: Floats, load: Load, duration: float, random: np.random.Generator) -> Floats:
    """Low for half of each period, high for the other half; the seed draws where it begins."""
    turn = (times / load.period + random.uniform()) % 1.0
    return np.where(turn < 0.5, load.low, load.high)


def _diurnal(times: Floats, load: Load, duration: float, random: np.random.Generator) -> Floats:
    """Days with a quiet night, two peaks and flash crowds; a shorter duration is one compressed day."""
    day = min(DAY, duration)
    turn, number = times / day, np.floor(times / day).astype(np.int64)
    days = int(number.max(initial=0)) + 1
    shape = 0.5 - 0.38 * np.cos(2 * np.pi * turn) - 0.12 * np.cos(4 * np.pi * turn + 0.5)
    draws = random.uniform(size=(days, 8))  # one row per day, so that a longer run begins with the same days
    level = 0.65 * (0.8 + 0.2 * draws[number, 0]) * shape
    for row, draw in enumerate(draws):
        for at, height, takes in (draw[1:4], draw[4:7]) if draw[7] < 0.5 else (draw[1:4],):
            since = times - (row + at) * day
            rise, fall = day * (0.001 + 0.004 * takes), day * (0.01 + 0.03 * takes)
            crowd = np.where(
                since < rise, np.clip(since / rise, 0, 1), np.exp(-np.maximum(since - rise, 0) / fall)
            )
            level = level + (0.2 + 0.4 * height) * crowd
    offered: Floats = load.low + (load.high - load.low) * np.clip(level, 0.0, 1.0)
    return offered


def _course(times: Floats, load: Load, duration: float, random: np.random.Generator) -> Floats:
    """The levels of `load.course`, linear between them; the first and the last one hold before and after."""
    seconds, levels = np.array(load.course, np.float64).T
    levels_now: Floats = np.interp(times, seconds, levels)
    return load.low + (load.high - load.low) * levels_now


def _cycle(times: Floats, load: Load, duration: float, random: np.random.Generator) -> Floats:
    """The course again and again, once per period; the seed draws where it begins."""
    return _course((times + random.uniform() * load.period) % load.period, load, duration, random)


def _bursts(times: Floats, load: Load, duration: float, random: np.random.Generator) -> Floats:
    """Low, with bursts at random: on average one per period, of 2-8 % of it, up to high."""
    level = np.zeros(len(times))
    for _ in range(int(random.poisson(duration / load.period))):
        at, width = random.uniform(0, duration), random.uniform(0.01, 0.04) * load.period
        here = slice(*np.searchsorted(times, [at - 40 * width, at + 40 * width]))  # elsewhere exp gives 0
        level[here] += random.uniform(0.25, 1.0) * np.exp(-0.5 * ((times[here] - at) / width) ** 2)
    return load.low + (load.high - load.low) * np.minimum(level, 1.0)


def _mixed(times: Floats, load: Load, duration: float, random: np.random.Generator) -> Floats:
    """Segments of 20-60 min, each of another shape with its own levels and period: a load to train on."""
    values = np.empty(len(times))
    begin, end, kind = 0.0, float(times[-1]) if len(times) else -1.0, ""
    while begin <= end:
        length = random.uniform(1200, 3600)
        kind = str(random.choice([name for name in SEGMENTS if name != kind]))
        spread = load.high - load.low
        low = load.low + 0.4 * spread * random.uniform()
        high = min(low + spread * random.uniform(0.3, 1.0), load.high)
        segment = load.model_copy(
            update={"low": low, "high": high, "period": load.period * random.uniform(0.5, 1.3)}
        )
        own = np.random.default_rng(random.integers(1 << 62))
        here = slice(*np.searchsorted(times, [begin, begin + length]))
        values[here] = np.clip(SEGMENTS[kind](times[here] - begin, segment, length, own), load.low, load.high)
        begin += length
    return values


Shape = Callable[[Floats, Load, float, np.random.Generator], Floats]
SEGMENTS: dict[str, Shape] = {
    "steady": _steady,
    "slight_increase": _slight_increase,
    "slight_decrease": _slight_decrease,
    "sharp_increase": _sharp_increase,
    "sharp_decrease": _sharp_decrease,
    "fluctuation": _fluctuation,
    "square": _square,
    "diurnal": _diurnal,
}
ONCE = ("slight_increase", "slight_decrease", "sharp_increase", "sharp_decrease")
"""Shapes that come once: `load.hold` keeps their first value until they begin."""
SHAPES: dict[str, Shape] = {
    **SEGMENTS,
    "mixed": _mixed,
    "course": _course,
    "cycle": _cycle,
    "bursts": _bursts,
}
"""Every generated shape."""
