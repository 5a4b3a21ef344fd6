"""What all networks share: sizes that the data states, and the one interface of training, evaluation and serving."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from model.layers import Graphs
from model.windows import Known, Windows, absolute_error


@dataclass(frozen=True)
class Shape:
    """Sizes that the data states.

    Attributes:
        services, features, window, horizon: N, F, T, H.
        lead: steps that a label looks beyond its own (a `required` label covers pod start-up).
    """

    services: int
    features: int
    window: int
    horizon: int
    lead: int = 0

    @property
    def ahead(self) -> int:
        """A: steps after the window that a label of the horizon depends on."""
        return self.horizon + self.lead

    def to_dict(self) -> dict[str, int]:
        """Plain values."""
        return asdict(self)


class Network(nn.Module):
    """A forecaster of labels. Subclasses give `forward`; those fitted otherwise than by |error| override `loss` or `prepare`.

    Attributes:
        graph_use: `learned`: trained together with a graph learner; `static`: sees the prior as it is; `none`: ignores graphs.
    """

    graph_use: ClassVar[Literal["learned", "static", "none"]] = "learned"

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """x `[B, T, N, F]`, z-scored -> labels `[B, H, N]`, z-scored.

        Args:
            x: the window; what is missing is 0, the training mean.
            graphs: the pair that the learner shows.
            known: what is known of past and coming steps; None: nothing.
        """
        raise NotImplementedError

    def loss(self, x: Tensor, graphs: Graphs, known: Known, target: Tensor) -> tuple[Tensor, int]:
        """Summed training loss over the known labels of `target [B, H, N]` (NaN: unknown), and their number."""
        return absolute_error(self(x, graphs, known), target)

    @torch.no_grad()
    def prepare(self, windows: Windows, training: Tensor, validation: Tensor) -> None:
        """Take from the data what isn't learned by gradient (closed-form fits, constants), before training starts.

        Args:
            windows: the series.
            training, validation: rows that windows end at.
        """
