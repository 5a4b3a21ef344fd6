"""AdapGLS, this project's own network.

A small residual network forecasts changes. A season is trusted as far as it fits. A twin handles shifts of
level.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.experts import weigh
from model.layers import Graphs
from model.network import Network, Shape
from model.remembered import Remembered
from model.windows import RECENT, Known, Windows, batches

QUANTILES = (0.5, 0.9)


class Mixing(nn.Module):
    """A residual step: each service's state, what its callees send up and its callers send down."""

    def __init__(self, *, channels: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.own = nn.Linear(channels, channels)
        self.sent = nn.Linear(channels, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, state: Tensor, graphs: Graphs) -> Tensor:
        """`[B, N, C]` from state of the same shape."""
        normed = self.norm(state)
        up, down = self.sent(normed).chunk(2, dim=-1)  # [B, N, C] each
        received = self.own(normed) + graphs.up @ up + graphs.down.T @ down
        out: Tensor = state + self.out(self.dropout(functional.gelu(received)))
        return out


class Expert(nn.Module):
    """Quantiles of the labels as changes from a base.

    The base is what is needed now, moved towards the season where that fits.

    Args:
        shape: of the data.
        channels, blocks, dropout: sizes.
        levels: it sees how high values are, not only how they change. Without levels a doubled load looks
            like the load that was trained on, as far as z-scores of changes allow.
    """

    def __init__(self, shape: Shape, *, channels: int, blocks: int, dropout: float, levels: bool) -> None:
        super().__init__()
        self.levels, self.horizon = levels, shape.horizon
        signals = shape.features + 1
        width = signals * shape.window + RECENT + shape.horizon + 1 + (signals + 1 if levels else 0)
        self.enter = nn.Linear(width, channels)
        self.service = nn.Parameter(0.1 * torch.randn(shape.services, channels))
        self.blocks = nn.ModuleList(Mixing(channels=channels, dropout=dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, shape.horizon * len(QUANTILES))
        nn.init.zeros_(self.head.weight)  # training starts from the base
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, graphs: Graphs, known: Known) -> Tensor:
        """`[Q, B, H, N]` from x `[B, T, N, F]`, rising in Q."""
        start, trust = base(known)
        state = self.enter(self._inputs(x, known, start, trust)) + self.service  # [B, N, C]
        for block in self.blocks:
            state = block(state, graphs)
        change = self.head(functional.gelu(self.norm(state)))  # [B, N, H * Q]
        change = change.view(*change.shape[:2], self.horizon, len(QUANTILES)).permute(
            3, 0, 2, 1
        )  # [Q, B, H, N]
        median = start + change[0]
        return torch.stack((median, median + functional.softplus(change[1])))

    def _inputs(self, x: Tensor, known: Known, start: Tensor, trust: Tensor) -> Tensor:
        """`[B, N, D]`: changes to the newest value and, with `levels`, bounded values themselves."""
        signals = torch.cat((x, known.past[..., None]), dim=-1)  # [B, T, N, F + 1]
        newest, now = signals[:, -1], known.recent[:, -1]  # [B, N, F + 1], [B, N]
        parts = [
            (signals - newest[:, None]).transpose(1, 2).flatten(2),
            (known.recent - now[:, None]).transpose(1, 2),
            (start - now[:, None]).transpose(1, 2),
            trust[..., None],
        ]
        if self.levels:
            parts += [bounded(newest), bounded(now)[..., None]]
        return torch.cat(parts, dim=-1)


def bounded(level: Tensor) -> Tensor:
    """2 tanh(x/2): straight near the training mean, never beyond 2."""
    return 2 * torch.tanh(level / 2)


def base(known: Known) -> tuple[Tensor, Tensor]:
    """Where forecasts start `[B, H, N]`, and how far the season is trusted `[B, N]`, from 0 to 1.

    Forecasts start from what is needed now, moved towards the season's labels, which are shifted to the
    present level. Trust is the share of the window's variation that the season accounts for.
    """
    now, newest = known.recent[:, -1], known.past[:, -1]  # [B, N]
    season_now = known.season_past[:, -1]
    moved = (known.past - newest[:, None]).abs().sum(dim=1)  # [B, N]
    missed = (known.past - newest[:, None] - (known.season_past - season_now[:, None])).abs().nansum(dim=1)
    trust = torch.where(
        season_now.isnan() | (moved < 1e-6),
        torch.zeros_like(moved),
        (1 - missed / moved.clamp(min=1e-6)).clamp(0, 1),
    )
    seasonal = known.season_ahead + (newest - season_now)[:, None]  # [B, H, N]
    towards = torch.where(seasonal.isnan(), now[:, None], seasonal)
    return now[:, None] + trust[:, None] * (towards - now[:, None]), trust


class AdapGLS(Network):
    """Two experts and the base, weighted per service and horizon by their recent errors.

    One expert sees levels, the other only changes.

    Source: this project's design; the inputs as changes follow RevIN's motive (Kim et al. 2022) without its
    statistics, service embeddings STID (Shao et al. 2022), weights by exponentiated discounted errors
    prediction with expert advice (Cesa-Bianchi and Lugosi 2006, chapter 2).

    Args:
        shape: of the data.
        channels, blocks, dropout: of each expert.
        twin: False: only the first expert, for comparison.
        present: False: start from the newest complete label instead of what is known about the next one, and
            without a season, for comparison with networks that are told neither.
    """

    uses_known: ClassVar[bool] = True
    quantiles = QUANTILES
    memory = 200

    def __init__(
        self, shape: Shape, *, channels: int, blocks: int, dropout: float, twin: bool, present: bool
    ) -> None:
        super().__init__()
        self.present = present
        self.horizon = shape.horizon
        self._remembered = Remembered()
        kinds = (True, False) if twin else (True,)
        self.experts = nn.ModuleList(
            Expert(shape, channels=channels, blocks=blocks, dropout=dropout, levels=kind) for kind in kinds
        )

    def forward(self, x: Tensor, graphs: Graphs, known: Known | None = None) -> Tensor:
        """`[B, H, N]` from x `[B, T, N, F]`: the experts' mean median."""
        known = self._shown(known or _nothing(x, self.horizon))
        return torch.stack([expert(x, graphs, known)[0] for expert in self.experts]).mean(dim=0)

    def loss(self, x: Tensor, graphs: Graphs, known: Known, target: Tensor) -> tuple[Tensor, int]:
        """Summed pinball loss of all experts and quantiles (Koenker and Bassett 1978); see `Network.loss`."""
        seen = torch.isfinite(target)
        wanted, total, known = torch.nan_to_num(target), x.new_zeros(()), self._shown(known)
        for expert in self.experts:
            for level, made in zip(QUANTILES, expert(x, graphs, known), strict=True):
                error = torch.where(seen, wanted - made, torch.zeros_like(made))
                total = total + torch.maximum(level * error, (level - 1) * error).sum()
        return total, int(seen.sum())

    @torch.no_grad()
    def forecast(
        self, windows: Windows, graphs: Graphs, ends: Tensor, batch_size: int, quantile: float = 0.5
    ) -> Tensor:
        """Forecasts `[M, H, N]`; see `Network.forecast`.

        Weights come from windows up to `memory` steps before the first end, whose forecasts are remembered
        from call to call where the windows count their rows (`Windows.first`).
        """
        self.eval()
        step = int(torch.diff(ends).min()) if len(ends) > 1 else windows.dilation
        first = int(ends[0]) - self.memory * windows.dilation // step * step
        rows = torch.arange(first, int(ends[-1]) + 1, step, device=ends.device)
        rows = torch.unique(torch.cat((rows[rows >= 0], ends)))
        made = self._remembered.forecasts(
            windows,
            rows,
            lambda fresh: torch.cat(list(self._candidates(windows, graphs, fresh, batch_size)), dim=2),
        )  # [Q, K, M', H, N]
        chosen = torch.searchsorted(rows, ends.contiguous())
        if made.shape[1] == 1:
            return made[QUANTILES.index(quantile), 0, chosen]
        ahead = windows.dilation * torch.arange(1, windows.horizon + 1, device=ends.device)
        actual = windows.labels[(rows[:, None] + ahead).clamp(max=len(windows.labels) - 1)]  # [M', H, N]
        weights = weigh(
            made[0], actual, rows, ahead + windows.lag, half_life=self.memory / 2 * windows.dilation
        )
        return (weights * made[QUANTILES.index(quantile)]).sum(dim=0)[chosen]

    def _shown(self, known: Known) -> Known:
        if self.present:
            return known
        newest = known.past[:, -1:].expand(-1, RECENT, -1)
        past, ahead = (
            torch.full_like(season, torch.nan) for season in (known.season_past, known.season_ahead)
        )
        return known._replace(recent=newest, season_past=past, season_ahead=ahead)

    def _candidates(
        self, windows: Windows, graphs: Graphs, rows: Tensor, batch_size: int
    ) -> Iterator[Tensor]:
        """Forecasts of each batch, `[Q, K, B, H, N]`, one per candidate.

        The candidates are the experts and, with a twin, the base; the base's upper quantile is as far above
        it as the twin's is above the twin's median.
        """
        for part in batches(rows, batch_size):
            known = self._shown(windows.known(part))
            made = [expert(windows.inputs(part), graphs, known) for expert in self.experts]
            if len(made) > 1:
                start, _ = base(known)
                made.append(start + made[-1] - made[-1][:1])
            yield torch.stack(made, dim=1)


def _nothing(x: Tensor, horizon: int) -> Known:
    """What is known where nothing is known but the window."""
    batch, window, services, _ = x.shape
    unknown = x.new_full((batch, window, services), torch.nan)
    ahead = x.new_full((batch, horizon, services), torch.nan)
    return Known(
        torch.zeros_like(unknown), unknown, ahead, x.new_zeros(batch, RECENT, services), x.new_zeros(batch)
    )
