"""AR: each service's next labels as a linear map of its own past, by ridge regression in closed form."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from model.layers import Graphs
from model.network import Network, Shape
from model.windows import Known, Windows, absolute_error, batches

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridge strengths tried, relative to the mean square of the inputs; validation chooses."""
BATCH = 512


class AR(Network):
    """`y[h, n] = w[h, n] · (lags of n's labels and features, 1)`; other services play no part.

    Source: ridge regression (Hoerl and Kennard 1970) on the lags.
    """

    graph_use: ClassVar[Literal["learned", "static", "none"]] = "none"
    uses_known: ClassVar[bool] = True

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.window * (shape.features + 1) + 1
        self.weight: Tensor
        self.register_buffer("weight", torch.zeros(shape.services, width, shape.horizon))

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`."""
        return torch.einsum("bnd,ndh->bhn", self._lags(x, known), self.weight)

    def _lags(self, x: Tensor, known: Known | None) -> Tensor:
        """`[B, N, D]`."""
        past = x.new_zeros(x.shape[:3]) if known is None else known.past
        lags = torch.cat((x, past[..., None]), dim=-1).permute(0, 2, 1, 3).flatten(2)  # [B, N, T * (F + 1)]
        return torch.cat((lags, torch.ones_like(lags[..., :1])), dim=-1)

    @torch.no_grad()
    def prepare(self, windows: Windows, training: Tensor, validation: Tensor) -> None:
        """Solve the normal equations once, then for each strength, and keep the best on validation."""
        services, width, horizon = self.weight.shape
        gram = torch.zeros(services, width, width, dtype=torch.float64, device=self.weight.device)
        moment = torch.zeros(services, width, horizon, dtype=torch.float64, device=self.weight.device)
        count = 0
        for part in batches(training, BATCH):
            lags = self._lags(windows.inputs(part), windows.known(part)).double()
            target = windows.targets(part).double()  # [B, H, N]
            known = torch.isfinite(target).all(dim=1)  # [B, N]
            lags = lags * known[..., None]
            gram += torch.einsum("bnd,bne->nde", lags, lags)
            moment += torch.einsum("bnd,bhn->ndh", lags, torch.nan_to_num(target))
            count += len(part)
        ridge = torch.diagonal(gram, dim1=1, dim2=2).mean(dim=1).clamp(min=1e-6 * max(count, 1))  # [N]
        identity = torch.eye(width, dtype=torch.float64, device=gram.device)
        best = torch.inf
        for strength in STRENGTHS:
            solved = torch.linalg.solve(gram + strength * ridge[:, None, None] * identity, moment).to(
                self.weight
            )
            kept, self.weight = self.weight, solved
            summed, known_labels = 0.0, 0
            for part in batches(validation, BATCH):
                error, number = absolute_error(
                    self(windows.inputs(part), _NO_GRAPHS, windows.known(part)), windows.targets(part)
                )
                summed, known_labels = summed + float(error), known_labels + number
            if summed / max(known_labels, 1) < best:
                best = summed / max(known_labels, 1)
            else:
                self.weight = kept


_NO_GRAPHS = Graphs(torch.zeros(0, 0), torch.zeros(0, 0))
