"""Make a load trace.

python sendFlow/make_trace.py [--shape sharp_increase --seed 1 --out sharp_increase.req]

Without a shape it makes the README's: 903 values between 25 and 100 users, smooth. Its values follow a cosine
path between random levels, bent until their mean is right and roughened until the standard deviation of the
step is. Only Python's own `random` is used, whose stream is the same on every version and machine. The shapes
are those of sendFlow/shapes.py.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

README = "random-100max"
COUNT, LOW, HIGH, MEAN, STEP_DEVIATION = 903, 25, 100, 47.8, 1.63
SEED = 206  # one of the seeds whose largest step is 9
SHAPE_OPTIONS = {"duration": 3600.0, "low": 25.0, "high": 95.0, "noise": 2.0, "period": 700.0}
"""Options of a shape and their defaults; the trace of the README has none of these."""
WITH_A_COURSE = ("course", "cycle")
"""Shapes whose levels stand in settings (`testbed.load.course`)."""
MOST_SEED = 2**32 - 1
MOST_SECONDS = 100 * 86400.0
MOST_LEVEL = 1e8
"""Users of a shape at the most, before an increase or noise."""


def make_trace(seed: int = SEED) -> list[int]:
    """The trace of the README: numbers of users, one per 5 s."""
    stream = random.Random(seed)
    path = _path(stream)
    noise = [sum(stream.random() for _ in range(12)) - 6 for _ in range(COUNT)]  # near normal, without libm

    def values(power: float, size: float) -> list[int]:
        return [
            min(max(round(LOW + (HIGH - LOW) * x**power + size * n), LOW), HIGH)
            for x, n in zip(path, noise, strict=True)
        ]

    def too_low(size: float, power: float) -> float:
        return MEAN - statistics.fmean(values(power, size))

    def too_rough(power: float, size: float) -> float:
        return step_deviation(values(power, size)) - STEP_DEVIATION

    power, size = 1.0, 0.5
    for _ in range(6):
        power = _solve(partial(too_low, size), 0.2, 5.0)
        size = _solve(partial(too_rough, power), 0.0, 3.0)
    return values(power, size)


def step_deviation(values: list[int]) -> float:
    """Standard deviation of the difference between neighbouring values."""
    return statistics.pstdev(after - before for before, after in itertools.pairwise(values))


def _path(stream: random.Random) -> list[float]:
    """A smooth path through random levels, from 0 at its lowest to 1 at its highest."""
    path: list[float] = []
    level = stream.random()
    while len(path) < COUNT:
        following, length = stream.random(), 12 + int(stream.random() * 50)
        path += [
            level + (following - level) * (1 - math.cos(math.pi * i / length)) / 2 for i in range(length)
        ]
        level = following
    path = path[:COUNT]
    low, high = min(path), max(path)
    return [(x - low) / (high - low) for x in path]


def _solve(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function crosses 0, found by bisection."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def make_shape(
    shape: str, seed: int, duration: float, low: float, high: float, noise: float, period: float
) -> list[int]:
    """A generated shape: numbers of users, one per 5 s.

    Raises:
        SettingsError: low above high, or too short a period.
    """
    from deepscaler.settings import Load
    from sendFlow.shapes import as_users, shape_values

    load = Load(shape=shape, low=low, high=high, noise=noise, period=period)
    return [int(value) for value in as_users(shape_values(load, duration, seed))]


def build_parser() -> argparse.ArgumentParser:
    """Flags of this script."""
    from sendFlow.flags import number, whole
    from sendFlow.shapes import SHAPES

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shape",
        choices=[README, *(name for name in SHAPES if name not in WITH_A_COURSE)],
        default=README,
        help="shape of the load (default: the trace of the README)",
    )
    parser.add_argument(
        "--seed",
        type=whole(0, MOST_SEED),
        help="1-999 train, 1000-1999 validate, 2000-2999 test (default: the README's; 1 for a shape)",
    )
    parser.add_argument(
        "--output",
        "--out",
        type=Path,
        help=".req to write (default: beside this script, named by shape and seed)",
    )
    shapes = parser.add_argument_group("options of a shape; the trace of the README has none of these")
    of_a_shape = {
        "duration": (number(5.0, MOST_SECONDS), "seconds"),
        "low": (number(0.001, MOST_LEVEL), "users"),
        "high": (number(0.001, MOST_LEVEL), "users"),
        "noise": (number(0.0, MOST_LEVEL), "standard deviation of the noise, users"),
        "period": (number(1.0, 1e9), "seconds of a fluctuation or square wave"),
    }
    for name, (kind, what) in of_a_shape.items():
        shapes.add_argument(f"--{name}", type=kind, help=f"{what} (default: {SHAPE_OPTIONS[name]:g})")
    return parser


def _values(parser: argparse.ArgumentParser, given: argparse.Namespace) -> tuple[str, list[int]]:
    """Usual name and values of the trace that is asked for."""
    from deepscaler.errors import DeepScalerError

    options: dict[str, Any] = {name: getattr(given, name) for name in SHAPE_OPTIONS}
    asked = {name: value for name, value in options.items() if value is not None}
    if given.shape == README:
        if asked:
            named = ", ".join(f"--{name}" for name in asked)
            parser.error(f"{named}: the trace of the README has no such option; add --shape, such as square")
        if given.seed is not None and given.output is None:
            parser.error(f"--seed: it would replace {README}.req by another trace; add --shape or --output")
        return f"{README}.req", make_trace(SEED if given.seed is None else given.seed)
    seed = 1 if given.seed is None else given.seed
    try:
        return f"{given.shape}-{seed}.req", make_shape(given.shape, seed, **{**SHAPE_OPTIONS, **asked})
    except DeepScalerError as error:
        parser.error(str(error).replace("testbed.load.", "--"))


def main(argv: list[str] | None = None) -> int:
    """Write the trace and say what it is like."""
    from sendFlow.trace import USERS

    parser = build_parser()
    given = parser.parse_args(argv)
    if given.output and given.output.suffix not in USERS:
        parser.error(f"--output {given.output}: expected a name that ends in .req (users, one per 5 s)")
    name, values = _values(parser, given)
    output = given.output or Path(__file__).with_name(name)
    try:
        output.write_text("".join(f"{value}\n" for value in values), encoding="utf-8", newline="\n")
    except OSError as error:
        parser.error(f"--output {output}: can't be written ({error.strerror})")
    steps = [after - before for before, after in itertools.pairwise(values)] or [0]
    print(
        f"{output}: {len(values)} values, {min(values)}-{max(values)}, mean {statistics.fmean(values):.2f}, "
        f"step deviation {statistics.pstdev(steps):.2f}, largest step {max(map(abs, steps))}"
    )
    return 0


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, instead of this directory
    raise SystemExit(main())
