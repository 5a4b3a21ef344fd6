"""Make the README's load trace: 903 values between 25 and 100 users, smooth: python sendFlow/make_trace.py

The values follow a cosine path between random levels, bent until their mean is right and roughened until the standard
deviation of the step is. Only Python's own `random` is used, whose stream is the same on every version and machine.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

COUNT, LOW, HIGH, MEAN, STEP_DEVIATION = 903, 25, 100, 47.8, 1.63
SEED = 206  # one of the seeds whose largest step is 9


def make_trace(seed: int = SEED) -> list[int]:
    """The trace: users, one value for each 5 s."""
    stream = random.Random(seed)
    path = _path(stream)
    noise = [sum(stream.random() for _ in range(12)) - 6 for _ in range(COUNT)]  # near normal, without libm

    def values(power: float, size: float) -> list[int]:
        return [min(max(round(LOW + (HIGH - LOW) * x**power + size * n), LOW), HIGH) for x, n in zip(path, noise, strict=True)]

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
    """Standard deviation of the difference of neighbours."""
    return statistics.pstdev(after - before for before, after in itertools.pairwise(values))


def _path(stream: random.Random) -> list[float]:
    """A smooth path through random levels, from 0 at its lowest to 1 at its highest."""
    path: list[float] = []
    level = stream.random()
    while len(path) < COUNT:
        following, length = stream.random(), 12 + int(stream.random() * 50)
        path += [level + (following - level) * (1 - math.cos(math.pi * i / length)) / 2 for i in range(length)]
        level = following
    path = path[:COUNT]
    low, high = min(path), max(path)
    return [(x - low) / (high - low) for x in path]


def _solve(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function passes 0, by bisection."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def build_parser() -> argparse.ArgumentParser:
    """Flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("random-100max.req"))
    parser.add_argument("--seed", type=int, default=SEED)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Write the trace and say what it is like."""
    arguments = build_parser().parse_args(argv)
    values = make_trace(arguments.seed)
    arguments.output.write_text("".join(f"{value}\n" for value in values), encoding="utf-8", newline="\n")
    largest = max(abs(after - before) for before, after in itertools.pairwise(values))
    print(
        f"{arguments.output}: {len(values)} values, {min(values)}-{max(values)}, mean {statistics.fmean(values):.2f}, "
        f"step deviation {step_deviation(values):.2f}, largest step {largest}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
