"""Intervals of what isn't a mean: a rival's sweep read at equal cost or violations, and who is on the front.

Seeds are drawn with replacement, all policies with the same draws, and everything is worked out anew from
each draw's means. So an interval holds what chance of the seeds does to the means, to the choice of the
rival's settings and to the reading between them.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepscaler.statistics import nan_mean, percentile_tail

RESAMPLES = 4000
LEVEL = 0.95
FEWEST_SEEDS = 5
"""Of fewer no draw lies beyond the outermost seed often enough: of three, 27 of 100 intervals miss."""
Array = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Sample:
    """Violations and costs of one policy or several on the same seeds.

    Attributes:
        violations: `[..., S]` share of violating minutes per seed; NaN where unknown.
        costs: `[..., S]` core-hours per seed.
    """

    violations: Array
    costs: Array

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return int(self.costs.shape[-1])

    @property
    def points(self) -> list[tuple[float, float]]:
        """Mean violations and cost of each of the policies over these seeds."""
        return [
            (nan_mean(one), nan_mean(other)) for one, other in zip(self.violations, self.costs, strict=True)
        ]

    def means(self, draws: Array) -> tuple[Array, Array]:
        """Mean violations and costs `[..., B]` of each draw."""
        return drawn_means(self.violations, draws), drawn_means(self.costs, draws)


def draws_of(seeds: int, count: int = RESAMPLES, seed: int = 0) -> Array:
    """How often each draw has each seed, `[B, S]`; the first draw has each once, so it is what was seen."""
    random = np.random.default_rng(seed)
    drawn = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=count)
    return np.concatenate([np.ones((1, seeds)), drawn])


def drawn_means(values: ArrayLike, draws: Array) -> Array:
    """Means `[..., B]` of `values` `[..., S]` over the seeds of each draw; NaN where no seed is known."""
    array = np.asarray(values, np.float64)
    known = np.isfinite(array)
    count = known @ draws.T
    total = np.where(known, array, 0.0) @ draws.T
    means: Array = np.where(count > 0, total / np.maximum(count, 1e-9), np.nan)
    return means


def interval_of(drawn: ArrayLike, seeds: int, level: float = LEVEL) -> Interval | None:
    """The interval of a quantity `[B]` that was worked out for each draw; its ends may be infinite.

    The tails are those of a percentile interval, widened for few seeds. None with fewer than `FEWEST_SEEDS`,
    with a draw that is unknown, or if nothing is known of either end.
    """
    values = np.sort(np.asarray(drawn, np.float64))
    if seeds < FEWEST_SEEDS or np.isnan(values).any():
        return None
    rank = math.floor(percentile_tail(seeds, level) * (len(values) - 1))
    low, high = values[rank], values[len(values) - 1 - rank]
    return None if math.isinf(low) and math.isinf(high) else (float(low), float(high))


def reached(held: Array, got: Array, at: Array, beyond: float) -> Array:
    """What a sweep gets where another quantity is held at `at`, linear between its settings, `[...]`.

    Only settings that no other beats on both count. Infinite where `at` is below all of them: the sweep
    can't be had there.

    Args:
        held: `[..., K]` the quantity that is held equal.
        got: `[..., K]` the quantity that is read.
        at: `[...]` where it is read.
        beyond: what it is assumed to get where `at` is above all settings that were run.
    """
    less = (held[..., :, None] <= held[..., None, :]) & (got[..., :, None] <= got[..., None, :])
    strictly = (held[..., :, None] < held[..., None, :]) | (got[..., :, None] < got[..., None, :])
    front = ~(less & strictly).any(axis=-2) & np.isfinite(held) & np.isfinite(got)
    here = at[..., None]
    left = np.where(front & (held <= here), held, -np.inf)
    right = np.where(front & (held >= here), held, np.inf)
    one, other = left.argmax(axis=-1)[..., None], right.argmin(axis=-1)[..., None]
    x0, x1 = (np.take_along_axis(held, index, -1)[..., 0] for index in (one, other))
    y0, y1 = (np.take_along_axis(got, index, -1)[..., 0] for index in (one, other))
    share = np.where(x1 > x0, (at - x0) / np.where(x1 > x0, x1 - x0, 1.0), 0.0)
    found = np.where(np.isinf(right).all(axis=-1), y0, y0 + share * (y1 - y0))
    found = np.where(at > held.max(axis=-1), beyond, found)
    return np.where(np.isinf(left).all(axis=-1), np.inf, found)


def violations_at_equal_cost(own: Sample, sweep: Sample, draws: Array) -> Array:
    """Violations of a policy less those of a rival's sweep `[K, S]` at its cost, `[..., B]`.

    -inf where no setting is as cheap. Where the policy costs more than any setting that was run, the sweep is
    given 0 violations.
    """
    (violations, cost), (rival, rival_cost) = own.means(draws), sweep.means(draws)
    return violations - reached(_last(rival_cost), _last(rival), cost, 0.0)


def cost_at_equal_violations(own: Sample, sweep: Sample, draws: Array) -> Array:
    """Cost of a policy over that of a rival's sweep `[K, S]` at its violations, `[..., B]`.

    0 where no setting has as few violations. Infinite where all have fewer: what a leaner one would cost
    isn't known.
    """
    (violations, cost), (rival, rival_cost) = own.means(draws), sweep.means(draws)
    found = reached(_last(rival), _last(rival_cost), violations, -np.inf)
    return np.where(np.isneginf(found), np.inf, cost / np.where(np.isneginf(found), 1.0, found))


def _last(drawn: Array) -> Array:
    """`[..., K, B]` as `[..., B, K]`."""
    return np.moveaxis(drawn, -2, -1)


def front_share(sample: Sample, draws: Array) -> Array:
    """For each of the policies `[P, S]` the share of draws in which no other beats it on both, `[P]`."""
    violations, costs = sample.means(draws)
    less = (violations[:, None] <= violations[None]) & (costs[:, None] <= costs[None])
    strictly = (violations[:, None] < violations[None]) | (costs[:, None] < costs[None])
    beaten = (less & strictly).any(axis=0) | ~(np.isfinite(violations) & np.isfinite(costs))
    share: Array = 1.0 - beaten.mean(axis=-1)
    return share
