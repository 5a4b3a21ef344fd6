"""`--model_name all`: one budget, rows for networks and their parts, means over seeds with intervals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.model_samples import make_dataset

import main
from deepscaler.learning.comparison import compare_networks, length_of_comparison, run_one, task_of
from deepscaler.learning.comparison_report import comparison_verdict, summarise
from deepscaler.learning.dataset import Dataset, write_dataset
from deepscaler.learning.entrants import EDGES, ENTRANTS, SIMPLE, Entrant, entrants_of
from deepscaler.learning.judging import MEASURES
from deepscaler.settings import ModelConfig, Train
from model.networks import NETWORKS

BUDGET = {"seeds": [1, 2], "epochs": 1, "channels": 4, "workers": 1, "processor_seconds": 30.0}
CONFIG = ModelConfig.model_validate(
    {"dataset": {"device": "cpu", "stride": 8, "evaluation_stride": 8, "longest_season": 0}}
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    made = make_dataset(length=800, window=30)
    return replace(made, unrounded=made.labels - 0.3)


def train_settings(**changes: object) -> Train:
    return Train.model_validate({"comparison": {**BUDGET, **changes}})


def test_every_network_has_a_row_and_so_has_each_part_in_question() -> None:
    for told in (True, False):
        rows = {entrant.network for entrant in ENTRANTS if not entrant.without and entrant.told == told}
        assert (
            rows == set(NETWORKS) - {"Persistence"}
            if told
            else set(NETWORKS) - {"KnownNow", "SeasonalNaive", "AdapGLS"}
        )
    assert len({entrant.label for entrant in ENTRANTS}) == len(ENTRANTS)
    assert {entrant.label for entrant in ENTRANTS if entrant.without} == {
        "AdapGLA, no edges",
        "AdapGLA, no attention",
        "AdapGLS, no edges",
        "AdapGLS, no twin",
        "AdapGLS, no present",
    }


def test_the_budget_holds_for_all_and_full_takes_the_settings(dataset: Dataset) -> None:
    train = train_settings(window=20)
    short = task_of(Entrant("AdapGLA"), 2, dataset, CONFIG, train, full=False)
    assert short.shape.window == 20 and short.sizes["graph_channels"] == short.sizes["time_channels"] == 4
    assert (short.train.num_iter, short.train.num_epoch, short.train.stop_early, short.train.seed) == (
        1,
        1,
        True,
        2,
    )
    full = task_of(Entrant("AdapGLA"), 2, dataset, CONFIG, train, full=True)
    assert (
        full.shape.window == 30
        and full.sizes["graph_channels"] == 128
        and full.train.num_iter == train.num_iter
    )


def test_a_row_without_a_part_is_without_it(dataset: Dataset) -> None:
    bare = task_of(Entrant("AdapGLA", EDGES), 1, dataset, CONFIG, train_settings(), full=False)
    assert bare.train.graph.learner == "none" and bare.dataset.priors == {}
    assert (
        task_of(Entrant("AdapGLA", "attention"), 1, dataset, CONFIG, train_settings(), full=False).sizes[
            "attention"
        ]
        is False
    )


def test_rows_hold_errors_by_step_and_service_with_intervals_over_seeds(dataset: Dataset) -> None:
    seen: list[tuple[str, int]] = []
    entrants = (
        Entrant("AdapGLS", told=True),
        Entrant("AdapGLS", "twin", told=True),
        Entrant("AR"),
        Entrant("Persistence"),
    )
    result = compare_networks(
        dataset,
        CONFIG,
        train_settings(),
        full=False,
        report=lambda *shown: seen.append(shown),
        entrants=entrants,
    )
    assert sorted(label for label, _ in seen) == sorted(2 * [entrant.label for entrant in entrants])
    assert {total for _, total in seen} == {8}
    row = result["rows"]["AdapGLS"]["test"]
    low, high = row["mae"]["interval"]
    assert low <= row["mae"]["mean"] <= high and len(row["mae"]["by_seed"]) == 2
    assert len(row["rmse_by_step"]) == 1 and len(row["mape_by_service"]) == 5
    assert result["rows"]["AdapGLS"]["parameters"] > result["rows"]["AdapGLS, no twin"]["parameters"]
    assert result["rows"]["Persistence"]["samples_per_second"] is None
    assert "AdapGLS with twin" in result["verdict"]


def test_workers_give_what_one_process_gives(dataset: Dataset) -> None:
    entrants = (Entrant("AR"), Entrant("GCN"))
    alone, together = (
        compare_networks(
            dataset,
            CONFIG,
            train_settings(workers=workers),
            full=False,
            report=lambda *shown: None,
            entrants=entrants,
        )
        for workers in (1, 2)
    )
    for name in alone["rows"]:
        np.testing.assert_allclose(
            alone["rows"][name]["test"]["mae"]["by_seed"],
            together["rows"][name]["test"]["mae"]["by_seed"],
            rtol=1e-4,
        )


def test_forecasts_of_the_unrounded_requirement_are_rounded_up(dataset: Dataset) -> None:
    """Labels lie 0.3 above it, so persistence errs by nothing once it is rounded up."""
    steady = replace(
        dataset, labels=np.full_like(dataset.labels, 3), unrounded=np.full_like(dataset.labels, 2.7)
    )
    result = compare_networks(
        steady,
        CONFIG,
        train_settings(seeds=[1]),
        full=False,
        report=lambda *shown: None,
        entrants=(Entrant("Persistence"),),
    )
    assert result["unrounded"] and result["rows"]["Persistence"]["test"]["mae"]["mean"] == 0


def run_with(mae: float) -> dict[str, object]:
    measures = dict.fromkeys(MEASURES, 1.0) | {"mae": mae}
    by_part = {
        f"{name}_by_{part}": [1.0] for name in measures for part in ("step", "service", "service_and_step")
    }
    errors = {"windows": 5, "known": 5, **measures, **by_part}
    return {"parameters": 3, "samples_per_second": 10.0, "seconds": 1.0, "epochs": 2, "validation": errors}


def test_means_and_intervals_on_paper() -> None:
    row = summarise([run_with(mae) for mae in (1.0, 2.0, 3.0)])["validation"]["mae"]
    assert row["mean"] == 2 and row["interval"] == pytest.approx(
        (2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), rel=1e-3
    )


def test_the_verdict_says_what_a_part_is_worth() -> None:
    def row(*maes: float) -> dict[str, object]:
        return {
            "test": {
                "mae": {"mean": float(np.mean(maes)), "by_seed": list(maes)},
                "rmse": {"mean": 1.0, "by_seed": [1.0] * len(maes)},
            }
        }

    rows = {
        Entrant("AdapGLA"): row(0.9, 0.8),
        Entrant("AdapGLA", EDGES): row(1.0, 1.0),
        Entrant("AR"): row(0.7, 0.7),
    }
    text = comparison_verdict(rows)
    assert "The strongest simple forecast is AR: MAE 0.7000." in text
    assert "Isn't told apart from it (95 % interval over seeds): AdapGLA +21.4 %." in text
    rows[Entrant("LSTM", told=True)] = row(0.5, 0.51)
    assert "Beats it (95 % interval over seeds): LSTM, told -27.9 %." in comparison_verdict(rows)
    assert "By MAE on test: AR 0.7000, AdapGLA 0.8500" in text
    assert "AdapGLA with edges: -15.0 % MAE against without (-20.0 to -10.0 by seed)." in text


def test_a_told_row_starts_from_what_is_known_and_the_season(dataset: Dataset) -> None:
    """What is known now is the truth here, so that a network that adds nothing can't err."""
    knowing = replace(dataset, labels=dataset.labels.copy(), unrounded=None, present=dataset.labels.copy())
    knowing.present[:-1] = dataset.labels[1:]
    told, alone = (
        run_one(task_of(Entrant("STID", told=told), 1, knowing, CONFIG, train_settings(epochs=6), full=False))
        for told in (True, False)
    )
    assert told["test"]["mae"] < 0.2 * alone["test"]["mae"]
    simple = run_one(task_of(Entrant("AR", told=True), 1, knowing, CONFIG, train_settings(), full=False))
    assert simple["test"]["mae"] < 0.05


