"""Analogs: what followed the moments of the training that were most like now.

Which moments are alike is told by a network's state at the end of a window. That of AdapGLQ is trained to
tell what comes, so moments are alike if they tell the same, and it mixes over the graph, so it knows of
callers and callees. Other networks go by the outline of the load, in which nothing is learned. What followed
such a moment is a course that really happened, of all services and steps together: it needs no assumption
about how they hang together, and knows when a step is followed by a step.

Source: analog ensembles (Delle Monache, Eckel, Rife, Nagarajan, Searight: "Probabilistic weather prediction
with an analog ensemble", 2013), here with likeness that may be learned.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from model.layers import Graphs
from model.network import LEAST_LEVEL, NEWEST, Network
from model.windows import Windows, batches

MOST = 2048
"""Moments that are kept at most, evenly spread over the training."""
MOST_BYTES = 16 * 2**20
"""What they take at most; with hundreds of services fewer moments are kept."""
BATCH = 512
"""Windows at a time."""


class Moments(NamedTuple):
    """Moments of the training, as a bundle keeps them.

    Attributes:
        states: float16 `[K, C]`, the network's state at each moment.
        followed: float16 `[K, H, N]`, how far the labels then went from where they stood, in shares of their
            mean over the window before.
    """

    states: Tensor
    followed: Tensor


def remember(
    network: Network, windows: Windows, graphs: Graphs, ends: Tensor, batch_size: int
) -> Moments | None:
    """Moments among the windows that end at `ends [M]` (rising), of those that all labels are known after.

    None if there is no such window.
    """
    known = torch.cat([torch.isfinite(windows.targets(part)).all(2).all(1) for part in batches(ends, BATCH)])
    ends = ends[known]
    if not len(ends):
        return None
    size = 2 * windows.horizon * windows.labels.shape[1]  # bytes
    count = max(min(MOST, MOST_BYTES // size), 1)
    places = (torch.arange(count, dtype=torch.float64) + 0.5) * len(ends) / count
    ends = ends[torch.unique(places.long()).to(ends.device)]
    states = network.states(windows, graphs, ends, batch_size)
    followed = [_relative(windows, part) for part in batches(ends, BATCH)]
    return Moments(_half(states), _half(torch.cat(followed)))


def alike(moments: Moments, state: Tensor, count: int) -> Tensor:
    """`[K', H, N]`: what followed the `count` moments whose states were nearest to a state `[C]`."""
    apart = (moments.states.float() - state).square().sum(dim=1)
    nearest = apart.topk(min(count, len(apart)), largest=False).indices
    return moments.followed[nearest.sort().values].float()


def from_here(followed: Tensor, windows: Windows, end: Tensor) -> Tensor:
    """Courses `[K, H, N]` of z-scored labels: what followed then, from where the labels stand now.

    Args:
        followed: `[K, H, N]` from `alike`.
        windows: the series.
        end: `[1]` the row that is now.
    """
    here, level, zero = _standing(windows, end)
    return (here + level * followed).clamp(min=0) + zero


def _half(values: Tensor) -> Tensor:
    """float16 on the CPU, at most what that holds: what follows near silence may be more."""
    largest = torch.finfo(torch.float16).max
    return values.clamp(-largest, largest).half().cpu()


def _relative(windows: Windows, ends: Tensor) -> Tensor:
    here, level, zero = _standing(windows, ends)
    return (windows.targets(ends) - zero - here) / level


def _standing(windows: Windows, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the labels stand and what is usual for them, `[M, 1, N]` each, counted from the label 0 `[N]`."""
    zero = windows.nothing
    past = (windows.known(ends).past - zero).clamp(min=0)  # [M, T, N]
    here = past[:, -NEWEST:].mean(dim=1, keepdim=True)
    return here, past.mean(dim=1, keepdim=True).clamp(min=LEAST_LEVEL), zero
