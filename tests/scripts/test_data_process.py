"""data_process.py, run through main([...])."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers import telemetry as app

import data_process
from deepscaler.artefacts import utc_text
from deepscaler.calls import EXTERNAL
from deepscaler.graphs.priors import read_graph
from deepscaler.labels.demand import DemandModel
from deepscaler.learning import judging
from deepscaler.learning.dataset import STATISTICS, read_dataset
from deepscaler.learning.windowing import make_windows
from deepscaler.panel import MetricPanel, write_panel
from model.layers import Graphs
from model.naive import Persistence


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """Eight hours of collected telemetry."""
    directory = tmp_path_factory.mktemp("collected")
    app.collected(directory, 480)
    return directory


def write_config(directory, metrics, **process):
    document = {
        "app": {
            "name": "shop",
            "services": dict.fromkeys(app.SERVICES),
            "entries": [{"name": "GET /", "service": "web"}],
        },
        "collect": {"output_dir": str(metrics)},
        "process": {"output_dir": str(directory / "out"), "window": 10, "plots": False, **process},
    }
    path = directory / "app.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return str(path)


def run(directory, metrics, *flags, **process):
    return data_process.main(["--config", write_config(directory, metrics, **process), *flags])


def test_required_labels_end_to_end(tmp_path, metrics, capsys):
    assert run(tmp_path, metrics, priors=["call", "od", "cc", "identity"]) == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "3 services, 1920 rows of 15 s" in line and "label required" in line
    dataset = read_dataset(tmp_path / "out")
    assert dataset.services == app.SERVICES and dataset.meta["features"] == ["pod", "cpu", "res", "req"]
    assert dataset.meta["units"] == ["count", "ratio", "s", "1/s"]
    assert (dataset.meta["step"], dataset.meta["base_step"], dataset.dilation) == (60, 15, 4)
    assert dataset.bounds == (1152, 1536) and dataset.meta["lead"] == 105
    known = np.isfinite(dataset.labels)
    assert known.mean() > 0.5
    assert (dataset.labels[known] >= 1).all() and (dataset.labels[known] % 1 == 0).all()
    np.testing.assert_array_equal(np.isfinite(dataset.unrounded), known)
    np.testing.assert_array_equal(
        np.maximum(np.ceil(dataset.unrounded[known] - 1e-5), 1), dataset.labels[known]
    )
    assert (dataset.unrounded[known] % 1 != 0).mean() > 0.3
    model = DemandModel.from_dict(dataset.meta["demand"])
    np.testing.assert_allclose(model.demand_seconds, app.DEMAND, rtol=0.01)
    np.testing.assert_array_equal(model.boot_seconds, app.BOOTS)
    names, call = read_graph(tmp_path / "out" / "graphs" / "call.csv")
    assert names == app.SERVICES
    np.testing.assert_array_equal(call, app.CALLS_PER_REQUEST > 0)
    np.testing.assert_array_equal(call, dataset.priors["call"])
    files = sorted(path.stem for path in (tmp_path / "out" / "graphs").iterdir())
    assert files == ["call", "call_time", "calls", "cc", "identity", "od", "structural", "structural_t"]
    np.testing.assert_array_equal(dataset.evidence["calls"] > 0, call > 0)
    assert set(dataset.evidence) == {"calls", "call_time", "structural", "structural_t"}
    assert json.loads((tmp_path / "out" / "meta.json").read_text()) == dataset.meta


def test_the_same_input_makes_the_same_bytes(tmp_path, metrics):
    written = []
    for _ in range(2):
        assert run(tmp_path, metrics) == 0
        files = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
        written.append({path.name: path.read_bytes() for path in files})
    assert written[0] == written[1] and set(written[0]) >= {
        "dataset.npz",
        "meta.json",
        "labels.json",
        "call.csv",
    }


def test_required_labels_come_with_a_page_that_says_how_far_to_trust_them(tmp_path, metrics):
    assert run(tmp_path, metrics, plots=True) == 0
    assert (tmp_path / "out" / "labels.png").stat().st_size > 50_000
    told = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert set(told) == {"services", "response", "hidden", "saturation", "labels"} and set(
        told["services"]
    ) == set(app.SERVICES)
    assert told["services"]["web"]["demand_ms"] == pytest.approx(7, rel=0.01)
    assert "true_demand_ms" not in told["services"]["web"]  # the emulated application is another one
    assert sum(told["saturation"]["minutes"]) == 288


def test_other_labels_need_no_such_page(tmp_path, metrics):
    assert run(tmp_path, metrics, label="observed", plots=True) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dataset.npz",
        "graphs",
        "meta.json",
    ]


def test_a_prior_called_like_the_recorded_calls_is_refused_at_once(tmp_path, capsys):
    assert run(tmp_path, tmp_path / "none", priors=["mine/calls.csv"]) == 1
    assert "mine/calls.csv is called 'calls' like a graph of the data set" in capsys.readouterr().err


def test_what_an_earlier_run_left_goes_and_graphs_of_ones_own_stay(tmp_path, metrics):
    graphs = tmp_path / "out" / "graphs"
    assert run(tmp_path, metrics, priors=["call", "od", "cc", "identity"], plots=True) == 0
    (graphs / "mine.csv").write_bytes((graphs / "call.csv").read_bytes())
    assert run(tmp_path, metrics, label="feature:req", features=["req"], priors=["cc"], plots=True) == 0
    assert sorted(path.stem for path in graphs.iterdir()) == ["calls", "cc", "mine"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dataset.npz",
        "graphs",
        "meta.json",
    ]


@pytest.mark.parametrize("label", ["required", "observed", "feature:req"])
def test_training_statistics_demand_and_priors_dont_see_test_rows(tmp_path, metrics, label):
    process = {"label": label, "priors": ["call", "od", "cc", "structural"]}
    assert run(tmp_path, metrics, **process) == 0
    before = read_dataset(tmp_path / "out")
    other = tmp_path / "other"
    panel = app.collected(other, 480)
    values = panel.values.copy()
    values[before.bounds[1] :] *= np.array([1, 0.5, 3, 7], np.float32)
    write_panel(MetricPanel(panel.times, panel.services, panel.features, values), other / "metrics.csv")
    calls = pd.read_csv(other / "calls.csv")
    late = (calls["time"] > utc_text(panel.times[before.bounds[1]])) & (calls["caller"] != EXTERNAL)
    calls.loc[late, "callee"] = "cart"
    calls.to_csv(other / "calls.csv", index=False)
    assert run(tmp_path, other, **process) == 0
    after = read_dataset(tmp_path / "out")
    assert not np.array_equal(before.series, after.series, equal_nan=True)
    for name in STATISTICS:
        np.testing.assert_array_equal(getattr(before.normalizer, name), getattr(after.normalizer, name))
    for name, prior in before.priors.items():
        np.testing.assert_array_equal(prior, after.priors[name])
    if label == "required":
        old, new = (DemandModel.from_dict(dataset.meta["demand"]) for dataset in (before, after))
        np.testing.assert_array_equal(old.demand_seconds, new.demand_seconds)
        assert old.response == new.response and old.quality == new.quality


def test_observed_labels_are_recorded_pods(tmp_path, metrics):
    assert run(tmp_path, metrics, label="observed", features=["cpu", "req"]) == 0
    dataset = read_dataset(tmp_path / "out")
    panel = app.telemetry(480)
    assert (
        dataset.meta["features"] == ["cpu", "req"]
        and dataset.meta["lead"] == 0
        and dataset.meta["demand"] is None
    )
    assert dataset.unrounded is None
    np.testing.assert_allclose(dataset.labels[99], panel.feature("pod")[96:100].mean(axis=0), rtol=1e-6)


def test_lead_zero_is_the_ablation(tmp_path, metrics):
    assert run(tmp_path, metrics, lead=False) == 0
    without = read_dataset(tmp_path / "out")
    assert run(tmp_path, metrics) == 0
    ahead = read_dataset(tmp_path / "out")
    both = np.isfinite(without.labels) & np.isfinite(ahead.labels)
    assert without.meta["lead"] == 0
    assert (ahead.labels[both] >= without.labels[both]).all() and (
        ahead.labels[both] > without.labels[both]
    ).any()


@pytest.mark.parametrize("label", ["required", "observed"])
def test_without_calls_training_starts_from_what_telemetry_says(tmp_path, label):
    app.collected(tmp_path / "data", 240)
    (tmp_path / "data" / "calls.csv").unlink()
    assert run(tmp_path, tmp_path / "data", label=label) == 0
    dataset = read_dataset(tmp_path / "out")
    assert list(dataset.priors) == ["structural"] and "calls" not in dataset.evidence
    _, share = read_graph(tmp_path / "out" / "graphs" / "structural.csv")
    np.testing.assert_allclose(share, dataset.priors["structural"], rtol=1e-6)
    assert (
        share[0].any()
        and (read_graph(tmp_path / "out" / "graphs" / "structural_t.csv")[1][share > 0] > 0).all()
    )


def test_with_calls_the_known_graph_stays_beside_any_prior(tmp_path, metrics):
    assert run(tmp_path, metrics) == 0
    assert list(read_dataset(tmp_path / "out").priors) == ["call"]
    assert run(tmp_path, metrics, priors=["identity"]) == 0
    dataset = read_dataset(tmp_path / "out")
    assert list(dataset.priors) == ["identity"]
    np.testing.assert_array_equal(dataset.evidence["calls"] > 0, app.CALLS_PER_REQUEST > 0)


def test_labels_of_many_steps_see_no_other_split(tmp_path, metrics):
    """With a horizon of 12, targets are labels of 12 coming steps; none knows load behind its split."""
    assert run(tmp_path, metrics, horizon=12) == 0
    dataset = read_dataset(tmp_path / "out")
    panel = app.telemetry(480)
    values = panel.values.copy()
    values[dataset.bounds[0] :, :, 3] *= 3
    app.collected(tmp_path / "data", 480)
    write_panel(
        MetricPanel(panel.times, panel.services, panel.features, values), tmp_path / "data" / "metrics.csv"
    )
    assert run(tmp_path, tmp_path / "data", horizon=12) == 0
    other = read_dataset(tmp_path / "out")
    steps = dataset.dilation * np.arange(1, 13)
    ends = dataset.window_ends("train")
    targets = (ends[:, None] + steps).ravel()
    assert targets.max() == dataset.bounds[0] - 1 and np.isnan(dataset.labels[targets.max()]).all()
    np.testing.assert_array_equal(other.labels[targets], dataset.labels[targets])
    np.testing.assert_array_equal(other.unrounded[targets], dataset.unrounded[targets])
    behind = dataset.window_ends("validation")[0] - dataset.dilation * dataset.meta["window"] + 1
    assert behind >= dataset.bounds[0]
    later = slice(dataset.bounds[0] + 40, dataset.bounds[1])
    assert (
        np.nan_to_num(other.labels[later]) > np.nan_to_num(dataset.labels[later])
    ).mean() > 0.5  # the change is seen where it is


def test_without_calls_visits_come_from_rates_and_cc_serves_as_prior(tmp_path):
    app.collected(tmp_path / "data", 240)
    (tmp_path / "data" / "calls.csv").unlink()
    assert run(tmp_path, tmp_path / "data", priors=["cc"]) == 0
    visits = np.array(read_dataset(tmp_path / "out").meta["demand"]["visits"])
    np.testing.assert_allclose(visits, app.VISITS[None], rtol=0.03)


def test_a_dead_and_a_constant_service_are_survived(tmp_path, caplog):
    panel = app.collected(tmp_path / "data", 240)
    values = panel.values.copy()
    values[:, 1] = np.nan
    values[:, 2] = [2, 0.01, np.nan, 0]
    write_panel(
        MetricPanel(panel.times, panel.services, panel.features, values), tmp_path / "data" / "metrics.csv"
    )
    assert run(tmp_path, tmp_path / "data") == 0
    assert "cart has no pod, cpu, res, req at all" in caplog.text
    dataset = read_dataset(tmp_path / "out")
    assert np.isnan(dataset.labels[:, 1]).all() and np.isfinite(dataset.labels[:, 0]).any()
    scores = dataset.normalizer.apply(dataset.series)
    assert np.isfinite(scores).all() and np.abs(scores[:, 2]).max() == 0


def test_gaps_in_time_become_missing_rows(tmp_path):
    panel = app.collected(tmp_path / "data", 240)
    keep = np.r_[0:300, 340:960]
    write_panel(
        MetricPanel(panel.times[keep], panel.services, panel.features, panel.values[keep]),
        tmp_path / "data" / "metrics.csv",
    )
    assert run(tmp_path, tmp_path / "data") == 0
    dataset = read_dataset(tmp_path / "out")
    assert (
        len(dataset.times) == 960
        and np.isnan(dataset.series[305:340]).all()
        and np.isnan(dataset.labels[305:340]).all()
    )


@pytest.mark.parametrize(("bare", "base"), [(True, 1.0), (False, 300.0)])
def test_any_wide_csv_for_plain_forecasting(tmp_path, capsys, bare, base):
    rows, times = 400, [utc_text(app.START + base * row) for row in range(400)]
    load = np.random.default_rng(1).random((rows, 2))
    names = ["alpha", "beta"] if bare else ["alpha_load", "beta_load"]
    pd.DataFrame(load, columns=names).assign(time=times).to_csv(tmp_path / "any.csv", index=False)
    step = 5.0 if bare else 300.0
    flags = [
        "--csv",
        str(tmp_path / "any.csv"),
        "--set",
        "process.label=feature:load",
        "--set",
        f"process.step={step}",
        "--set",
        "collect.step=5",
    ]
    assert run(tmp_path, tmp_path, *flags, priors=["cc"]) == 0
    dataset = read_dataset(tmp_path / "out")
    assert (
        dataset.services == ("alpha", "beta")
        and dataset.meta["features"] == ["load"]
        and dataset.meta["app"] == "any"
    )
    rows_a_step = 5 if bare else 1
    np.testing.assert_allclose(dataset.labels[50], load[51 - rows_a_step : 51].mean(axis=0), rtol=1e-5)
    assert "2 services, 400 rows" in capsys.readouterr().out


@pytest.mark.field
def test_a_foreign_csv_may_have_any_features_and_a_given_season_and_signed_labels(tmp_path):
    rows, times = 400, [utc_text(app.START + 300.0 * row) for row in range(400)]
    rng = np.random.default_rng(1)
    names = [f"{place}_{feature}" for place in ("a_1", "b") for feature in ("wind_speed", "temp")]
    values = rng.normal(size=(rows, 4)) - 5.0
    pd.DataFrame(values, columns=names).assign(time=times).to_csv(tmp_path / "any.csv", index=False)
    flags = [
        *("--csv", str(tmp_path / "any.csv"), "--set", "process.label=feature:wind_speed"),
        *("--set", "process.features=[temp,wind_speed]", "--set", "process.step=300"),
        *("--set", "collect.step=300", "--set", "process.season=7200"),
    ]
    assert run(tmp_path, tmp_path, *flags, priors=["cc"]) == 0
    dataset = read_dataset(tmp_path / "out")
    assert dataset.services == ("a_1", "b") and dataset.meta["features"] == ["temp", "wind_speed"]
    assert dataset.signed
    np.testing.assert_allclose(dataset.labels[7], values[7, [0, 2]], rtol=1e-5)
    windows = make_windows(dataset, torch.device("cpu"), longest_season=0)
    assert windows.season == 24
    persisted = judging.forecasts_of(
        Persistence(judging.shape_of(dataset.meta)),
        windows,
        Graphs(torch.zeros(2, 2), torch.zeros(2, 2)),
        dataset,
        {"validation": dataset.window_ends("validation"), "test": dataset.window_ends("test")},
        64,
        False,
    )
    truth = judging.targets(dataset, dataset.window_ends("test"))
    assert np.abs(persisted["test"] - truth).mean() < 1.5  # it was 4.9 when forecasts ended at 0


def failure(capsys):
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("data_process: ")]
    assert len(lines) == 1 and captured.out == ""
    return lines[0]


@pytest.mark.parametrize(
    ("process", "says"),
    [
        (
            {"window": 500},
            "train split: 1152 rows of 15 s, a window and its horizon take 2004: that is too short; "
            "collect longer",
        ),
        ({"window": 120}, "validation split: 384 rows"),
        ({"label": "feature:latency"}, "column 'web_latency' is missing"),
        ({"step": 75.0, "priors": ["nonsense"]}, "prior 'nonsense' is unknown"),
        (
            {"label": "feature:req", "features": ["req"], "priors": ["absent.csv"]},
            "absent.csv: no such graph",
        ),
        ({"priors": ["absent.csv"]}, "absent.csv: no such graph"),
        ({"features": ["pod", "mem"]}, "column 'web_mem' is missing"),
    ],
)
def test_what_doesnt_fit_is_one_line(tmp_path, metrics, capsys, process, says):
    assert run(tmp_path, metrics, **process) == 1
    assert says in failure(capsys)
    assert not (tmp_path / "out").exists()


def test_missing_files_name_the_command(tmp_path, capsys):
    assert run(tmp_path, tmp_path / "none") == 1
    assert "metrics.csv: no such file; make it with: python metrics_fetch.py" in failure(capsys)
    app.collected(tmp_path / "data", 240)
    (tmp_path / "data" / "workloads.json").unlink()
    assert run(tmp_path, tmp_path / "data") == 1
    assert "workloads.json: no such file" in failure(capsys)
    (tmp_path / "data" / "calls.csv").unlink()
    assert run(tmp_path, tmp_path / "data", label="observed", priors=["call"]) == 1
    assert "prior call needs calls.csv; make it with: python metrics_fetch.py" in failure(capsys)


def test_a_broken_csv_names_line_and_column(tmp_path, capsys):
    app.collected(tmp_path / "data", 240)
    path = tmp_path / "data" / "metrics.csv"
    lines = path.read_text().splitlines()
    lines[7] = lines[7].replace(",", ",oops", 1)
    path.write_text("\n".join(lines) + "\n")
    assert run(tmp_path, tmp_path / "data") == 1
    assert "line 8, column 'web_pod'" in failure(capsys)


def test_too_little_telemetry_says_what_to_collect(tmp_path, capsys):
    app.collected(tmp_path / "data", 60)
    assert run(tmp_path, tmp_path / "data") == 1
    assert "usable minutes" in failure(capsys)


def test_a_foreign_csv_needs_a_feature_label(tmp_path, metrics, capsys):
    assert run(tmp_path, metrics, "--csv", str(metrics / "metrics.csv")) == 1
    assert "process.label=feature:<name>" in failure(capsys)


def test_a_step_that_the_samples_dont_divide_is_refused(tmp_path, metrics, capsys):
    assert run(tmp_path, metrics, "--set", "collect.step=20", step=40.0) == 1
    assert "sampled every 15 s, of which process.step 40 is no multiple" in failure(capsys)


def test_offered_rates_are_forecast_at_the_step_of_the_samples(tmp_path, metrics, capsys):
    assert run(tmp_path, metrics, "--set", "process.label=offered", step=60.0) == 1
    assert "use --set process.step=15" in failure(capsys)
    assert run(tmp_path, metrics, "--set", "process.label=offered", step=15.0) == 1
    assert "use --set process.horizon=40" in failure(capsys)
    covered = ("process.label=offered", "process.horizon=40")
    assert run(tmp_path, metrics, *(part for one in covered for part in ("--set", one)), step=15.0) == 0
