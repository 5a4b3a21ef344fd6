"""The study of graphs read from metrics: its rivals, its judging, its table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.paths import ROOT

from deepscaler.calls import COLUMNS, CallGraph, write_calls
from deepscaler.panel import MetricPanel, write_panel
from testbed.experiments import graph_recovery
from testbed.experiments.graph_recovery import KEPT, choose, judged, main, standard, table, timed
from testbed.experiments.graph_rivals import absent, granger, installed, lagged_correlation

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


def test_a_method_that_has_no_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def singular() -> np.ndarray:
        raise np.linalg.LinAlgError

    def endless() -> np.ndarray:
        while True:
            pass

    monkeypatch.setattr(graph_recovery, "LONGEST_SECONDS", 0.05)
    assert timed(singular)["strengths"] is None and timed(endless)["strengths"] is None
    assert timed(lambda: CALLS)["strengths"].sum() == 2


def test_the_study_judges_what_lies_there_and_names_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2000, 2001):
        rng = np.random.default_rng(seed)
        rho = rng.uniform(0.2, 0.9, (300, 2))
        response = 0.004 / (1 - rho)
        response[:, 0] += response[:, 1]
        rate = np.repeat(rng.uniform(20, 60, (300, 1)), 2, axis=1)
        values = np.stack([np.full_like(rho, 2.0), rho, response, rate], axis=2).astype(np.float32)
        place = tmp_path / f"boutique-{seed}"
        panel = MetricPanel(
            15.0 * np.arange(1, 301) + 1.7e9, ("web", "db"), ("pod", "cpu", "res", "req"), values
        )
        write_panel(panel, place / "metrics.csv")
        rows = [(panel.times[-1], "web", "db", 40.0)]
        write_calls(CallGraph(pd.DataFrame(rows, columns=list(COLUMNS))), place / "calls.csv")
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
