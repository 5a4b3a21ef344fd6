"""The study of graphs read from metrics: its rivals, its judging, its table."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.paths import ROOT

from deepscaler.artefacts import plain
from deepscaler.calls import COLUMNS, CallGraph, write_calls
from deepscaler.errors import DataError
from deepscaler.panel import MetricPanel, write_panel
from testbed.experiments import graph_recovery
from testbed.experiments.graph_recovery import (
    FITS,
    KEPT,
    choose,
    collect,
    fitted,
    judged,
    main,
    standard,
    table,
    timed,
)
from testbed.experiments.graph_rivals import Method, absent, granger, installed, lagged_correlation

CALLS = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]], np.float64)


def cascade(length: int = 400) -> np.ndarray:
    """The first series drives the second one a sample later; the third is noise."""
    rng = np.random.default_rng(1)
    first, noise = rng.normal(size=(2, length))
    second = np.concatenate([[0.0], first[:-1]]) + 0.1 * rng.normal(size=length)
    return standard(np.stack([first, second, noise], axis=1))


def test_the_past_of_a_cause_tells_it_from_its_effect() -> None:
    series = cascade()
    strengths = granger(series)
    assert strengths[0, 1] > 100 * strengths[1, 0] and strengths[0, 1] > 100 * strengths[2].max()
    followed = lagged_correlation(series)
    assert followed[0, 1] > 0.9 and followed[1, 0] < 0.2


def test_gaps_are_bridged_and_what_never_varies_is_nought() -> None:
    series = standard(np.array([[1.0, 5.0, np.nan], [np.nan, 5.0, np.nan], [3.0, 5.0, np.nan]]))
    np.testing.assert_allclose(series[:, 0], [-np.sqrt(1.5), 0, np.sqrt(1.5)])
    assert not series[:, 1:].any()


def test_each_method_is_read_by_the_metric_that_does_best_on_validation() -> None:
    def fit(strengths: np.ndarray | None) -> dict[str, object]:
        return {"strengths": strengths, "seconds": 1.0}

    given = {
        "calls": CALLS,
        "structural": fit(CALLS),
        "Granger by res": fit(CALLS.T),
        "Granger by req": fit(0.5 * CALLS + 0.1 * CALLS.T),
        "lagged correlation by res": fit(None),
    }
    assert choose([given]) == {"structural": 1.0, "Granger by req": 0.5}
    assert judged(given, "lagged correlation by res", 0.5) is None


def singular(_: np.ndarray) -> np.ndarray:
    raise np.linalg.LinAlgError


def endless(_: np.ndarray) -> np.ndarray:
    while True:
        pass


@pytest.mark.parametrize("method", [singular, endless])
def test_a_method_that_has_no_answer_says_so(method: Method) -> None:
    assert timed(lambda: method(CALLS), longest=0.05)["strengths"] is None
    assert timed(lambda: CALLS, longest=0.05)["strengths"].sum() == 2


def test_what_was_stopped_is_tried_again_only_where_it_may_take_longer(tmp_path: Path) -> None:
    write_span(tmp_path, seed=1)
    taken: list[float] = []

    def slow(series: np.ndarray) -> np.ndarray:
        taken.append(signal.getitimer(signal.ITIMER_PROF)[0])
        return endless(series) if taken[-1] < 0.15 else np.eye(2)

    def found(longest: float) -> list[int]:
        fits = fitted(tmp_path, {"slow": slow}, ["slow by res"], longest)
        return [fits["slow by res"]["strengths"] is not None, len(taken)]

    assert found(0.1) == [False, 1]
    assert found(0.1) == found(0.05) == [False, 1]
    assert found(0.2) == [True, 2]
    assert found(0.3) == found(0.1) == [True, 2]


def write_span(place: Path, seed: int, length: int = 300, *, idle: bool = False) -> None:
    """Telemetry of a service that calls another; an idle one has no requests."""
    rng = np.random.default_rng(seed)
    rho = rng.uniform(0.2, 0.9, (length, 2))
    response = 0.004 / (1 - rho)
    response[:, 0] += response[:, 1]
    rate = np.repeat(rng.uniform(20, 60, (length, 1)), 2, axis=1)
    if idle:
        rate, response = np.zeros_like(rate), np.full_like(response, 0.01)
    values = np.stack([np.full_like(rho, 2.0), rho, response, rate], axis=2).astype(np.float32)
    times = 15.0 * np.arange(1, length + 1) + 1.7e9
    panel = MetricPanel(times, ("web", "db"), ("pod", "cpu", "res", "req"), values)
    write_panel(panel, place / "metrics.csv")
    rows = [(panel.times[-1], "web", "db", 40.0)]
    write_calls(CallGraph(pd.DataFrame(rows, columns=list(COLUMNS))), place / "calls.csv")


@pytest.mark.parametrize("methods", [[], ["Granger", "lagged correlation"]])
@pytest.mark.parametrize(
    ("length", "says"),
    [
        (1, "boutique-1/metrics.csv: 0 training rows of 1 samples, at least 60 are needed"),
        (5, "boutique-1/metrics.csv: 3 training rows of 5 samples, at least 60 are needed"),
        (99, "boutique-1/metrics.csv: 59 training rows of 99 samples, at least 60 are needed"),
        (300, ": no method found a call in the telemetry of 24h, so no page is written"),
    ],
)
def test_without_an_answer_no_page_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], methods: list[str], length: int, says: str
) -> None:
    for seed in (1, 2000):
        write_span(tmp_path / f"boutique-{seed}", seed, length, idle=True)
    page, text = tmp_path / "graph.md", "a page"
    page.write_text(text)
    arguments = ["--cases", "boutique", "--seeds", "2000", "--output", str(tmp_path), "--page", str(page)]
    assert main([*arguments, "--methods", *methods]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"graph_recovery: {tmp_path}") and says in said.err
    assert "--last 24h with another --output" in said.err and not said.out
    assert page.read_text() == text and not (tmp_path / KEPT).exists()


CASE = graph_recovery.CASES["synthetic_30"]


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that collect; each writes telemetry instead."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        directory = next(word for word in command if word.startswith("collect.output_dir="))
        write_span(Path(directory.partition("=")[2]), seed=1)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(graph_recovery.subprocess, "run", run)
    return commands


@pytest.mark.parametrize(
    ("case", "seed", "last", "says"),
    [
        (CASE, 1, "10m", "collected with --last 1m, and now --last 10m is asked for"),
        (CASE, 2, "1m", "collected with --set testbed.seed=1 --set testbed.application=synthetic:30:1, and"),
        (replace(CASE, config="config/other.yaml"), 1, "1m", "now --config config/other.yaml is asked for"),
        (replace(CASE, overrides=()), 1, "1m", "now --set testbed.seed=1 is asked for"),
    ],
)
def test_metrics_of_another_span_or_of_other_settings_are_refused(
    tmp_path: Path, collected: list[list[str]], case: graph_recovery.Case, seed: int, last: str, says: str
) -> None:
    place = tmp_path / "a place"
    for _ in range(2):
        collect(CASE, 1, "1m", place)
    assert len(collected) == 1
    with pytest.raises(DataError) as caught:
        collect(case, seed, last, place)
    assert says in str(caught.value) and f"collect again: rm -r '{place}'" in str(caught.value)
    assert str(place / "metrics.csv") in str(caught.value)
    shutil.rmtree(place)
    collect(case, seed, last, place)
    assert len(collected) == 2


def test_metrics_without_a_note_are_taken_and_that_is_said(
    tmp_path: Path, collected: list[list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    write_span(tmp_path, seed=1)
    collect(CASE, 1, "1m", tmp_path)
    assert not collected and "no note says what was asked for" in caplog.text


def test_what_was_fitted_to_other_metrics_is_fitted_anew(tmp_path: Path) -> None:
    write_span(tmp_path, seed=1)
    first = fitted(tmp_path, {})["structural"]
    assert json.loads((tmp_path / FITS).read_text())["structural"] == plain(first)
    again = fitted(tmp_path, {})["structural"]
    assert again["seconds"] == first["seconds"]  # not fitted again
    write_span(tmp_path, seed=2)
    other = fitted(tmp_path, {})["structural"]
    assert not np.array_equal(other["strengths"], first["strengths"])
    assert json.loads((tmp_path / FITS).read_text())["structural"] == plain(other)


@pytest.mark.parametrize("broken", [3, None, {}, {"strengths": [[1.0]], "seconds": 1}, {"seconds": "long"}])
def test_a_broken_fit_that_is_kept_is_fitted_anew(tmp_path: Path, broken: object) -> None:
    write_span(tmp_path, seed=1)
    right = fitted(tmp_path, {})["structural"]["strengths"]
    kept = json.loads((tmp_path / FITS).read_text())
    (tmp_path / FITS).write_text(json.dumps(kept | {"structural": broken}))
    np.testing.assert_allclose(fitted(tmp_path, {})["structural"]["strengths"], right)


def test_the_study_judges_what_lies_there_and_names_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2000, 2001):
        write_span(tmp_path / f"boutique-{seed}", seed)
    page = tmp_path / "graph.md"
    page.write_text(f"<!-- made by {graph_recovery.COMMAND}: recovery -->\n<!-- end of recovery -->\n")
    arguments = ["--cases", "boutique", "--seeds", "2000", "2001", "--output", str(tmp_path)]
    assert main([*arguments, "--page", str(page)]) == 0
    said = capsys.readouterr()
    assert "| structural |" in said.out and all(name in said.err for name in absent())
    result = json.loads((tmp_path / KEPT).read_text())
    for seed in result["cases"]["boutique"]:
        assert seed["calls"] == 1 and seed["readings"]["structural"]["f1"] == 1.0
    assert table(result) in page.read_text()
    assert {"Granger", "lagged correlation"} <= installed().keys()


def test_the_table_of_the_page_is_that_of_its_file() -> None:
    result = json.loads((ROOT / "docs" / KEPT).read_text())
    assert table(result) in (ROOT / "docs" / "graph.md").read_text()
