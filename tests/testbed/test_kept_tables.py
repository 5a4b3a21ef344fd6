"""Tables of docs/results.md whose runs take long: newer files take their places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.paths import ROOT

from deepscaler.errors import DataError
from testbed.experiments.documents import KEPT, main
from testbed.experiments.kept_tables import networks_table, policies_said, told_table, with_comparison

FOUND = json.loads((ROOT / KEPT).read_text(encoding="utf-8"))


def comparison(label: str, mae: float) -> dict[str, object]:
    """A comparison.json with one row."""
    measures = ("mae_z", "crps", "deficient", "excess", "missed_peaks")
    test = {"mae": {"mean": mae, "interval": [mae - 0.01, mae + 0.01]}} | {
        name: {"mean": 0.5} for name in measures
    }
    return {"rows": {label: {"told": True, "test": test}}}


def test_a_newer_comparison_fills_its_column_and_leaves_the_others() -> None:
    made = with_comparison(FOUND["networks"], "recording", comparison("LSTM", 1.25))
    (row,) = [line for line in networks_table(made).splitlines() if line.startswith("| LSTM")]
    assert row.endswith("| 1.250 ± 0.010 |") and "0.079 ± 0.004" in row
    with pytest.raises(DataError, match="no column 'elsewhere'; there are: Boutique"):
        with_comparison(FOUND["networks"], "elsewhere", comparison("LSTM", 1.0))
    with pytest.raises(DataError, match="none of the table's rows"):
        with_comparison(FOUND["networks"], "recording", comparison("Prophet", 1.0))


def test_what_is_said_of_train_ticket_follows_its_numbers() -> None:
    changed = json.loads(json.dumps(FOUND["train_ticket"]))
    changed["policies"]["deepscaler"]["core_hours"] = changed["policies"]["hpa_70"]["core_hours"] / 2
    assert "at 50 % less cost" in policies_said(changed)


def test_newer_files_are_kept_beside_what_was_there_and_reach_the_page(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/results.md", KEPT):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    summary = json.loads(json.dumps(FOUND["train_ticket"]))
    summary["policies"]["hpa_50"]["core_hours"] = 77.7
    summary["paired"] = {"deepscaler": summary["paired"]}
    for name, content in {
        "tt.json": summary,
        "compared.json": comparison("GCN", 0.987),
        "told.json": comparison("AdapGLS", 0.0333),
    }.items():
        (tmp_path / name).write_text(json.dumps(content))
    told = ["--train-ticket", str(tmp_path / "tt.json"), "--told", f"Elsewhere={tmp_path / 'told.json'}"]
    column = f"Bookinfo, 3 days={tmp_path / 'compared.json'}"
    assert main(["--root", str(tmp_path), *told, "--networks", column]) == 0
    page = (tmp_path / "docs/results.md").read_text(encoding="utf-8")
    assert "| hpa_50 | 0.9 | 1.0 | 77.7 |" in page and "0.987 ± 0.010" in page
    assert "0.0333 [0.0233, 0.0433]; 0.5000; 0 |" in page
    kept = json.loads((tmp_path / KEPT).read_text(encoding="utf-8"))
    assert kept["policies"] == FOUND["policies"] and told_table(kept["told"]) in page
