"""A bundle at work: raw metrics up to now in, replicas of the next H steps out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepscaler.errors import BundleError, MetricsError
from deepscaler.labels.required import Labelled, live_labels, live_reach
from deepscaler.learning.bundle import Bundle, load_bundle
from deepscaler.learning.bundle_file import BundleFile
from deepscaler.learning.description import Expected, check_bundle
from deepscaler.learning.judging import round_up
from deepscaler.learning.kept_rows import Arrays, KeptRows
from deepscaler.learning.windowing import day_share, label_lag, label_zero
from deepscaler.panel import MetricPanel, trailing_means
from model.analogs import alike, from_here
from model.joint import courses
from model.layers import Graphs
from model.windows import CYCLES, Windows

COLLECT = "collect them, or train again with: python main.py"


class Forecaster:
    """Forecasts for the services of a bundle, in the bundle's order.

    Args:
        bundle: what was trained.
        device: where it runs.
        quantile: quantile of the forecasts; the network has to be trained for it.

    Raises:
        BundleError: it wasn't trained for that quantile.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu", quantile: float = 0.5) -> None:
        self.bundle = bundle
        self.services = bundle.services
        self.label = str(bundle.meta["label"])
        self._device = torch.device(device)
        self._network = bundle.build().to(self._device)
        self._graphs = Graphs(*(graph.to(self._device) for graph in bundle.graphs))
        if quantile not in self._network.quantiles:
            known = ", ".join(f"{level:g}" for level in self._network.quantiles)
            raise BundleError(
                f"scale.quantile {quantile:g}: {bundle.network} forecasts the quantile(s) {known}; "
                "choose one, or train AdapGLS"
            )
        self._quantile = quantile
        self._kept: tuple[Any, KeptRows] | None = None
        self._last: tuple[MetricPanel, tuple[Windows, torch.Tensor, NDArray[np.bool_]]] | None = None
        self.history_seconds = self._history()

    def _history(self) -> float:
        """Seconds of metrics that a forecast can use.

        They cover the window and what the network reads of earlier labels. Where it looks at earlier windows,
        they also cover what the labels of the first one depend on, so that these don't change with time.
        """
        meta, network = self.bundle.meta, self._network
        seconds = float((meta["window"] + network.memory) * meta["step"])
        if network.memory:
            base = float(meta["base_step"])
            before, _ = live_reach(meta, base, round(meta["step"] / base)) or (0, 0)
            seconds += before * base
        if network.uses_known:
            lead, season = float(meta.get("lead") or 0.0), float(meta.get("season_seconds") or 0.0)
            seconds += 2 * lead + CYCLES * season
        return seconds

    def forecast(self, panel: MetricPanel, now: float | None = None) -> NDArray[np.float64]:
        """Replicas `[H, N]` (or the labelled feature) of the H steps after the newest sample.

        Labels that were never below 0 in training aren't forecast below it. They are NaN for services without
        data in the window's last step, whose forecast would be of the training mean. For the others a missing
        sample inside the window is the training mean, and rows before the panel begins repeat its first one.

        Raises:
            MetricsError: no sample at all.
            BundleError: a feature is missing, or the steps don't fit.
        """
        live, rows = self._live(panel, now)
        series, labelled = self._prepared(live, rows)
        windows = self._windows(series, live.times, labelled, rows)
        newest = torch.tensor([len(series) - 1], device=self._device)
        scores = self._network.forecast(windows, self._graphs, newest, 64, self._quantile)[0]  # [H, N]
        replicas = self.bundle.normalizer.label_values(
            scores.double().cpu().numpy(), bool(self.bundle.meta.get("signed"))
        )
        if self.bundle.unrounded:
            replicas = round_up(replicas)
        return np.where(self._known(series), replicas, np.nan)

    def _prepared(self, live: MetricPanel, rows: int) -> tuple[NDArray[np.float32], Labelled | None]:
        """Trailing means `[L, N, F]`, and labels where the network reads them; made where samples are new.

        Args:
            live: what a forecast looks at.
            rows: its samples per step.
        """
        if not self._network.uses_known:
            return trailing_means(live.select(self.services, self.bundle.features), rows), None
        reach = live_reach(self.bundle.meta, self._base(live), rows)
        if reach is None:
            made = self._made(live, rows)
        else:
            if self._kept is None or self._kept[0] != (rows, reach):
                kept = KeptRows(lambda part: self._made(part, rows), max(reach[0], rows), reach[1])
                self._kept = (rows, reach), kept
            made = self._kept[1].of(live)
        return made["series"], Labelled(made["labels"], made.get("unrounded"), made.get("present"))

    def _made(self, live: MetricPanel, rows: int) -> Arrays:
        """Trailing means and labels of each row."""
        labelled = live_labels(self.bundle.meta, live, rows)
        parts = {
            "series": trailing_means(live.select(self.services, self.bundle.features), rows),
            "labels": labelled.labels,
            "unrounded": labelled.unrounded,
            "present": labelled.present,
        }
        return {name: values for name, values in parts.items() if values is not None}

    def scenarios(self, panel: MetricPanel, count: int) -> NDArray[np.float64]:
        """Courses of the label that may come, of all services together, `[K, H, N]`, K at most `count`.

        Rows before the panel begins repeat its first one. A service without requests has NaN.

        Args:
            panel: raw samples up to now, `base_step` apart.
            count: how many scenarios; fewer where the bundle has fewer.

        Raises:
            MetricsError: no sample at all.
            BundleError: it wasn't trained for scenarios, a feature is missing, or the steps don't fit.
        """
        template = self.bundle.templates
        if template is None:
            raise BundleError("the bundle has no scenarios; train it on process.label=offered")
        windows, newest, known = self._seen(panel)
        grid = self._network.forecast_grid(windows, self._graphs, newest, 1)[:, 0]  # [Q, H, N]
        places = torch.linspace(0, len(template) - 1, min(count, len(template))).round().long()
        return self._courses(courses(grid, template[places].to(self._device)), known)

    def analogs(self, panel: MetricPanel, count: int) -> NDArray[np.float64]:
        """What followed the moments of the training that were most like now, `[K, H, N]`.

        Services without requests are NaN, as in `scenarios`.

        Raises:
            MetricsError: no sample at all.
            BundleError: it keeps no moments, a feature is missing, or the steps don't fit.
        """
        if self.bundle.moments is None:
            raise BundleError("the bundle keeps no moments of its training; train it on offered rates")
        windows, newest, known = self._seen(panel)
        state = self._network.states(windows, self._graphs, newest, 1)
        followed = alike(self.bundle.moments, state[0].cpu(), count).to(self._device)
        return self._courses(from_here(followed, windows, newest), known)

    def _seen(self, panel: MetricPanel) -> tuple[Windows, torch.Tensor, NDArray[np.bool_]]:
        """The window up to now, its row `[1]`, and which services' newest label is known, `[N]`.

        It is kept for the next who asks for the same panel.
        """
        if self._last is None or self._last[0] is not panel:
            live, rows = self._live(panel, None)
            labelled = live_labels(self.bundle.meta, live, rows)
            series = trailing_means(live.select(self.services, self.bundle.features), rows)
            windows = self._windows(series, live.times, labelled, rows, at_least=self.bundle.meta["window"])
            newest = torch.tensor([len(windows.series) - 1], device=self._device)
            self._last = panel, (windows, newest, np.isfinite(labelled.labels[-1]))
        return self._last[1]

    def _courses(self, scores: torch.Tensor, known: NDArray[np.bool_]) -> NDArray[np.float64]:
        values = self.bundle.normalizer.label_values(scores.double().cpu().numpy())
        return np.where(known, values, np.nan)

    def _windows(
        self,
        series: NDArray[np.float32],
        times: NDArray[np.float64],
        labelled: Labelled | None,
        rows: int,
        at_least: int = 0,
    ) -> Windows:
        """What the network sees, from raw trailing means `[L, N, F]`; the same that training saw.

        With fewer than `at_least` rows the first one is repeated.
        """
        meta, normalizer, base = (
            self.bundle.meta,
            self.bundle.normalizer,
            float(self.bundle.meta["step"]) / rows,
        )
        season = meta.get("season_seconds")
        labels, present = np.full(series.shape[:2], np.nan, np.float32), None
        if labelled is not None:
            labels = (
                labelled.unrounded
                if self.bundle.unrounded and labelled.unrounded is not None
                else labelled.labels
            )
            present = (
                None
                if labelled.present is None
                else torch.from_numpy(normalizer.label_scores(labelled.present)).to(self._device)
            )
        missing = max(at_least - len(series), 0)
        if missing:
            series, labels, times = (_preceded(values, missing) for values in (series, labels, times))
        return Windows(
            series=torch.from_numpy(normalizer.apply(series)).to(self._device),
            labels=torch.from_numpy(normalizer.label_scores(labels)).to(self._device),
            window=meta["window"],
            horizon=meta["horizon"],
            dilation=rows,
            lag=label_lag({**meta, "base_step": base}),
            season=None if season is None else round(season / base),
            present=present,
            clock=torch.from_numpy(day_share(times)).to(self._device),
            zero=label_zero(normalizer).to(self._device),
            first=round(times[0] / base),
        )

    def _live(self, panel: MetricPanel, now: float | None) -> tuple[MetricPanel, int]:
        """The metrics that a forecast looks at, and their rows per step of the model.

        They are of the bundle's services in its order, with all features, as far back as a forecast looks.
        """
        if now is not None:
            panel = panel.between(-np.inf, now + 1e-6)
        if not len(panel):
            raise MetricsError(
                "no sample to forecast from; is Prometheus scraping, and does the panel reach up to now?"
            )
        at_hand = Expected("the metrics hold", COLLECT, features_at_hand=panel.features)
        check_bundle(self.bundle.description, "bundle", at_hand)
        base, step = self._base(panel), float(self.bundle.meta["step"])
        rows = round(step / base)
        if rows < 1 or abs(rows * base - step) > 1e-3 * step:
            raise BundleError(
                f"bundle trained at a step of {step:g} s, the metrics come every {base:g} s, "
                "of which it is no multiple"
            )
        recent = panel.times > panel.times[-1] - (self.history_seconds + base / 2)
        panel = panel.rows(recent).regular(base)
        columns = self.bundle.match(panel.services).columns
        values = panel.values[:, list(columns)]
        values[:, [column < 0 for column in columns]] = np.nan
        return replace(panel, services=self.services, values=values), rows

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


def _preceded(values: NDArray[Any], rows: int) -> NDArray[Any]:
    """The values with the first repeated `rows` times before it."""
    return np.concatenate([np.repeat(values[:1], rows, axis=0), values])


def load_forecaster(
    source: str | Path | BundleFile, device: str = "cpu", quantile: float = 0.5
) -> Forecaster:
    """The forecaster of a bundle: of its path, or of its file if that was read already.

    Raises:
        BundleError: missing, broken, of another version, or not trained for that quantile.
    """
    return Forecaster(load_bundle(source), device, quantile)
