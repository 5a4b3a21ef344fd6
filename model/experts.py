"""Weights of forecasters by the errors that they were seen to make, per service and horizon."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SHARPNESS = 15.0
"""How fast a weight falls: with 10 % more error than the best a forecaster has a fifth of its weight."""


def weigh(made: Tensor, actual: Tensor, rows: Tensor, delay: Tensor, half_life: float) -> Tensor:
    """Weights `[K, M, H, N]`, which sum to 1 over K, from the errors known at each row.

    They are equal before the first known error. Then a weight is exp(-15 (D_k / min D - 1)), normalised, with
    D the discounted mean |error| of the forecasts whose label is complete by then.
    Source: exponentially weighted experts with discounted losses (Cesa-Bianchi and Lugosi 2006, sections 2.2,
    2.11).

    Args:
        made: `[K, M, H, N]` forecasts made at `rows`.
        actual: `[M, H, N]` what came; NaN where unknown.
        rows: `[M]`, rising.
        delay: `[H]` rows from a forecast until its label is complete.
        half_life: rows after which an error counts half.
    """
    error = torch.nan_to_num((made - actual).abs().double())  # [K, M, H, N]
    counted = torch.isfinite(actual).double()  # [M, H, N]
    decay = 0.5 ** (torch.diff(rows, prepend=rows[:1]).double() / half_life)  # [M]
    discounted = _discounted(torch.cat((error, counted[None])), decay)  # [K + 1, M, H, N]
    sums, counts = discounted[:-1], discounted[-1:]
    weights = made.new_empty(made.shape)
    for step, late in enumerate(delay.tolist()):
        newest = (
            torch.searchsorted(rows, (rows - late).contiguous(), right=True) - 1
        )  # [M]: the newest forecast whose label is complete
        total, count = sums[:, newest.clamp(min=0), step], counts[:, newest.clamp(min=0), step]  # [K, M, N]
        known = (newest >= 0)[None, :, None] & (count > 1e-6)
        mean = torch.where(known, total / count.clamp(min=1e-6), torch.ones_like(total))
        relative = mean / mean.min(dim=0, keepdim=True).values.clamp(min=1e-9)
        weights[:, :, step] = torch.softmax(-SHARPNESS * (relative - 1), dim=0).to(made)
    return weights


def _discounted(values: Tensor, decay: Tensor) -> Tensor:
    """Running sums over dim 1 of `values [K, M, ...]`, each step first scaled by `decay [M]`.

    By numpy, to which a step of a few numbers costs a quarter of what it costs torch.
    """
    steps = np.ascontiguousarray(values.detach().cpu().numpy().swapaxes(0, 1))  # [M, K, ...]
    for index, factor in enumerate(decay.tolist()[1:], start=1):
        steps[index] += factor * steps[index - 1]
    return torch.from_numpy(steps.swapaxes(0, 1)).to(values.device)