def test_some_networks_are_compared_with_all_simple_forecasts() -> None:
    rows = entrants_of(["AdapGLS", "STID"])
    assert {entrant.network for entrant in rows} == {"AdapGLS", "STID", *SIMPLE}
    assert {entrant.told for entrant in rows if entrant.network == "STID"} == {True, False}
    said = length_of_comparison(rows, train_settings(), full=False)
    assert said.startswith(f"{len(rows)} rows, {2 * (len(rows) - 5)} trainings of networks: at most 1 epochs")


def test_forecasts_are_kept_row_by_row(dataset: Dataset, tmp_path: Path) -> None:
    compare_networks(
        dataset,
        CONFIG,
        train_settings(seeds=[3]),
        full=False,
        report=lambda *shown: None,
        entrants=(Entrant("AdapGLS", "twin", told=True), Entrant("AR", told=True)),
        forecasts=tmp_path / "kept",
    )
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        "AR-told-3.npz",
        "AdapGLS-no_twin-3.npz",
    ]
    with np.load(tmp_path / "kept" / "AdapGLS-no_twin-3.npz") as kept:
        assert kept["levels"].tolist() == [0.5, 0.9] and kept["services"].tolist() == list(dataset.services)
        truth, made, quantiles = (kept[f"test_{name}"] for name in ("truth", "forecast", "quantiles"))
        assert truth.shape == made.shape == (*kept["test_times"].shape, 5) == quantiles.shape[1:]
        assert (quantiles[0] <= quantiles[1]).all() and np.array_equal(quantiles[0], made)
        rows = np.searchsorted(dataset.times, kept["test_times"][:, 0])
        np.testing.assert_array_equal(dataset.labels[rows], truth[:, 0])


def test_main_prints_tables_or_json(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "ENTRANTS", (Entrant("AR"), Entrant("Persistence")))
    write_dataset(dataset, tmp_path)
    flags = [
        "--model_name",
        "all",
        "--data_dir",
        str(tmp_path),
        "--model_save_path",
        str(tmp_path / "out.json"),
    ]
    settings = [
        "train.comparison.seeds=[1]",
        "train.comparison.workers=1",
        "model.dataset.stride=8",
        "model.dataset.evaluation_stride=8",
    ]
    extra = [word for text in settings for word in ("--set", text)]
    assert main.main([*flags, *extra]) == 0
    shown = capsys.readouterr().out
    for expected in (
        "toy, validation: required (replicas)",
        "toy, test:",
        "MAE by step",
        "RMSE by service",
        "MAPE by service",
        "MAE z by service",
        "told the window alone",
        "deficient",
        "mail",
        "By MAE on test",
    ):
        assert expected in shown
    assert main.main([*flags, *extra, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"]["AR"]["test"]["mae"]["interval"] is None  # one seed has none
    assert json.loads((tmp_path / "out.json").read_text())["rows"] == printed["rows"]
    assert main.main([*flags, *extra, "--resume"]) == 1
    assert "takes neither --resume nor --init_from" in capsys.readouterr().err
