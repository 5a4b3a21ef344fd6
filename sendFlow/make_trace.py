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

README = "random-100max"
COUNT, LOW, HIGH, MEAN, STEP_DEVIATION = 903, 25, 100, 47.8, 1.63
SEED = 206  # one of the seeds whose largest step is 9


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
        SettingsError: low above high.
    """
    from deepscaler.settings import Load
    from sendFlow.shapes import as_users, shape_values

    load = Load(shape=shape, low=low, high=high, noise=noise, period=period)
    return [int(value) for value in as_users(shape_values(load, duration, seed))]


def build_parser() -> argparse.ArgumentParser:
    """Flags of this script."""
    from sendFlow.shapes import SHAPES

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shape",
        choices=[README, *SHAPES],
        default=README,
        help="shape of the load (default: the trace of the README)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        help="1-999 train, 1000-1999 validate, 2000-2999 test (default: the README's; 1 for a shape)",
    )
    parser.add_argument(
        "--output",
        "--out",
        type=Path,
        help="file to write (default: beside this script, named by shape and seed)",
    )
    shapes = parser.add_argument_group("options of a shape; the trace of the README has none of these")
    shapes.add_argument("--duration", type=_positive, default=3600.0, help="seconds (default: %(default)g)")
    shapes.add_argument("--low", type=_positive, default=25.0, help="users (default: %(default)g)")
    shapes.add_argument("--high", type=_positive, default=95.0, help="users (default: %(default)g)")
    shapes.add_argument(
        "--noise", type=float, default=2.0, help="standard deviation, users (default: %(default)g)"
    )
    shapes.add_argument(
        "--period",
        type=_positive,
        default=700.0,
        help="seconds of a fluctuation or square wave (default: %(default)g)",
    )
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a number > 0, found {text}")
    return value


def main(argv: list[str] | None = None) -> int:
    """Write the trace and say what it is like."""
    from deepscaler.errors import DeepScalerError

    parser = build_parser()
    given = parser.parse_args(argv)
    if given.shape == README:
        name, values = f"{README}.req", make_trace(SEED if given.seed is None else given.seed)
    else:
        seed = 1 if given.seed is None else given.seed
        name = f"{given.shape}-{seed}.req"
        try:
            values = make_shape(
                given.shape, seed, given.duration, given.low, given.high, max(given.noise, 0.0), given.period
            )
        except DeepScalerError as error:
            parser.error(str(error).replace("testbed.load.", "--"))
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
