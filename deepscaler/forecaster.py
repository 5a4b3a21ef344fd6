"""A bundle at work: raw metrics up to now in, replicas of the next H steps out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepscaler.bundle import Bundle, Match, load_bundle
from deepscaler.dataset import trailing_means
from deepscaler.errors import BundleError, MetricsError
from deepscaler.panel import MetricPanel
from model.layers import Graphs


class Forecaster:
    """Forecasts for the services of a bundle, in the bundle's order.

    Args:
        bundle: what was trained.
        device: where it runs.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        self.bundle = bundle
        self.services = bundle.services
        self.label = str(bundle.meta["label"])
        self.history_seconds = float(bundle.meta["window"] * bundle.meta["step"])
        self._device = torch.device(device)
        self._network = bundle.build().to(self._device)
        self._graphs = Graphs(*(graph.to(self._device) for graph in bundle.graphs))

    def match(self, panel: MetricPanel) -> Match:
        """The panel's services against the bundle's."""
        return self.bundle.match(panel.services)

    def forecast(self, panel: MetricPanel, now: float | None = None) -> NDArray[np.float64]:
        """Replicas `[H, N]` (or the labelled feature) of the next H steps after the newest sample, never below 0.

        NaN for the services that `usable` denies: their forecast would be of the training mean, not of them. For the
        others a missing sample inside the window is the training mean, and rows before the panel begins repeat its first.

        Args:
            panel: raw samples, at any regular step that the model's step is a multiple of; other services are ignored.
            now: samples after it are left out; by default all count.

        Raises:
            MetricsError: no sample at all.
            BundleError: a feature is missing, or the steps don't fit.
        """
        series, rows = self._series(panel, now)
        meta, normalizer = self.bundle.meta, self.bundle.normalizer
        picked = np.maximum(len(series) - 1 - rows * np.arange(meta["window"] - 1, -1, -1), 0)
        x = torch.from_numpy(normalizer.apply(series[picked]))[None].to(self._device)  # [1, T, N, F]
        with torch.inference_mode():
            scores = self._network(x, self._graphs)[0].cpu().numpy().astype(np.float64)  # [H, N]
        replicas = np.maximum(scores * normalizer.label_scale + normalizer.label_mean, 0.0)
        return np.where(self._known(series), replicas, np.nan)

    def usable(self, panel: MetricPanel, now: float | None = None) -> NDArray[np.bool_]:
        """`[N]`: has the service data of every feature in the window's last step? `res` without traffic is data."""
        return self._known(self._series(panel, now)[0])

    def _series(self, panel: MetricPanel, now: float | None) -> tuple[NDArray[np.float32], int]:
        """Trailing means `[L, N, F]` over the model's step, and rows a step."""
        if now is not None:
            panel = panel.between(-np.inf, now + 1e-6)
        if not len(panel):
            raise MetricsError("no sample to forecast from; is Prometheus scraping, and does the panel reach up to now?")
        self.bundle.check(features=panel.features)
        base, step = self._base(panel), float(self.bundle.meta["step"])
        rows = round(step / base)
        if rows < 1 or abs(rows * base - step) > 1e-3 * step:
            raise BundleError(f"bundle trained at a step of {step:g} s, the metrics come every {base:g} s, of which it is no multiple")
        recent = panel.times > panel.times[-1] - (self.history_seconds + base / 2)
        panel = MetricPanel(panel.times[recent], panel.services, panel.features, panel.values[recent]).regular(base)
        columns = self.bundle.match(panel.services).columns
        order = [panel.features.index(name) for name in self.bundle.features]
        values = panel.values[:, list(columns)][:, :, order]
        values[:, [column < 0 for column in columns]] = np.nan
        return trailing_means(MetricPanel(panel.times, self.services, self.bundle.features, values), rows), rows

    def _base(self, panel: MetricPanel) -> float:
        if len(panel) < 2:
            return float(self.bundle.meta["base_step"])
        return float(np.median(np.diff(panel.times)))

    def _known(self, series: NDArray[np.float32]) -> NDArray[np.bool_]:
        features = self.bundle.features
        known = np.isfinite(series[-1])  # [N, F]
        if "res" in features and "req" in features:
            known[:, features.index("res")] |= series[-1, :, features.index("req")] <= 0
        result: NDArray[np.bool_] = known.all(axis=1)
        return result


def load_forecaster(path: str | Path, device: str = "cpu") -> Forecaster:
    """The forecaster of a bundle file.

    Raises:
        BundleError: missing, broken or of another version.
    """
    return Forecaster(load_bundle(path), device)
