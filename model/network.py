"""What all networks share: sizes that the data states, and the one interface to train and use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.layers import Graphs
from model.windows import Known, Windows, absolute_error, batches

OUTLINE = 20
"""Values of an outline; a window's steps are taken together to so many means."""
NEWEST = 2
"""Where the labels stand is the mean of this many newest ones: one alone is noise, more come late."""
LEAST_LEVEL = 1e-3
"""A level is taken for at least this, in units of the label's training deviation."""


@dataclass(frozen=True)
class Shape:
    """Sizes that the data states: N, F, T, H."""

    services: int
    features: int
    window: int
    horizon: int


class Network(nn.Module):
    """A forecaster of labels.

    Subclasses give `forward`. Those with another loss than |error| override `loss`, those fitted in closed
    form `prepare`.

    Attributes:
        graph_use: `learned`: trained together with a graph learner; `static`: sees the prior as it is;
            `none`: ignores graphs.
        uses_known: does it read `known`? Serving then computes the labels of its history.
        unrounded: its forecasts are requirements before they are rounded up, whatever it was trained on.
        quantiles: levels that it forecasts; 0.5 is what `forward` gives.
        memory: steps before a window; `forecast` also looks at the windows that end in them.
    """

    graph_use: ClassVar[Literal["learned", "static", "none"]] = "learned"
    uses_known: ClassVar[bool] = False
    unrounded: ClassVar[bool] = False
    quantiles: tuple[float, ...] = (0.5,)
    memory: int = 0

    def eval(self) -> Self:
        """As for any module, but layers aren't gone through again where the network doesn't train anyway."""
        return super().eval() if self.training else self

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """z-scored labels `[B, H, N]` from z-scored x `[B, T, N, F]`.

        Args:
            x: the window; what is missing is 0, the training mean.
            graphs: the pair that the learner shows.
            known: what is known of past labels and seasons; None: nothing.
        """
        raise NotImplementedError

    def loss(self, x: Tensor, graphs: Graphs, known: Known, target: Tensor) -> tuple[Tensor, int]:
        """Summed training loss over the known labels of `target [B, H, N]` (NaN: unknown), and their number.

        Every trainable parameter has a part in it: data-parallel training waits for all their gradients.
        """
        return absolute_error(self(x, graphs, known), target)

    def stepped(self) -> None:
        """An optimiser has changed the parameters: called once per training batch of theirs."""

    @torch.no_grad()
    def prepare(self, windows: Windows, training: Tensor, validation: Tensor) -> None:
        """Take from the data what isn't learned by gradient, before training starts.

        That is closed-form fits and constants.

        Args:
            windows: the series.
            training: rows that training windows end at.
            validation: rows that validation windows end at.
        """

    @torch.no_grad()
    def forecast(
        self, windows: Windows, graphs: Graphs, ends: Tensor, batch_size: int, quantile: float = 0.5
    ) -> Tensor:
        """Forecasts `[M, H, N]` of the windows that end at `ends [M]` (rising), in evaluation mode.

        A network that weighs experts by their recent errors looks at the windows before `ends` as well, never
        beyond them.

        Args:
            windows: the series.
            graphs: the pair that the learner shows.
            ends: rows.
            batch_size: windows at a time.
            quantile: one of `quantiles`.
        """
        self.eval()
        return torch.cat(
            [self(windows.inputs(part), graphs, windows.known(part)) for part in batches(ends, batch_size)]
        )

    @torch.no_grad()
    def forecast_grid(self, windows: Windows, graphs: Graphs, ends: Tensor, batch_size: int) -> Tensor:
        """What scenarios are made of, `[Q, M, H, N]`.

        It is the quantiles at `model.joint.LEVELS`, or, where a network has others or none, its median alone.
        """
        return self.forecast(windows, graphs, ends, batch_size)[None]

    def states(self, windows: Windows, graphs: Graphs, ends: Tensor, batch_size: int) -> Tensor:
        """What the network makes of the windows that end at `ends [M]`, `[M, C]`: alike where the same comes.

        The outline of the load, nothing learned, for networks that make nothing of their own.
        """
        return torch.cat([outline(windows, part) for part in batches(ends, batch_size)])


def outline(windows: Windows, ends: Tensor) -> Tensor:
    """How the sum of all labels came to where it stands, `[M, C]`, in shares of its mean over the window."""
    past = (windows.known(ends).past - windows.nothing).clamp(min=0).sum(dim=2)  # [M, T]
    here, level = past[:, -NEWEST:].mean(dim=1, keepdim=True), past.mean(dim=1, keepdim=True)
    course = functional.adaptive_avg_pool1d(past - here, min(OUTLINE, past.shape[1]))
    return course / level.clamp(min=LEAST_LEVEL)
