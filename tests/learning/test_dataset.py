"""The data set: statistics, windows, files."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscaler.errors import DataError
from deepscaler.learning import dataset as module
from deepscaler.learning.dataset import (
    SPLITS,
    Dataset,
    Normalizer,
    read_dataset,
    write_dataset,
)
from deepscaler.learning.wide import read_wide
from deepscaler.panel import MetricPanel, trailing_means


def sample(
    length: int = 400,
    window: int = 5,
    horizon: int = 1,
    bounds: tuple[int, int] = (240, 320),
    step: float = 60.0,
) -> Dataset:
    rng = np.random.default_rng(1)
    series = rng.random((length, 2, 3)).astype(np.float32) * np.array([1, 10, 1000], np.float32)
    labels = rng.integers(1, 9, (length, 2)).astype(np.float32)
    meta = {
        "services": ["a", "b"],
        "features": ["pod", "cpu", "req"],
        "step": step,
        "base_step": 15.0,
        "window": window,
        "horizon": horizon,
    }
    normalizer = Normalizer.fit(series[: bounds[0]], labels[: bounds[0]])
    return Dataset(
        1e9 + 15.0 * np.arange(length),
        series,
        labels,
        bounds,
        normalizer,
        meta,
        {"call": np.eye(2, dtype=np.float32)},
    )


def test_statistics_are_by_service_and_feature_over_known_values_and_constants_get_scale_one():
    series = np.array(
        [[[1.0, 5], [100, np.nan]], [[3, 5], [300, np.nan]], [[np.nan, 5], [200, np.nan]]], np.float32
    )
    normalizer = Normalizer.fit(series, np.array([[2.0, 1], [2, 3], [2, np.nan]], np.float32))
    np.testing.assert_allclose(normalizer.mean, [[2, 5], [200, 0]])
    np.testing.assert_allclose(normalizer.scale, [[1, 1], [np.sqrt(20000 / 3), 1]], rtol=1e-6)
    np.testing.assert_allclose(normalizer.label_mean, [2, 2])
    np.testing.assert_allclose(normalizer.label_scale, [1, 1])
    scores = normalizer.apply(series)
    assert np.isfinite(scores).all()
    assert scores[2, 0, 0] == 0  # missing: the training mean


@settings(deadline=None)
@given(
    window=st.integers(1, 8),
    horizon=st.integers(1, 4),
    step=st.sampled_from([15.0, 30.0, 60.0]),
    low=st.integers(1, 399),
    gap=st.integers(0, 399),
)
def test_no_window_crosses_a_split(window, horizon, step, low, gap):
    dataset = sample(window=window, horizon=horizon, step=step, bounds=(low, min(low + gap, 400)))
    edges = dict(zip(SPLITS, zip((0, *dataset.bounds), (*dataset.bounds, 400), strict=True), strict=True))
    for split, (first, last) in edges.items():
        ends = dataset.window_ends(split)
        for end in ends[[0, -1]] if len(ends) else ():
            oldest = (
                end - dataset.dilation * (window - 1) - (dataset.dilation - 1)
            )  # oldest raw sample in the oldest mean
            assert first <= oldest and end + dataset.dilation * horizon < last
        fitting = last - first - dataset.dilation * (window + horizon) + 1
        assert len(ends) == max(fitting, 0)


def test_windows_without_a_known_label_are_left_out():
    dataset = sample()
    dataset.labels[100:110] = np.nan
    dataset.labels[200, 0] = np.nan
    ends = set(dataset.window_ends("train"))
    assert not ends & set(range(96, 106))
    assert 196 in ends


def test_trailing_means_leave_missing_out_and_weigh_responses_by_requests():
    values = np.zeros((5, 1, 2), np.float32)
    values[:, 0, 0] = [0.1, 0.3, np.nan, np.nan, np.nan]
    values[:, 0, 1] = [30, 10, 0, np.nan, 8]
    means = trailing_means(MetricPanel(np.arange(5.0), ("a",), ("res", "req"), values), 2)
    np.testing.assert_allclose(means[:, 0, 0], [0.1, 0.15, 0.3, np.nan, np.nan], rtol=1e-6)
    np.testing.assert_allclose(means[:, 0, 1], [30, 20, 5, 0, 8])


def test_a_data_set_reads_back_equal(tmp_path):
    dataset = sample()
    dataset.labels[3, 1] = np.nan
    write_dataset(dataset, tmp_path)
    again = read_dataset(tmp_path)
    for name in ("times", "series", "labels"):
        np.testing.assert_array_equal(getattr(again, name), getattr(dataset, name))
    assert again.bounds == dataset.bounds and again.services == ("a", "b")
    for name in module.STATISTICS:
        np.testing.assert_array_equal(getattr(again.normalizer, name), getattr(dataset.normalizer, name))
    np.testing.assert_array_equal(again.priors["call"], np.eye(2))


def test_unrounded_labels_travel_where_there_are_any(tmp_path):
    write_dataset(sample(), tmp_path)
    assert read_dataset(tmp_path).unrounded is None
    unrounded = np.linspace(0.1, 5, 800, dtype=np.float32).reshape(400, 2)
    write_dataset(replace(sample(), unrounded=unrounded), tmp_path)
    np.testing.assert_array_equal(read_dataset(tmp_path).unrounded, unrounded)


def test_the_same_data_set_makes_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_dataset(sample(), tmp_path / name)
    for name in ("dataset.npz", "meta.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("victim", ["json", "npz"])
def test_a_kill_while_writing_leaves_a_whole_data_set(tmp_path, monkeypatch, victim):
    old, new = sample(), sample(window=7)
    write_dataset(old, tmp_path)

    def killed(*_args, **_kwargs):
        raise Killed

    def half_written(handle, **_arrays):
        handle.write(b"PK half")
        raise Killed

    if victim == "npz":
        monkeypatch.setattr(np, "savez_compressed", half_written)
    else:
        monkeypatch.setattr(module, "write_json", killed)
    with pytest.raises(Killed):
        write_dataset(new, tmp_path)
    assert read_dataset(tmp_path).meta["window"] == (5 if victim == "npz" else 7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.npz", "meta.json"]


def test_missing_broken_and_other_versions_are_refused_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"dataset.npz: no such file; make it with: python data_process\.py"):
        read_dataset(tmp_path)
    (tmp_path / "dataset.npz").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="broken data set"):
        read_dataset(tmp_path)
    write_dataset(sample(), tmp_path)
    whole = (tmp_path / "dataset.npz").read_bytes()
    (tmp_path / "dataset.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="broken data set"):
        read_dataset(tmp_path)
    (tmp_path / "dataset.npz").write_bytes(whole)
    monkeypatch.setattr(module, "VERSION", 3)
    with pytest.raises(DataError, match="version 2, expected 3"):
        read_dataset(tmp_path)


def test_wide_csv_of_bare_service_names(tmp_path):
    path = tmp_path / "rates.csv"
    path.write_text(",timestamp,web,cart_v1\n0,2022-04-11 04:08:12,1.5,\n1,2022-04-11 04:08:13,2.5,7\n")
    panel = read_wide(path, "req", ("pod", "req"))
    assert panel.services == ("web", "cart_v1") and panel.features == ("req",) and panel.step == 1
    np.testing.assert_array_equal(panel.values[:, :, 0], [[1.5, np.nan], [2.5, 7]])


def test_wide_csv_of_services_and_features(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text(
        "time,a_req,a_load,b-c_req,b-c_load\n2026-01-05T00:00:00Z,1,2,3,4\n2026-01-05T00:01:00Z,5,6,7,8\n"
    )
    panel = read_wide(path, "load", ("pod", "req"))
    assert panel.services == ("a", "b-c") and panel.features == ("req", "load")
    np.testing.assert_array_equal(panel.values[1], [[5, 6], [7, 8]])
    assert read_wide(path, "req").features == ("req",)
    assert read_wide(path, "cpu").services == (
        "a_req",
        "a_load",
        "b-c_req",
        "b-c_load",
    )  # nothing says that these aren't names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "column 'time' is missing; found a, b"),
        ("time\n2026-01-05T00:00:00Z\n", "one per service"),
        (
            "time,a_req,b_req\n2026-01-05T00:00:00Z,1,2\n",
            "feature 'load' of process.label isn't in it; it holds req",
        ),
        ("time,a_load,a_req,b_load\n2026-01-05T00:00:00Z,1,2,3\n", "column 'b_req' is missing"),
        ("time,a\n2026-01-05T00:00:00Z,x\n", "line 2, column 'a': 'x' is not a number"),
        ("time,a\nyesterday,1\n", "line 2: time 'yesterday'"),
        ("time,a\n2026-01-05T00:00:00Z,1\n2026-01-05T00:00:00Z,2\n", "keep one row for each time"),
        ("", "not a readable CSV"),
    ],
)
def test_a_broken_wide_csv_is_one_line(tmp_path, text, says):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError) as error:
        read_wide(tmp_path / "x.csv", "load", ("req",))
    assert (
        says in str(error.value)
        and str(tmp_path / "x.csv") in str(error.value)
        and "\n" not in str(error.value)
    )


def test_the_file_grows_with_the_series_not_with_the_window(tmp_path):
    for window in (5, 50):
        write_dataset(sample(window=window), tmp_path / str(window))
    sizes = [(tmp_path / str(window) / "dataset.npz").stat().st_size for window in (5, 50)]
    assert abs(sizes[0] - sizes[1]) < 100
