"""A network that is told what is known beside its window: the next label's known part, and the season."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from model.adapgls import base
from model.layers import Graphs
from model.network import Network, Shape
from model.windows import Known, Windows


def told_shape(shape: Shape) -> Shape:
    """The sizes that the network inside sees: past labels, the level known now, the season's course."""
    return Shape(shape.services, shape.features + 2 + shape.horizon, shape.window, shape.horizon)


class Told(Network):
    """Any network, on the inputs and from the start that AdapGLS has.

    Beside its features the window shows past labels, what is known of the next label now, and how far the
    season's labels ahead lie from that (0 without a season). The network forecasts what is to be added to
    `adapgls.base`.

    Args:
        inner: the network, built for `told_shape`.
    """

    uses_known = True

    def __init__(self, inner: Network) -> None:
        super().__init__()
        self.inner = inner
        self.graph_use = inner.graph_use  # type: ignore[misc]

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`; `known` is needed."""
        if known is None:
            raise ValueError(f"{type(self.inner).__name__} was trained on what is known, and isn't told it")
        start, _ = base(known)
        out: Tensor = start + self.inner(told_inputs(x, known, start), graphs, known)
        return out

    @torch.no_grad()
    def prepare(self, windows: Windows, training: Tensor, validation: Tensor) -> None:
        """Prepare the network inside on what it will see."""
        self.inner.prepare(_ToldWindows.of(windows), training, validation)


def told_inputs(x: Tensor, known: Known, start: Tensor) -> Tensor:
    """`[B, T, N, F + 2 + H]` from x `[B, T, N, F]` and the start `[B, H, N]` of forecasts."""
    now = known.recent[:, -1]  # [B, N]
    ahead = (start - now[:, None]).transpose(1, 2)  # [B, N, H]
    told = torch.cat((now[..., None], ahead), dim=-1)[:, None].expand(-1, x.shape[1], -1, -1)
    return torch.cat((x, known.past[..., None], told), dim=-1)


class _ToldWindows(Windows):
    """Windows as the network inside sees them: more inputs, and targets less their start."""

    @classmethod
    def of(cls, windows: Windows) -> _ToldWindows:
        parts: dict[str, Any] = {
            item.name: getattr(windows, item.name) for item in fields(Windows) if item.init
        }
        return cls(**parts)

    def inputs(self, ends: Tensor) -> Tensor:
        known = self.known(ends)
        return told_inputs(super().inputs(ends), known, base(known)[0])

    def targets(self, ends: Tensor) -> Tensor:
        return super().targets(ends) - base(self.known(ends))[0]
