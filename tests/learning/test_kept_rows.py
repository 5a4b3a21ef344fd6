"""Forecasts go by what earlier ones computed, and are what they would be without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from deepscaler.learning.forecaster import Forecaster
from deepscaler.learning.kept_rows import KeptRows
from deepscaler.learning.untrained import untrained_forecaster
from deepscaler.panel import FEATURES, MetricPanel, trailing_means
from deepscaler.settings import Settings
from model.adapgls import AdapGLS
from testbed.experiments.tick_bench import demand_of
from testbed.experiments.tick_server import document

pytestmark = pytest.mark.stress
STEP, SERVICES, T0 = 15.0, 3, 1_767_571_200.0


def samples(rows: int, seed: int = 1) -> MetricPanel:
    """Rates that wander, and what goes with them."""
    rng = np.random.default_rng(seed)
    values = rng.random((rows, SERVICES, len(FEATURES))).astype(np.float32)
    wander = 4 + np.cumsum(rng.normal(size=(rows, SERVICES)), axis=0)
    values[:, :, list(FEATURES).index("req")] = np.abs(wander)
    values[:, :, list(FEATURES).index("pod")] = 3
    values[:, :, list(FEATURES).index("res")] *= 0.4  # seconds: within the SLA, so that there are labels
    values[rng.random(values.shape) < 0.01] = np.nan
    names = tuple(f"service-{number:04d}" for number in range(SERVICES))
    return MetricPanel(T0 + STEP * np.arange(rows), names, tuple(FEATURES), values)


def cut(panel: MetricPanel, start: int, end: int) -> MetricPanel:
    return MetricPanel(panel.times[start:end], panel.services, panel.features, panel.values[start:end])


@pytest.fixture
def forecasters(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Forecaster, Forecaster, list[int]]]:
    """One that remembers, one that never does, and how many windows each call of the first computes."""
    monkeypatch.setattr(AdapGLS, "memory", 30)
    torch.set_num_threads(1)
    stated = document(SERVICES, "http://127.0.0.1:1", "none") | {"process": {"visit_window": 300.0}}
    settings = Settings.model_validate(stated)
    first, plain = (
        untrained_forecaster("AdapGLS", settings, demand_of(settings), window=8, channels=8) for _ in range(2)
    )
    for one in (first, plain):
        torch.manual_seed(2)
        for expert in one._network.experts:  # as training would: forecasts then differ from their base
            torch.nn.init.normal_(expert.head.weight, std=0.05)
    made: list[int] = []
    candidates = first._network._candidates

    def counted(windows: Any, graphs: Any, rows: Any, size: int) -> Any:
        made.append(len(rows))
        return candidates(windows, graphs, rows, size)

    monkeypatch.setattr(first._network, "_candidates", counted)
    monkeypatch.setattr(plain._network._remembered, "_places", lambda _, rows: torch.full_like(rows, -1))
    monkeypatch.setattr(KeptRows, "_grown", _unless(plain))
    yield first, plain, made


def _unless(plain: Forecaster) -> Any:
    grown = KeptRows._grown
    return lambda self, panel: None if plain._kept and self is plain._kept[1] else grown(self, panel)


def test_only_new_windows_are_computed_and_forecasts_are_as_if_all_were(forecasters) -> None:
    first, plain, made = forecasters
    panel, span = samples(500), int(first.history_seconds / STEP) + 8
    for end in range(150, 330, 4):
        moment = cut(panel, max(end - span, 0), end)
        np.testing.assert_allclose(
            first.forecast(moment), plain.forecast(moment), rtol=1e-5, err_msg=str(end)
        )
    assert np.median(made) == 1 and sum(made) < 3 * len(made)


def test_late_samples_other_phases_and_gaps_are_seen(forecasters) -> None:
    first, plain, made = forecasters
    panel, span = samples(500, seed=3), int(first.history_seconds / STEP) + 8
    late = MetricPanel(panel.times, panel.services, panel.features, panel.values.copy())
    late.values[395:399] = np.nan  # came after the forecast of row 400
    cases = {400: late, 404: panel, 409: panel, 413: panel, 455: panel, 459: panel, 403: panel}
    for end, source in cases.items():
        moment = cut(source, end - span, end)
        np.testing.assert_allclose(
            first.forecast(moment), plain.forecast(moment), rtol=1e-5, err_msg=str(end)
        )
    other = samples(500, seed=4)
    np.testing.assert_allclose(
        first.forecast(cut(other, 407 - span, 407)), plain.forecast(cut(other, 407 - span, 407)), rtol=1e-5
    )
    assert made[0] == made[-1] == 31 and made[1] < 10 and made[3] < 10


@pytest.mark.parametrize(("back", "ahead"), [(4, 0), (7, 5)])
def test_rows_are_kept_where_nothing_they_depend_on_has_changed(back: int, ahead: int) -> None:
    panel, seen = samples(200, seed=5), []

    def make(part: MetricPanel) -> dict[str, Any]:
        seen.append(len(part))
        means = trailing_means(part, back)
        return {"later": np.concatenate([means[ahead:], np.full_like(means[:ahead], np.nan)])}

    kept = KeptRows(make, back, ahead)
    for end in (100, 101, 105, 150):
        moment = cut(panel, 0, end)
        found = kept.of(moment)["later"]
        np.testing.assert_allclose(found, make(moment)["later"], rtol=1e-5)
    assert seen[0] == 100 and seen[2] == 1 + back + ahead and seen[4] == 4 + back + ahead
    panel = MetricPanel(panel.times, panel.services, panel.features, panel.values.copy())
    panel.values[60, 1, 2] = 7.0
    changed = KeptRows.of(kept, cut(panel, 0, 150))["later"]
    np.testing.assert_allclose(changed, make(cut(panel, 0, 150))["later"], rtol=1e-5)


def test_rows_are_made_anew_where_what_users_waited_has_changed() -> None:
    panel, waited = samples(100, seed=6), np.linspace(0.1, 0.2, 100, dtype=np.float32)

    def make(part: MetricPanel) -> dict[str, Any]:
        return {"waited": np.zeros(len(part)) if part.waited is None else part.waited.copy()}

    kept = KeptRows(make, 4, 0)
    kept.of(panel)
    for other in (
        waited,
        waited + 1,
        np.where(np.arange(100) == 50, np.nan, waited).astype(np.float32),
        None,
    ):
        found = kept.of(replace(panel, waited=other))["waited"]
        np.testing.assert_array_equal(found, np.zeros(100) if other is None else other)
