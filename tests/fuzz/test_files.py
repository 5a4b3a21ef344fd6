"""What files hold: every content gives a value or an error that names what is wrong."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from fuzz.broken import FUZZ, changed, torn
from helpers.cells import archive, broken
from helpers.model_samples import make_dataset, small_settings
from helpers.moments import START
from helpers.run_samples import endpoint_row, make_run
from hypothesis import given
from hypothesis import strategies as st

from deepscaler.calls import read_calls
from deepscaler.control.recorder import DecisionRow, PodRow, Recorder
from deepscaler.errors import BundleError, DataError, DeepScalerError, SettingsError
from deepscaler.evaluation.measures import evaluate_run
from deepscaler.labels.facts import read_facts
from deepscaler.learning.bundle import load_bundle, save_bundle
from deepscaler.learning.dataset import read_dataset, write_dataset
from deepscaler.learning.task import TrainingTask
from deepscaler.learning.train import train
from deepscaler.learning.wide import read_wide
from deepscaler.panel import read_panel
from deepscaler.runs import read_run, write_run
from deepscaler.settings import load_settings
from sendFlow.trace import read_counts, read_req
from testbed.fidelity.records import FILES, call_counts, compared, read_cells

TIME = b"2026-01-05T00:00:00Z"
CSV = b"time,web_cpu,web_req\n" + b"".join(
    b"2026-01-05T00:%02d:00Z,0.5,%d\n" % (row, row) for row in range(6)
)
CSV_TOKENS = [
    b",",
    b"\n",
    b";",
    b"\t",
    b'"',
    b"time",
    b"null",
    b"1e39",
    b"-1",
    b"inf",
    b"2926-01-05T00:00:00Z",
    b"1,5",
]
CSV_TOKENS += [
    b"\xef\xbb\xbf",
    b"\xff",
    b"\r",
    b"\x00",
    b"1767571200",
    b"99999999999999999999",
    TIME,
    b"time,",
]
APP = b"""app:
  name: shop
  services: {web: , api: {deployment: api-v1, scaled: false}}
  entries: [{name: GET /, service: web, sla: 0.2}]
cluster: {kind: kubernetes, prometheus: {url: "http://127.0.0.1:1", token: abcdefghijk}, timeout: 10}
collect: {last: 3600, step: 15, end: 2026-01-05T00:00:00Z}
scale: &s {policy: static, seeds: [1, 2], guard_rails: {max_replicas: 30, forced: {web: 2}}}
process: {features: [cpu, req], split: [0.6, 0.2, 0.2], boot_seconds: {web: 20.0}}
"""
YAML_TOKENS = [
    b": ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"&a ",
    b"*a",
    b"*s",
    b"<<: *s",
    b"!!int ",
    b"!!float ",
    b"!!binary ",
]
YAML_TOKENS += [
    b"!!timestamp ",
    b"!!python/object:os.system ",
    b"\n",
    b"  ",
    b"- ",
    b"?",
    b"|",
    b"'",
    b'"',
    b"#",
]
YAML_TOKENS += [
    b".nan",
    b"030",
    b"1e3",
    b"2026-13-45",
    b"null",
    b"extends: x.yaml\n",
    b"[" * 60,
    b"app: ",
    b"%",
    b"@",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("fuzz")


@FUZZ
@given(torn(CSV, CSV_TOKENS))
def test_metrics_csv(place: Path, content: bytes) -> None:
    path = place / "metrics.csv"
    path.write_bytes(content)
    with suppress(DataError):
        panel = read_panel(path)
        assert not np.isinf(panel.values).any() and (np.diff(panel.times) > 0).all()
        panel.regular(15.0)
    with suppress(DataError):
        assert not np.isinf(read_wide(path, "req", ("cpu",)).values).any()


@FUZZ
@given(
    torn(
        b"time,caller,callee,calls_per_second\n" + TIME + b",web,api,1.5\n" + TIME + b",web,db,2\n",
        CSV_TOKENS,
    )
)
def test_calls_csv(place: Path, content: bytes) -> None:
    path = place / "calls.csv"
    path.write_bytes(content)
    with suppress(DataError):
        assert np.isfinite(read_calls(path).mean_rates(("web", "api"))).all()


@FUZZ
@given(
    torn(b"1\n2\n30\n4\n", [b"\n", b"-1", b"1e3", b"030", b"\xff", b"\x0b", "²".encode(), b"9" * 30, b"1 2"])
)
def test_req(place: Path, content: bytes) -> None:
    path = place / "x.req"
    path.write_bytes(content)
    with suppress(DataError):
        assert (read_req(path) >= 0).all()


@FUZZ
@given(torn(b"time,users\n" + b"".join(b"%d,%d\n" % (60 * row, row) for row in range(8)), CSV_TOKENS))
def test_counts_csv(place: Path, content: bytes) -> None:
    path = place / "counts.csv"
    path.write_bytes(content)
    with suppress(DataError):
        series = read_counts(path)
        assert (series.values >= 0).all() and len(series.values) < 1000


@FUZZ
@given(torn(APP, YAML_TOKENS))
def test_settings(place: Path, content: bytes) -> None:
    path = place / "shop.yaml"
    path.write_bytes(content)
    with suppress(SettingsError):
        load_settings(path).model_dump_json()


@FUZZ
@given(
    st.sampled_from(
        [
            "scale.seeds",
            "app",
            "app.services.web",
            "cluster.prometheus.headers",
            "collect.end",
            "scale.run_dir",
            "x.y",
            "",
        ]
    ),
    torn(b"[1, 2]", YAML_TOKENS),
)
def test_overrides(place: Path, key: str, value: bytes) -> None:
    path = place / "sound.yaml"
    path.write_bytes(APP[: APP.index(b"cluster")])
    with suppress(SettingsError):
        load_settings(path, [f"{key}={value.decode(errors='replace')}"]).model_dump_json()


@FUZZ
@given(st.sampled_from(("", *FILES)), st.data())
def test_recorded_cells(place: Path, name: str, data: st.DataObject) -> None:
    """The archive of a real cluster's records, torn as a whole or in one of its files."""
    path = place / "result.zip"
    whole = archive(path)
    if name:
        with zipfile.ZipFile(whole) as sound:
            content = sound.read(f"shop/dist1/wiki/KHPA-70/{name}")
        broken(path, name, data.draw(torn(content, [*CSV_TOKENS, b"200m", b"{", b"[", b"NaN"])))
    else:
        path.write_bytes(data.draw(torn(whole.read_bytes(), [b"PK\x01\x02", b"PK\x05\x06", b"\x00" * 8])))
    with suppress(DataError):
        for cell in read_cells(path, ("front", "back"), "front"):
            assert np.isfinite(cell.record.pods).all() and (np.diff(cell.record.seconds) > 0).all()
            assert np.isfinite(cell.user_seconds).all() and (cell.users >= 0).all()
            compared(cell.record), call_counts(cell.record)


