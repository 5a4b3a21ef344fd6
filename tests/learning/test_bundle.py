"""Bundles: there and back, what they refuse, and forecasts from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from helpers.model_samples import make_dataset, small_settings
from helpers.telemetry import telemetry, truth

from deepscaler.artefacts import plain
from deepscaler.errors import BundleError, MetricsError
from deepscaler.graphs.priors import read_graph
from deepscaler.labels.required import label_requirements, present_requirements
from deepscaler.labels.visits import Visits
from deepscaler.learning.bundle import Bundle, load_bundle, save_bundle
from deepscaler.learning.dataset import Dataset, Normalizer
from deepscaler.learning.description import Expected, check_bundle
from deepscaler.learning.forecaster import Forecaster, load_forecaster
from deepscaler.learning.judging import round_up
from deepscaler.learning.task import TrainingTask
from deepscaler.learning.train import train
from deepscaler.learning.windowing import make_windows
from deepscaler.panel import MetricPanel, trailing_means
from deepscaler.settings import ModelConfig, Process, Train

STEP, BASE = 60.0, 15.0


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    torch.set_num_threads(1)
    return make_dataset(step=STEP, base_step=BASE, window=6, demand={"entries": ["web"]})


@pytest.fixture(scope="module")
def bundle(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    config, settings = small_settings(num_iter=1)
    return train(
        TrainingTask(dataset, "AdapGLA", config, settings, tmp_path_factory.mktemp("bundle") / "toy.pt")
    ).bundle


@pytest.fixture
def saved(bundle: Bundle, tmp_path: Path) -> Path:
    save_bundle(bundle, tmp_path / "toy.pt", {"seconds": 1.0})
    return tmp_path / "toy.pt"


def panel_of(dataset: Dataset, end: int, rows: int = 40) -> MetricPanel:
    """Raw samples up to row `end`; the series is taken for raw metrics here."""
    part = slice(end - rows + 1, end + 1)
    return MetricPanel(
        BASE * np.arange(end - rows + 1, end + 1),
        dataset.services,
        tuple(dataset.meta["features"]),
        dataset.series[part],
    )


def test_a_bundle_comes_back_as_it_was(bundle: Bundle, saved: Path) -> None:
    again = load_bundle(saved)
    for name in ("weights", "learner"):
        assert all(
            torch.equal(tensor, getattr(again, name)[key]) for key, tensor in getattr(bundle, name).items()
        )
    assert torch.equal(again.affinity, bundle.affinity) and torch.equal(again.reverse, bundle.reverse)
    np.testing.assert_array_equal(again.normalizer.label_scale, bundle.normalizer.label_scale)
    assert again.meta == plain(bundle.meta)
    assert (again.services, again.features, again.shape) == (bundle.services, bundle.features, bundle.shape)
    assert again.meta["demand"] == {"entries": ["web"]}


def test_torch_reads_its_tensors_and_json_all_else(bundle: Bundle, saved: Path) -> None:
    stored = torch.load(saved, weights_only=True)
    assert {type(tensor) for group in stored.values() for tensor in group.values()} == {torch.Tensor}
    assert torch.equal(stored["graphs"]["affinity"], bundle.affinity)
    with ZipFile(saved) as archive:
        assert json.loads(archive.read("archive/bundle.json"))["meta"] == plain(bundle.meta)


def test_the_json_beside_it_tells_people_the_same_and_the_csv_names_the_services(
    bundle: Bundle, saved: Path
) -> None:
    described = json.loads(saved.with_suffix(".json").read_text())
    assert described["services"] == list(bundle.services)
    assert (
        described["app"] == "toy"
        and described["label"] == "required"
        and described["demand"] == {"entries": ["web"]}
    )
    assert described["errors"]["test"]["Persistence"]["mae"] > 0
    assert described["run"] == {"seconds": 1.0}
    names, matrix = read_graph(saved.with_name("toy.affinity.csv"))
    assert names == bundle.services
    np.testing.assert_allclose(matrix, bundle.affinity.numpy(), rtol=1e-6)


def test_the_same_bundle_is_the_same_bytes_and_a_crash_while_writing_leaves_the_old_one(
    bundle: Bundle, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()
    save_bundle(bundle, tmp_path / "other.pt", {"seconds": 2.0})
    assert (tmp_path / "other.pt").read_bytes() == before
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        save_bundle(bundle, saved)
    assert saved.read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_missing_bundle_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no such bundle; make it with: python main\.py --model_save_path"):
        load_bundle(tmp_path / "absent.pt")


def test_what_does_not_fit_is_refused_naming_both_sides(bundle: Bundle) -> None:
    def check(**expected: Any) -> None:
        check_bundle(bundle.description, "toy.pt", Expected("this asks for", "train again", **expected))

    check(
        values={"app": "toy", "step": 60.0, "features": frozenset(("req", "cpu", "pod"))},
        features_at_hand=("req", "mem", "cpu", "pod"),
        services=("db", "web", "new"),
        min_known=0.5,
        replicas=True,
    )
    check()
    for value, words in (
        ({"app": "shop"}, "application toy, this asks for shop; train again"),
        ({"step": 30.0}, r"step in seconds 60\.0, this asks for 30\.0"),
        (
            {"features": ["req", "cpu", "pod"]},
            r"features \['pod', 'req', 'cpu'\], this asks for \['req', 'cpu', 'pod'\]",
        ),
        ({"absent": 1}, "absent None, this asks for 1"),
    ):
        with pytest.raises(BundleError, match=rf"toy\.pt: trained for {words}"):
            check(values=value)
    with pytest.raises(
        BundleError, match="trained on features pod, req, cpu, this asks for pod, cpu, without req"
    ):
        check(features_at_hand=("pod", "cpu"))
    with pytest.raises(BundleError, match=r"knows 1 of 3 services.* 50%; unknown to it: x, y; it knows: web"):
        check(services=("web", "x", "y"), min_known=0.5)
    with pytest.raises(BundleError, match="knows 0 of 1"):
        check(services=("x",))


def test_services_are_matched_by_name(bundle: Bundle) -> None:
    match = bundle.match(("db", "extra", "web", "cart", "mail"))
    assert match.columns == (2, 3, -1, 0, 4)
    assert (match.missing, match.new) == (("pay",), ("extra",))


# ------------------------------------------------------------------------------------------------ forecasting
def test_a_forecast_equals_what_training_evaluated(dataset: Dataset, saved: Path) -> None:
    raw = MetricPanel(
        BASE * np.arange(len(dataset.times)),
        dataset.services,
        tuple(dataset.meta["features"]),
        dataset.series,
    )
    means = trailing_means(raw, 4)
    same = replace(dataset, series=means)
    forecaster = load_forecaster(saved)
    ends = np.array([500, 777, 1001])
    windows = make_windows(same, torch.device("cpu"))
    scores = forecaster._network.forecast(
        windows, forecaster.bundle.graphs, torch.from_numpy(ends), 64
    ).numpy()
    expected = np.maximum(scores * dataset.normalizer.label_scale + dataset.normalizer.label_mean, 0)
    for index, end in enumerate(ends):
        np.testing.assert_allclose(forecaster.forecast(panel_of(dataset, end)), expected[index], rtol=1e-4)
    assert forecaster.history_seconds == 6 * STEP
    assert (forecaster.services, forecaster.label) == (dataset.services, "required")


def test_order_and_company_of_the_live_services_do_not_matter(dataset: Dataset, saved: Path) -> None:
    forecaster, panel = load_forecaster(saved), panel_of(dataset, 500)
    order = [3, 1, 4, 0, 2]
    services = (*(panel.services[index] for index in order), "stranger")
    values = np.concatenate([panel.values[:, order], np.full_like(panel.values[:, :1], 7.0)], axis=1)
    shuffled = MetricPanel(panel.times, services, panel.features, values)
    np.testing.assert_array_equal(forecaster.forecast(shuffled), forecaster.forecast(panel))


def test_the_newest_sample_counts(dataset: Dataset, saved: Path) -> None:
    forecaster, panel = load_forecaster(saved), panel_of(dataset, 500)
    values = panel.values.copy()
    values[-1] *= 2
    assert (forecaster.forecast(replace(panel, values=values)) != forecaster.forecast(panel)).any()
    np.testing.assert_array_equal(
        forecaster.forecast(replace(panel, values=values), now=panel.times[-2]),
        forecaster.forecast(panel, now=panel.times[-2]),
    )


def test_constant_replicas_and_load_give_a_finite_forecast_that_knows_the_level_unlike_window_statistics(
    dataset: Dataset, saved: Path
) -> None:
    forecaster, panel = load_forecaster(saved), panel_of(dataset, 500)
    levels = [
        np.broadcast_to(dataset.normalizer.mean + shift * dataset.normalizer.scale, panel.values.shape)
        for shift in (-1.0, 1.0)
    ]
    low, high = (forecaster.forecast(replace(panel, values=values.astype(np.float32))) for values in levels)
    assert np.isfinite(low).all() and np.isfinite(high).all()
    assert (low != high).any()
    window = np.full((6, 5, 3), 2.0)
    with np.errstate(invalid="ignore"):
        published = (window - window.mean(0)) / window.std(0)
    assert np.isnan(published).all()


def test_a_service_without_data_is_nan_and_the_others_are_forecast(dataset: Dataset, saved: Path) -> None:
    forecaster, panel = load_forecaster(saved), panel_of(dataset, 500)
    values = panel.values.copy()
    values[-4:, 2] = np.nan
    gap = replace(panel, values=values)
    made = forecaster.forecast(gap)
    assert np.isfinite(forecaster.forecast(gap)[0]).tolist() == [True, True, False, True, True]
    assert np.isnan(made[:, 2]).all() and np.isfinite(np.delete(made, 2, axis=1)).all()
    gone = panel.select(("web", "cart", "db", "mail"), panel.features)
    assert np.isfinite(forecaster.forecast(gone)[0]).tolist() == [True, True, False, True, True]
    assert np.isfinite(np.delete(forecaster.forecast(gone), 2, axis=1)).all()
    assert forecaster.bundle.match(gone.services).missing == ("pay",)


def test_single_gaps_and_a_short_or_gappy_history_are_no_obstacle(dataset: Dataset, saved: Path) -> None:
    forecaster, panel = load_forecaster(saved), panel_of(dataset, 500)
    values = panel.values.copy()
    values[10:16, :, 1] = np.nan
    assert np.isfinite(forecaster.forecast(replace(panel, values=values))).all()
    for rows in (1, 3, 10):
        assert np.isfinite(forecaster.forecast(panel_of(dataset, 500, rows))).all()
    kept = np.delete(np.arange(40), [20, 21])
    assert np.isfinite(
        forecaster.forecast(
            MetricPanel(panel.times[kept], panel.services, panel.features, panel.values[kept])
        )
    ).all()


def test_forecasts_are_never_below_zero(bundle: Bundle, dataset: Dataset) -> None:
    low = replace(bundle.normalizer, label_mean=bundle.normalizer.label_mean - 1000)
    assert (Forecaster(replace(bundle, normalizer=low)).forecast(panel_of(dataset, 500)) == 0).all()


def test_no_samples_and_steps_that_do_not_fit_are_refused(dataset: Dataset, saved: Path) -> None:
    forecaster, panel = load_forecaster(saved), panel_of(dataset, 500)
    with pytest.raises(MetricsError, match="no sample to forecast from"):
        forecaster.forecast(panel, now=-1.0)
    with pytest.raises(BundleError, match="a step of 60 s, the metrics come every 25 s"):
        forecaster.forecast(replace(panel, times=25.0 * np.arange(len(panel))))
    with pytest.raises(BundleError, match="without req"):
        forecaster.forecast(panel.select(panel.services, ("pod", "cpu")))


def test_a_service_without_traffic_has_fresh_data(dataset: Dataset, bundle: Bundle) -> None:
    features = ["pod", "res", "req"]
    idle = Forecaster(replace(bundle, meta={**bundle.meta, "features": features}))
    values = panel_of(dataset, 500).values.copy()
    values[:, 0, 1] = np.nan
    values[:, 0, 2] = 0.0
    panel = MetricPanel(BASE * np.arange(40), dataset.services, tuple(features), values)
    assert np.isfinite(idle.forecast(panel)[0]).all()
    values[-4:, 0, 2] = np.nan
    assert np.isfinite(idle.forecast(panel)[0]).tolist() == [False, True, True, True, True]


def test_adapgls_forecasts_live_what_training_evaluated(tmp_path: Path) -> None:
    """Labels, what is known of the next one and the online weights are computed again from raw metrics."""
    raw = telemetry(minutes=600)
    model = truth()
    process = Process(step=60.0, window=6, label="required", features=["pod", "cpu", "req"])
    settings = {**process.model_dump(mode="json")}
    visits = Visits(raw.times[-1:], model.visits[None])
    labels, unrounded = label_requirements(model, visits, raw, process)
    present = present_requirements(model, visits, raw, process)
    rows, bounds = 4, (1200, 1800)
    series = trailing_means(raw.select(raw.services, ("pod", "cpu", "req")), rows)
    meta = {
        **{"app": "toy", "services": list(raw.services), "version": 1, "source": {}, "settings": settings},
        **{"features": ["pod", "cpu", "req"], "units": ["", "", ""], "step": 60.0, "base_step": 15.0},
        **{"window": 6, "horizon": 2, "label": "required", "lead": 105.0, "demand": model.to_dict()},
    }
    normalizer = Normalizer.fit(series[: bounds[0]], labels[: bounds[0]])
    made = Dataset(raw.times, series, labels, bounds, normalizer, meta, {}, unrounded, present)
    config = ModelConfig.model_validate(
        {"dataset": {"device": "cpu", "stride": 4, "evaluation_stride": 4, "longest_season": 0}}
    )
    settings_of_training = Train(num_iter=2, num_epoch=1, random_graphs=0, refit_epochs=0, unrounded=True)
    bundle = train(TrainingTask(made, "AdapGLS", config, settings_of_training, tmp_path / "toy.pt")).bundle
    save_bundle(bundle, tmp_path / "toy.pt")
    windows, end = make_windows(made, torch.device("cpu"), unrounded=True), 2300
    for level in (0.5, 0.9):
        forecaster = load_forecaster(tmp_path / "toy.pt", quantile=level)
        scores = bundle.build().forecast(windows, bundle.graphs, torch.tensor([end]), 64, level)[0]
        expected = round_up(normalizer.label_values(scores.double().numpy()))
        live = raw.between(-np.inf, float(raw.times[end]))
        np.testing.assert_array_equal(forecaster.forecast(live), expected)
        recent = live.between(float(live.times[-1]) - forecaster.history_seconds, np.inf)
        np.testing.assert_array_equal(forecaster.forecast(recent), expected)
    with pytest.raises(BundleError, match=r"quantile 0\.3"):
        load_forecaster(tmp_path / "toy.pt", quantile=0.3)
