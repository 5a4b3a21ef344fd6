"""Tables of docs/results.md whose runs take long: newer files take their places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.paths import ROOT

from deepscaler.errors import DataError
from deepscaler.evaluation.comparison import at_equal_cost, at_equal_violations
from testbed.experiments.documents import KEPT, findings, main
from testbed.experiments.kept_tables import PAIRED, networks_table, policies_said, with_comparison

FOUND = json.loads((ROOT / KEPT).read_text(encoding="utf-8"))


def comparison(label: str, mae: float, unit: str = "replicas") -> dict[str, object]:
    """A comparison.json with one row."""
    measures = ("mae_z", "crps", "deficient", "excess", "missed_peaks")
    test = {"mae": {"mean": mae, "interval": [mae - 0.01, mae + 0.01]}} | {
        name: {"mean": 0.5} for name in measures
    }
    return {"unit": unit, "rows": {label: {"told": True, "test": test}}}


def test_a_newer_comparison_fills_its_column_and_leaves_the_others() -> None:
    made = with_comparison({"columns": {}}, "one", comparison("LSTM", 0.25))
    made = with_comparison(made, "two", comparison("LSTM, told", 0.125))
    made = with_comparison(made, "one", comparison("LSTM", 0.5))
    assert networks_table(made).splitlines() == [
        "| **told what is known now of the next label, and the season** | one | two |",
        "|---|---|---|",
        "| LSTM | - | 0.1250 [0.1150, 0.1350]; 0.5000; 0 |",
        "| **told the window alone, and past labels where it reads them** |  |  |",
        "| LSTM | 0.5000 [0.4900, 0.5100]; 0.5000; 0 | - |",
    ]
    with pytest.raises(DataError, match="none of the table's rows"):
        with_comparison(made, "one", comparison("Prophet", 1.0))


def test_what_is_lacking_is_told_of_replicas_alone() -> None:
    made = with_comparison({"columns": {}}, "requests", comparison("AR", 4.06, unit="req"))
    assert "| AR | 4.06 [4.05, 4.07]; 0.50 |" in networks_table(made)


def test_what_is_said_of_train_ticket_follows_its_numbers() -> None:
    changed = json.loads(json.dumps(FOUND["train_ticket"]))
    changed["policies"]["deepscaler"]["core_hours"] = changed["policies"]["hpa_70"]["core_hours"] / 2
    assert "at 50 % less cost" in policies_said(changed)


@pytest.mark.parametrize(
    ("own", "level", "near", "said"),
    [
        (4.0, 5.0, 6.0, ("at 20 % less cost", "`hpa_60`, costs 50 % more.")),
        (6.0, 5.0, 5.5, ("at 20 % more cost", "`hpa_60`, costs 8 % less.")),
        (5.0, 5.0, 5.0, ("at the same cost", "`hpa_60`, costs the same.")),
    ],
)
def test_dearer_is_never_called_less_of_less(
    own: float, level: float, near: float, said: tuple[str, str]
) -> None:
    costs = {"deepscaler": (0.01, own), "hpa_70": (0.05, level), "hpa_60": (0.02, near)}
    kept = {
        "baseline": "hpa_70",
        "policies": {
            name: {"violation_rate": rate, "core_hours": cost} for name, (rate, cost) in costs.items()
        },
        "paired": {name: {"mean_difference": -0.04, "p_holm": 0.01} for name in PAIRED},
    }
    assert all(part in policies_said(kept) for part in said)


@pytest.mark.parametrize(
    ("rate", "cost", "said"),
    [
        (0.10, 5.0, "at equal cost no HPA here is as cheap; at equal violations each HPA here violates less"),
        (0.01, 8.0, "at equal cost no HPA here costs as much; at equal violations no HPA here comes as low"),
        (0.05, 6.5, "at equal cost 5.00 % violate; at equal violations it takes 6.50 core-hours"),
    ],
)
def test_what_the_hpas_reach_is_told_on_both_sides_of_their_range(
    rate: float, cost: float, said: str
) -> None:
    kept = json.loads(json.dumps(FOUND))
    rows = kept["policies"]
    for name, (violations, cores) in {
        "deepscaler": (rate, cost),
        "hpa_70": (0.07, 6.0),
        "hpa_60": (0.03, 7.0),
    }.items():
        row = {"policy": name, "violation_rate": violations, "core_hours": cores}
        rows[name] = {**rows["hpa_70"], **row}
    sweep = [(0.07, 6.0), (0.03, 7.0)]
    kept["equal"]["hpa"] = {
        "members": ["hpa_60", "hpa_70"],
        "violation_rate_at_equal_cost": at_equal_cost(sweep, cost),
        "core_hours_at_equal_violations": at_equal_violations(sweep, rate),
    }
    assert f"Read between the HPAs, {said}." in " ".join(findings(kept).split())


def documented(root: Path) -> Path:
    """A copy of the pages and of what is kept for them."""
    (root / "docs").mkdir()
    for name in ("README.md", "docs/results.md", KEPT):
        (root / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    return root


def without(found: dict[str, object], *keys: str) -> dict[str, object]:
    """A copy that lacks what stands under the last of the keys."""
    found = json.loads(json.dumps(found))
    place = found
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    return found


SUMMARY = FOUND | {"paired": {"deepscaler": FOUND["paired"]}, "equal": {"deepscaler": FOUND["equal"]}}
TICKET = FOUND["train_ticket"] | {"paired": {"deepscaler": FOUND["train_ticket"]["paired"]}}


@pytest.mark.parametrize(
    ("flag", "content", "says"),
    [
        ("--summary", without(SUMMARY, "policies", "deepscaler"), "'deepscaler' is missing"),
        ("--summary", without(SUMMARY, "policies", "hpa_40"), "'hpa_40' is missing"),
        ("--summary", without(SUMMARY, "paired", "deepscaler"), "'deepscaler' is missing"),
        ("--summary", {"experiment": {}}, "'policies' is missing"),
        ("--summary", SUMMARY | {"policies": 3}, "of another kind"),
        ("--train-ticket", without(TICKET, "policies", "deepscaler"), "'deepscaler' is missing"),
        ("--train-ticket", without(TICKET, "paired", "deepscaler"), "'deepscaler' is missing"),
        ("--train-ticket", TICKET | {"policies": {"deepscaler": None}}, "of another kind"),
        ("--networks", SUMMARY, "'rows' is missing"),
        ("--networks", {"rows": 3, "unit": "req"}, "of another kind"),
        ("--networks", {"rows": {"AdapGLS": {"test": 3}}, "unit": "req"}, "of another kind"),
    ],
)
def test_a_file_of_another_kind_is_named_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, content: object, says: str
) -> None:
    root, file = documented(tmp_path), tmp_path / "newer.json"
    file.write_text(json.dumps(content))
    value = f"recording={file}" if flag == "--networks" else str(file)
    assert main(["--root", str(root), flag, value]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"documents: {file}: no ") and says in said and said.count("\n") == 1
    assert json.loads((root / KEPT).read_text(encoding="utf-8")) == FOUND


@pytest.mark.parametrize("value", ["foo", "=foo.json", " =foo.json", "recording=", ""])
def test_a_column_without_its_file_or_its_name_is_refused(
    capsys: pytest.CaptureFixture[str], value: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--networks", value])
    assert "argument --networks: expected COLUMN=FILE" in capsys.readouterr().err


@pytest.mark.parametrize("keys", [("policies",), ("policies", "hpa_40"), ("networks", "columns")])
def test_what_is_kept_for_the_pages_is_named_where_it_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: tuple[str, ...]
) -> None:
    root = documented(tmp_path)
    (root / KEPT).write_text(json.dumps(without(FOUND, *keys)))
    assert main(["--root", str(root)]) == 1
    said = capsys.readouterr().err
    assert f"{root / KEPT}: no numbers that the pages show ({keys[-1]!r} is missing)" in said


def test_a_table_that_is_not_kept_takes_no_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = documented(tmp_path)
    (root / KEPT).write_text(json.dumps(without(FOUND, "networks")))
    assert main(["--root", str(root), "--networks", f"recording={root / KEPT}"]) == 1
    assert f"{root / KEPT}: no table of networks to put a column into" in capsys.readouterr().err


def test_newer_files_are_kept_beside_what_was_there_and_reach_the_page(tmp_path: Path) -> None:
    documented(tmp_path)
    summary = json.loads(json.dumps(FOUND["train_ticket"]))
    summary["policies"]["hpa_50"]["core_hours"] = 77.7
    summary["paired"] = {"deepscaler": summary["paired"]}
    for name, content in {"tt.json": summary, "compared.json": comparison("GCN", 0.987)}.items():
        (tmp_path / name).write_text(json.dumps(content))
    newer = ["--train-ticket", str(tmp_path / "tt.json")]
    newer += ["--networks", f"Elsewhere={tmp_path / 'compared.json'}"]
    assert main(["--root", str(tmp_path), *newer]) == 0
    page = (tmp_path / "docs/results.md").read_text(encoding="utf-8")
    assert "| hpa_50 | 0.9 | 1.0 | 77.7 |" in page and "| 0.9870 [0.9770, 0.9970]; 0.5000; 0 |" in page
    kept = json.loads((tmp_path / KEPT).read_text(encoding="utf-8"))
    assert kept["policies"] == FOUND["policies"] and networks_table(kept["networks"]) in page