# ------------------------------------------------------------------------------------------- tables of a run
ROWS = [
    DecisionRow(START + 15 * tick, name, 2, 2, 2.4, 1.5, 3, 3, "forecast", "act")
    for tick in range(3)
    for name in ("web", "db")
]


@pytest.fixture(scope="module")
def decisions(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("decisions")
    Recorder(directory).add_decisions(ROWS)
    return (directory / "decisions.csv").read_bytes()


@FUZZ
@given(st.data())
def test_decisions_csv(place: Path, decisions: bytes, data: st.DataObject) -> None:
    """A controller starts whatever its files hold, unless they have other columns."""
    directory = place / "live"
    directory.mkdir(exist_ok=True)
    content = data.draw(torn(decisions, [*CSV_TOKENS, b"web", b"forecast"]))
    (directory / "decisions.csv").write_bytes(content)
    (directory / "pods.csv").unlink(missing_ok=True)
    with suppress(DataError):
        recorder = Recorder(directory)
        recorder.recent(START)
        recorder.first_time()
        recorder.add_decisions(ROWS[:1])
        recorder.add_pods([PodRow(START, "web", 2, 0, 2)])
        assert len(recorder.decisions()) >= 1 and len(recorder.pods()) == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    rows = [endpoint_row(15.0 * step, "GET /", 10, 0.1) for step in range(1, 13)]
    write_run(make_run(rows, start="2026-01-05T00:00:00Z", decision_seconds=[0.1]), directory)
    return directory


@FUZZ
@given(st.data())
def test_run_directory(place: Path, run: Path, data: st.DataObject) -> None:
    directory = place / "run"
    directory.mkdir(exist_ok=True)
    files = {path.name: path.read_bytes() for path in run.iterdir()}
    name = data.draw(st.sampled_from(sorted(files)))
    if name == "run.json" and data.draw(st.booleans()):
        content = json.dumps(data.draw(changed(json.loads(files[name])))).encode()
    else:
        content = data.draw(torn(files[name], [*CSV_TOKENS, b"{", b"}", b"[", b"NaN"]))
    for other, sound in files.items():
        (directory / other).write_bytes(content if other == name else sound)
    with suppress(DataError):
        found = read_run(directory)
        if data.draw(st.integers(0, 4)) == 0:  # it takes longer
            evaluate_run(found, 0.0)


@FUZZ
@given(changed({"web": {"cpu_limit_cores": 0.5, "memory_limit_bytes": 1e8, "boot_seconds": 12.0}}))
def test_workloads_json(place: Path, facts: object) -> None:
    path = place / "workloads.json"
    path.write_text(json.dumps(facts))
    with suppress(DataError):
        found = read_facts(path, ("web",), {})
        assert np.isfinite(found.limit_cores).all()


# ------------------------------------------------------------------------------------- data sets and bundles
@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dataset")
    write_dataset(make_dataset(step=60.0, base_step=15.0, window=6), directory)
    return directory / "dataset.npz"


@FUZZ
@given(st.data())
def test_dataset_npz(place: Path, dataset: Path, data: st.DataObject) -> None:
    (place / "dataset.npz").write_bytes(
        data.draw(torn(dataset.read_bytes(), [b"PK\x03\x04", b"\x93NUMPY", b"{'descr'", b"\x00" * 8]))
    )
    with suppress(DataError):
        found = read_dataset(place)
        assert found.window_ends("train").ndim == 1


HOW = ("gone", "cut", "text", "nan", "flat", "zero", "scalar", "complex")
ARRAYS = (
    "bounds",
    "label_mean",
    "label_scale",
    "labels",
    "mean",
    "meta",
    "prior_call",
    "scale",
    "series",
    "times",
)
META = {
    **{"version": 2, "services": ["web", "db", "cache"], "features": ["cpu", "req"], "app": "shop"},
    **{"step": 60.0, "base_step": 15.0, "window": 6, "horizon": 2, "label": "observed", "lead": 12.0},
}


@FUZZ
@given(st.sampled_from(ARRAYS), st.sampled_from(HOW))
def test_arrays_of_a_dataset(place: Path, dataset: Path, name: str, how: str) -> None:
    """A sound archive in which the arrays don't fit together."""
    arrays = _arrays(dataset)
    value = arrays.pop(name)
    made = {
        "cut": value[:1],
        "text": np.array(["a"]),
        "nan": np.full(value.shape, np.nan),
        "flat": value.reshape(-1),
        "zero": np.zeros_like(value),
        "scalar": np.float64(3),
        "complex": value.astype(complex),
    }
    _read(place, arrays if how == "gone" else {**arrays, name: made[how]})


@FUZZ
@given(changed(META))
def test_description_of_a_dataset(place: Path, dataset: Path, described: object) -> None:
    arrays = _arrays(dataset)
    meta = json.loads(arrays["meta"].tobytes())
    changes = described if isinstance(described, dict) else {}
    kept = {key: value for key, value in meta.items() if key not in META or key in changes}
    differing = {key: value for key, value in changes.items() if value != META.get(key)}
    arrays["meta"] = np.frombuffer(json.dumps({**kept, **differing}).encode(), np.uint8)
    _read(place, arrays)


def _arrays(dataset: Path) -> dict[str, np.ndarray]:
    with np.load(dataset) as stored:
        return {name: stored[name] for name in stored.files}


def _read(place: Path, arrays: dict[str, np.ndarray]) -> None:
    with (place / "dataset.npz").open("wb") as file:
        np.savez(file, **arrays)
    with suppress(DataError):
        found = read_dataset(place)
        assert found.window_ends("train").ndim == 1 and np.isfinite(found.normalizer.mean).all()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("bundle") / "toy.pt"
    config, settings = small_settings(num_iter=1)
    task = TrainingTask(make_dataset(step=60.0, base_step=15.0, window=6), "GCN", config, settings, path)
    save_bundle(train(task).bundle, path)
    return path


@FUZZ
@given(st.data())
def test_bundle(place: Path, bundle: Path, data: st.DataObject) -> None:
    path = place / "toy.pt"
    path.write_bytes(
        data.draw(
            torn(bundle.read_bytes(), [b"PK\x05\x06", b"bundle.json", b"data.pkl", b"sha256:", b"\x80\x02"])
        )
    )
    with suppress(BundleError):
        load_bundle(path)


def test_the_inputs_that_were_not_changed_are_sound(
    place: Path, run: Path, dataset: Path, bundle: Path, decisions: bytes
) -> None:
    """Otherwise the tests above would show nothing."""
    directory = place / "sound"
    directory.mkdir()
    files = {path.name: path.read_bytes() for path in run.iterdir()}
    files |= {"dataset.npz": dataset.read_bytes(), "toy.pt": bundle.read_bytes(), "x.csv": CSV, "x.yaml": APP}
    for name, content in files.items():
        (directory / name).write_bytes(content)
    assert evaluate_run(read_run(directory), 0.0)["violation_rate"] == 0.0
    assert read_dataset(directory).services and load_bundle(directory / "toy.pt").services
    assert len(read_panel(directory / "x.csv")) == 6
    try:
        assert load_settings(directory / "x.yaml").app.name == "shop"
    except DeepScalerError as error:
        raise AssertionError(str(error)) from error
    (directory / "decisions.csv").write_bytes(decisions)
    assert len(Recorder(directory).decisions()) == len(ROWS)
