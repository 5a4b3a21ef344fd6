"""Runs that are there count as finished, and data as made, while the files behind them are the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.experiment_runs import small_experiment, write_task_run
from helpers.paths import CONFIG, ROOT

from deepscaler.errors import BundleError, DataError, DeepScalerError, SettingsError
from testbed.experiments.beforehand import check_inputs
from testbed.experiments.cluster import prepare, run_tasks
from testbed.experiments.expected import Pace
from testbed.experiments.matrix import Case, Task, cases_of, tasks_of


def replayed(section: str, trace: Path) -> str:
    """The override that replays a trace."""
    return f"{section}.load={{shape: {trace}, kind: open, step: 1, scale: 1}}"


def task_of(output: Path, trace: Path) -> Task:
    """A run whose load is a trace."""
    loads = {"trace": {"set": [replayed("scale", trace)]}}
    return tasks_of(list(cases_of(small_experiment(output, loads=loads))))[0]


def test_a_run_on_a_trace_that_has_changed_since_isnt_finished(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text("10\n" * 100)
    task = task_of(tmp_path, trace)
    key = task.load_key
    write_task_run(task)
    assert task.finished() is not None
    trace.write_text("500\n" * 100)
    other = task_of(tmp_path, trace)
    assert other.load_key != key
    with pytest.raises(SettingsError, match=r"trace\.txt has changed since"):
        other.finished()


@pytest.mark.parametrize("edited", ["mine.yaml", "base.yaml"])
def test_a_run_on_an_application_that_has_changed_since_isnt_finished(tmp_path: Path, edited: str) -> None:
    """Its own file or one that it extends; telemetry and truth are made anew, too."""
    base, mine = tmp_path / "base.yaml", tmp_path / "mine.yaml"
    base.write_text((ROOT / "testbed/apps/boutique.yaml").read_text())
    mine.write_text("extends: base.yaml\nhop_ms: 2\n")

    def task() -> Task:
        own = ["evaluate.warmup=0", f"testbed.application={mine}"]
        return tasks_of(list(cases_of(small_experiment(tmp_path, set=own, prepare=True))))[0]

    before = task()
    write_task_run(before)
    assert before.finished() is not None and task().case.data == before.case.data
    with (tmp_path / edited).open("a") as file:
        file.write("# the same, said otherwise\n")
    after = task()
    assert after.load_key != before.load_key and after.case.data != before.case.data
    with pytest.raises(SettingsError, match=r"application \S+mine\.yaml has changed since"):
        after.finished()


def test_a_run_that_doesnt_say_which_trace_it_had_still_counts(tmp_path: Path) -> None:
    """Those of earlier versions; nothing is known against them."""
    trace = tmp_path / "trace.txt"
    trace.write_text("10\n" * 100)
    task = task_of(tmp_path, trace)
    write_task_run(task)
    place = task.place / "run.json"
    place.write_text(place.read_text().replace(f'"{trace}": "', '"gone.txt": "'))
    assert task.finished() is not None


@pytest.mark.parametrize(("policy", "reads"), [("showar", True), ("pbscaler", True), ("hpa_70", False)])
def test_a_rival_that_goes_by_calls_is_run_again_when_they_change(
    tmp_path: Path, policy: str, reads: bool
) -> None:
    calls = tmp_path / "data" / "calls.csv"
    calls.parent.mkdir()
    calls.write_text("one")
    places = ["evaluate.warmup=0", *(f"{part}.output_dir={calls.parent}" for part in ("collect", "process"))]
    (task,) = tasks_of(list(cases_of(small_experiment(tmp_path, policies=[policy], set=places))))
    write_task_run(task)
    assert task.finished() is not None
    calls.write_text("another")
    if reads:
        with pytest.raises(SettingsError, match=r"calls\.csv has changed since"):
            task.finished()
    else:
        assert task.finished() is not None


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"loads": {"typo": {"set": ["scale.load.shape=sqare"]}}}, SettingsError, "unknown shape 'sqare'"),
        ({"set": ["scale.shapes=[square, sqare]"], "seeds": [0, 1]}, SettingsError, "unknown shape 'sqare'"),
        ({"loads": {"gone": {"set": ["scale.load.shape=gone.csv"]}}}, DataError, r"gone\.csv: no such file"),
        ({"policies": ["hpa_70", "deepscaler"], "set": ["scale.bundle=gone.pt"]}, BundleError, r"gone\.pt"),
        ({"policies": ["static", "plan_bootstrap"], "set": ["process.output_dir=gone"]}, DataError, "gone"),
        ({"policies": ["plan_foreseen"], "set": ["process.output_dir=gone"]}, DataError, "gone"),
        ({"policies": ["showar"], "set": ["collect.output_dir=gone"]}, DataError, r"gone/calls\.csv"),
        ({"policies": ["hpa_70", "deepscaler"], "prepare": True}, BundleError, "trains nothing"),
    ],
)
def test_what_a_run_lacks_is_said_before_the_first(
    tmp_path: Path, changes: dict[str, Any], error: type[DeepScalerError], says: str
) -> None:
    tasks = tasks_of(list(cases_of(small_experiment(tmp_path, **changes))))
    with pytest.raises(error, match=says):
        run_tasks(tasks, Pace())


def test_what_a_case_collects_itself_isnt_asked_for_beforehand(tmp_path: Path) -> None:
    policies = ["hpa_70", "showar", "pbscaler", "plan_bootstrap", "plan_foreseen", "oracle"]
    check_inputs(tasks_of(list(cases_of(small_experiment(tmp_path, policies=policies, prepare=True)))))


def prepared(output: Path, config: Path, *overrides: str) -> Case:
    """A case that collects its own data."""
    return next(iter(cases_of(small_experiment(output, config=str(config), prepare=True), overrides)))


def test_too_little_telemetry_is_mended_by_more_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = prepared(tmp_path, CONFIG / "boutique.yaml", "collect.last=3600")
    failed = SimpleNamespace(returncode=1, stderr="too few rows; run: python predict_scale.py ...")
    monkeypatch.setattr("testbed.experiments.cluster.subprocess.run", lambda *_, **__: failed)
    with pytest.raises(DataError, match=r"on 3600 s of telemetry; .* raise collect\.last: too few rows"):
        prepare(case)


def test_data_are_collected_anew_when_a_file_behind_them_is_edited(tmp_path: Path) -> None:
    config, trace = tmp_path / "boutique.yaml", tmp_path / "trace.txt"
    text = (CONFIG / "boutique.yaml").read_text()
    assert text.count("\ntestbed:\n") == 1
    config.write_text(text)
    trace.write_text("10\n" * 100)
    first, on_trace = (
        prepared(tmp_path, config).data,
        prepared(tmp_path, config, replayed("testbed", trace)).data,
    )
    trace.write_text("500\n" * 100)
    assert prepared(tmp_path, config, replayed("testbed", trace)).data not in (first, on_trace)
    config.write_text(text.replace("\ntestbed:\n", "\ntestbed:\n  boot_seconds: 200\n"))
    edited = prepared(tmp_path, config)
    assert edited.settings.testbed.boot_seconds == 200 and edited.data != first


def test_cases_that_differ_in_what_telemetry_doesnt_depend_on_share_their_data(tmp_path: Path) -> None:
    config = CONFIG / "boutique.yaml"
    data = prepared(tmp_path, config).data
    for same in ("scale.period=30", "testbed.history=600", "evaluate.warmup=60"):
        assert prepared(tmp_path, config, same).data == data
    for other in ("collect.last=4500", "testbed={boot_seconds: 200}", "process.window=3"):
        assert prepared(tmp_path, config, other).data != data
