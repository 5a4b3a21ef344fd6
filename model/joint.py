"""Joint scenarios of all services and steps, from quantiles of each.

A network forecasts each service and step apart. How they hang together is taken from validation windows: at
each, where in the forecast distribution the truth lay, for all services and steps (a template). A scenario
reads the present forecast at the places of one template, so services that missed together miss together. A
network without quantiles has residuals for templates, which are added to its forecast.
Source: Schaake shuffle (Clark, Gangopadhyay, Hay, Rajagopalan, Wilby 2004); empirical copula coupling
(Schefzik, Thorarinsdottir, Gneiting 2013).
"""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = (0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
"""Levels of a quantile grid."""


def templates(grid: Tensor, actual: Tensor, count: int) -> Tensor:
    """Up to `count` templates `[K, H, N]`, evenly spread over the windows whose labels are all known.

    Args:
        grid: `[Q, M, H, N]` forecasts, rising in Q; Q = 1: point forecasts.
        actual: `[M, H, N]` what came; NaN where unknown.
        count: K at most.
    """
    whole = torch.nonzero(torch.isfinite(actual).flatten(1).all(dim=1))[:, 0]
    places = (torch.arange(count, dtype=torch.float64) + 0.5) * len(whole) / count
    chosen = whole[torch.unique(places.long()).to(whole.device)] if len(whole) else whole
    made, came = grid[:, chosen], actual[chosen]
    return came - made[0] if len(grid) == 1 else _places(_with_tails(made), came)


def courses(grid: Tensor, template: Tensor) -> Tensor:
    """Scenarios `[K, H, N]`.

    Args:
        grid: `[Q, H, N]` the present forecast, in the unit of the templates.
        template: `[K, H, N]` from `templates`.
    """
    if len(grid) == 1:
        return grid + template
    edges, levels = _with_tails(grid), _levels(grid)
    upper = torch.searchsorted(levels, template.contiguous()).clamp(1, len(levels) - 1)  # [K, H, N]
    low, high = edges.gather(0, upper - 1), edges.gather(0, upper)
    share = (template - levels[upper - 1]) / (levels[upper] - levels[upper - 1])
    return low + share * (high - low)


def _levels(like: Tensor) -> Tensor:
    return like.new_tensor((0.0, *LEVELS, 1.0))


def _with_tails(grid: Tensor) -> Tensor:
    """`[Q + 2, ...]`: the grid with ends; each is as far from its neighbour as that is from the next."""
    below = 2 * grid[:1] - grid[1:2]
    above = 2 * grid[-1:] - grid[-2:-1]
    return torch.cat((below, grid, above))


def _places(edges: Tensor, values: Tensor) -> Tensor:
    """Where in the distribution values `[M, H, N]` lie, from 0 to 1; edges `[Q + 2, M, H, N]`."""
    levels = _levels(edges)
    upper = (edges < values).sum(dim=0).clamp(1, len(levels) - 1)  # [M, H, N]
    low, high = edges.gather(0, (upper - 1)[None])[0], edges.gather(0, upper[None])[0]
    share = ((values - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    return levels[upper - 1] + share * (levels[upper] - levels[upper - 1])
