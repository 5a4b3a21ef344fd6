"""calculate.py from run directories to table, summary and pictures."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from helpers.paths import ROOT
from helpers.run_samples import LENGTH, POLICIES, START, endpoint_row, make_run, write_runs

import calculate
from deepscaler.evaluation.text import full_table, verdict
from deepscaler.pictures.runs import draw_pareto
from deepscaler.runs import write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs")
    write_runs(directory)
    return directory


def run_script(runs, output, *more):
    return calculate.main(
        [
            "--config",
            str(ROOT / "config/boutique.yaml"),
            "--set",
            "evaluate.warmup=0",
            "--runs",
            *runs,
            "--output",
            str(output),
            *more,
        ]
    )


def test_the_table_the_verdict_and_the_pictures(runs, tmp_path, capsys):
    assert run_script([str(runs)], tmp_path, "--set", "evaluate.timelines=2") == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].startswith("Violating minute: ")
    assert re.split(" {2,}", lines[3]) == [
        "policy",
        "violating minutes %",
        "slow or failed %",
        "core-hours",
        "changes/h",
        "starts/h",
    ]
    table = lines[5:10]
    assert [line.split()[0] for line in table] == ["hpa_50", "deepscaler", "static", "hpa_70", "hpa_80"]
    assert table[1].split() == ["deepscaler", "*", "6.67", "[0.00,", "35.35]", "6.67", "0.25", "0.0", "0.0"]
    assert len({len(line) for line in lines[3:10]}) == 1
    assert "replica MAE" not in out
    assert max(map(len, lines)) <= 110
    text = " ".join(out.split())
    assert "no other policy here beats deepscaler and hpa_50." in text
    assert "deepscaler: 6.67 % of the minutes violate the SLA, at 0.25 core-hours." in text
    assert (
        "At equal cost the hpa settings (hpa_50 to hpa_80) reach 86.67 % (a win for deepscaler); "
        "at equal violations they take 0.48 core-hours (a win for deepscaler: -48.1 %)." in text
    )
    assert "with 3 seeds per policy differences may be chance; below 6" in text
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["pareto.png", "timeline-2000.png", "timeline-2001.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def test_full_prints_every_measure(runs, tmp_path, capsys):
    assert run_script([str(runs)], tmp_path, "--full", "--set", "evaluate.timelines=0") == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[3].split()[:5] == ["policy", "seeds", "min>SLA", "%", "95"]
    assert lines[6].split()[:5] == ["deepscaler", "*", "3", "0.3", "6.67"]
    assert len({len(line) for line in lines[3:10]}) == 1
    assert "replica MAE" in out
    assert "no other policy here beats" in " ".join(out.split())


def test_the_summary_is_written_and_keeps_the_stages(runs, tmp_path, capsys):
    (tmp_path / "summary.json").write_text(json.dumps({"stages": {"train": 12.5}, "policies": {"gone": {}}}))
    assert run_script([str(runs)], tmp_path, "--json", "--set", "evaluate.timelines=0") == 0
    printed, written = (
        json.loads(capsys.readouterr().out),
        json.loads((tmp_path / "summary.json").read_text()),
    )
    assert written["stages"] == {"train": 12.5}
    assert set(written["policies"]) == set(POLICIES)
    assert written["policies"]["hpa_70"]["violation_rate"] == pytest.approx(7 / 15)
    assert len(written["policies"]["hpa_70"]["violation_rate_ci"]) == 2
    assert written["policies"]["hpa_70"]["core_hours"] == pytest.approx(4.5 * LENGTH / 3600)
    assert written["paired"]["deepscaler"]["core_hours"]["mean_difference"] == pytest.approx(
        -1.5 * LENGTH / 3600
    )
    assert {key: value for key, value in written.items() if key != "stages"} == printed


def test_directories_side_by_side_are_told_apart_where_policies_repeat(runs, tmp_path, capsys):
    write_runs(tmp_path / "no_floor", {"deepscaler": ((5, 5, 5), 1)})
    assert (
        run_script(
            [str(runs), str(tmp_path / "no_floor")],
            tmp_path / "out",
            "--json",
            "--set",
            "evaluate.timelines=1",
        )
        == 0
    )
    summary = json.loads(capsys.readouterr().out)
    assert f"{runs.name}/deepscaler" in summary["policies"]
    entry = summary["paired"]["no_floor/deepscaler"]
    assert (entry["baseline"], entry["core_hours"]["pairs"]) == (f"{runs.name}/hpa_70", 3)


def summary_of(runs, output, capsys):
    """summary.json of the runs below these directories."""
    assert run_script([str(one) for one in runs], output, "--json", "--set", "evaluate.timelines=0") == 0
    return json.loads(capsys.readouterr().out)


def test_a_directory_that_is_given_twice_counts_once(tmp_path, capsys):
    place = tmp_path / "demo"
    write_runs(place, {"hpa_70": ((0, 1), 1)})
    once = summary_of([place], tmp_path / "one", capsys)
    assert (
        summary_of([f"{place}/", place, tmp_path / "other" / ".." / "demo"], tmp_path / "two", capsys) == once
    )
    assert once["policies"]["hpa_70"]["seeds"] == 2


@pytest.mark.parametrize("seeds", [(2000, 2001), (2000, 2002)])
def test_directories_of_one_name_are_told_apart_by_more_of_their_paths(tmp_path, capsys, seeds):
    """Whether the seeds are the same or not: two directories are two policies."""
    for place, seed in zip(("a/x/demo", "b/x/demo", "c"), (*seeds, 2000), strict=True):
        write_runs(tmp_path / place, {"hpa_70": ((0,), 1)}, seeds=(seed,))
    found = summary_of([tmp_path / place for place in ("a/x/demo", "b/x/demo", "c")], tmp_path, capsys)
    rows = {name: row["seeds"] for name, row in found["policies"].items()}
    assert rows == {"a/x/demo/hpa_70": 1, "b/x/demo/hpa_70": 1, "c/hpa_70": 1}


def test_seeds_that_repeat_in_subdirectories_are_paired_within_them(tmp_path, capsys):
    for shape in ("sharp", "square"):
        write_runs(tmp_path / "runs" / shape, {"hpa_70": ((1, 1, 1), 2), "deepscaler": ((0, 0, 0), 2)})
    assert run_script([str(tmp_path / "runs")], tmp_path, "--json", "--set", "evaluate.timelines=1") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["paired"]["deepscaler"]["violation_rate"]["pairs"] == 6
    assert (tmp_path / "timeline-sharp-2000.png").is_file()


def test_a_loss_is_called_a_loss(tmp_path, capsys):
    write_runs(tmp_path / "runs", {**POLICIES, "deepscaler": ((3, 3, 3), 4)})
    assert run_script([str(tmp_path / "runs")], tmp_path, "--set", "evaluate.timelines=0") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "core-hours; hpa_70 and hpa_50 did no worse on both and better on one." in text
    assert "reach 0.00 % (a loss for deepscaler)" in text


def test_without_baseline_sweep_or_deepscaler_it_says_so(tmp_path, capsys):
    write_runs(tmp_path / "a", {"deepscaler": ((0,), 2)})
    assert run_script([str(tmp_path / "a")], tmp_path, "--set", "evaluate.timelines=0") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "There is no run of the baseline hpa_70 to pair it with." in text
    assert "run the HPA with two or more targets" in text
    write_runs(tmp_path / "b", {"static": ((0,), 2)})
    assert run_script([str(tmp_path / "b")], tmp_path, "--set", "evaluate.timelines=0") == 0
    assert "no run of deepscaler" in capsys.readouterr().out


def test_a_run_in_which_nothing_was_done_is_unknown_everywhere(tmp_path, capsys):
    rows = [endpoint_row(t, "GET /", 0, 0.1, offered=5) for t in range(15, 121, 15)]
    write_run(make_run(rows, policy="deepscaler"), tmp_path / "runs" / "deepscaler-1")
    assert run_script([str(tmp_path / "runs")], tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[5].split()[1:] == ["-", "0.00", "0.05", "0.0", "0.0"]
    assert run_script([str(tmp_path / "runs")], tmp_path, "--full") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[5].split()[-1] == "100.00"
    assert "There are no seeds that all policies ran on with known violations and costs." in " ".join(
        out.split()
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda run: (run / "endpoints.csv").write_text("time,endpoint\n"),
            "endpoints.csv: column 'offered' is missing",
        ),
        (lambda run: (run / "pods.csv").unlink(), "pods.csv: no such file"),
        (lambda run: (run / "run.json").write_text("{"), "run.json: not valid JSON"),
        (lambda run: (run / "run.json").write_text("{}"), "'policy' is None"),
        (
            lambda run: (run / "pods.csv").write_text(
                "time,service,spec,starting,ready\n2026-01-05T00:01:00Z,web,two,0,1\n"
            ),
            "column 'spec'",
        ),
        (
            lambda run: (run / "pods.csv").write_text("time,service,spec,starting,ready\n"),
            "pods.csv: no rows",
        ),
    ],
)
def test_a_broken_run_is_one_line_that_names_it(tmp_path, capsys, damage, words):
    write_runs(tmp_path / "runs", {"hpa_70": ((0,), 1)})
    damage(tmp_path / "runs" / "hpa_70-2000")
    assert run_script([str(tmp_path / "runs")], tmp_path / "out") == 1
    last = [line for line in capsys.readouterr().err.splitlines() if line.startswith("calculate: ")]
    assert len(last) == 1
    assert words in last[0]
    assert "hpa_70-2000" in last[0]
    assert not (tmp_path / "out").exists()


def test_no_runs_names_the_command_that_makes_them(tmp_path, capsys):
    assert run_script([str(tmp_path)], tmp_path) == 1
    assert "python predict_scale.py" in capsys.readouterr().err


def test_two_runs_of_one_policy_and_seed_are_refused(tmp_path, capsys):
    write_runs(tmp_path, {"hpa_70": ((0,), 1)})
    (tmp_path / "hpa_70-2000").rename(tmp_path / "again")
    write_runs(tmp_path, {"hpa_70": ((0,), 1)})
    assert run_script([str(tmp_path)], tmp_path / "out") == 1
    assert "same policy and seed (hpa_70, 2000)" in capsys.readouterr().err


def test_response_times_that_are_cut_off_are_said(tmp_path, caplog):
    write_runs(tmp_path, {"hpa_70": ((0,) * 30, 1)})
    path = tmp_path / "hpa_70-2000" / "endpoints.csv"
    lines = path.read_text().splitlines(keepends=True)
    assert run_script([str(tmp_path)], tmp_path / "out") == 0
    assert "cut off" not in caplog.text
    path.write_text("".join(lines[: len(lines) // 3]))
    assert run_script([str(tmp_path)], tmp_path / "out") == 0
    assert "hpa_70-2000: endpoints.csv ends 210 s before pods.csv: is it cut off?" in caplog.text


BED = {
    **{"application": "boutique", "demand_sigma": 0.0, "demand_seed": 1, "boot_seconds": None},
    **{"balancing": "least_request", "initial_replicas": 2, "history": 0.0, "duration": 3600.0},
    **{"metrics_delay": 0, "usage_delay": None, "load": {"shape": "square", "low": 20, "high": 100}},
}


@pytest.mark.parametrize(
    ("other", "refused"),
    [
        ({"load": {"low": 200}}, "load.low"),
        ({"application": "single"}, "application"),
        ({"demand_sigma": 0.3}, "demand_sigma"),
        ({"demand_seed": 2}, "demand_seed"),
        ({"boot_seconds": 60.0}, "boot_seconds"),
        ({"balancing": "random"}, "balancing"),
        ({"initial_replicas": 4}, "initial_replicas"),
        ({"history": 900.0}, "history"),
        ({"duration": 7200.0}, None),  # a square wave goes on as it was
        ({"metrics_delay": 2}, None),
        ({"usage_delay": 2}, None),
        ({"load": {"shape": "sharp_increase"}, "duration": 7200.0}, "duration"),
        ({"load": {"shape": "diurnal"}, "duration": 7200.0}, "duration"),
    ],
)
def test_runs_of_other_loads_and_emulated_clusters_are_not_compared(tmp_path, capsys, other, refused):
    write_runs(tmp_path, {"hpa_70": ((0,), 1), "hpa_50": ((0,), 1)})
    shape = {"shape": other.get("load", {}).get("shape", "square")}
    bed = {**BED, "load": {**BED["load"], **shape}}
    for place, changes in ((tmp_path / "hpa_70-2000", {}), (tmp_path / "hpa_50-2000", other)):
        info = json.loads((place / "run.json").read_text())
        played = {**bed, **changes, "load": {**bed["load"], **changes.get("load", {})}}
        settings = {**info.get("settings", {}), "testbed": played, "cluster": {"kind": "testbed"}}
        (place / "run.json").write_text(json.dumps({**info, "settings": settings}))
    assert run_script([str(tmp_path)], tmp_path / "out", "--set", "evaluate.timelines=0") == bool(refused)
    if refused:
        said = capsys.readouterr().err
        assert "its load isn't that of" in said and "a directory of their own" in said
        assert f"(testbed.{refused} is " in said


def test_many_policies_still_make_a_picture(tmp_path):
    row = {"seeds": 1, "violation_rate_ci": None, "core_hours_ci": None, "directory": ""}
    policies = {
        name: {
            **row,
            "policy": name,
            "family": name,
            "violation_rate": index / 40,
            "core_hours": 5 - index / 10,
        }
        for index, name in enumerate(f"rival{index}" for index in range(20))
    }
    draw_pareto({"policies": policies}, tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").stat().st_size > 10_000


def test_runs_of_different_length_or_number_are_warned_about():
    row = dict.fromkeys(
        ("violation_rate", "violation_minutes", "slow_rate", "p95_seconds", "mean_seconds", "core_hours"), 0.1
    )
    row |= dict.fromkeys(("changes_per_hour", "mean_replicas", "unknown_rate"), 0.0) | {
        "violation_rate_ci": None,
        "core_hours_ci": (0.1, 0.2),
    }
    policies = {
        name: {**row, "policy": name, "family": name, "directory": "", "seeds": seeds, "hours": hours}
        for name, seeds, hours in (("a", 20, 1.0), ("b", 19, 2.0))
    }
    summary = {"policies": policies, "pareto": ["a", "b"], "paired": {}, "equal": {"a": {}, "b": {}}}
    text = verdict(summary, "hpa_70")
    assert "different numbers of seeds" in text
    assert "differ in length (1.00 to 2.00 h)" in text
    assert "[0.10, 0.20]" in full_table(summary)


def test_costs_are_told_at_the_prices_that_were_set(tmp_path):
    """Two minutes in which one of two web replicas is missing, and two starts."""
    run = make_run(
        [endpoint_row(end, "GET /", 10, 0.1) for end in (60, 120)],
        [(START + end, name, 2 if end > 60 else 1, 0, 1) for end in (60, 120) for name in ("web", "db")],
        start=START,
    )
    run.needed = pd.DataFrame({"time": [START + 60.0, START + 120.0], "web": [2, 2], "db": [1, 1]})
    write_run(run, tmp_path / "runs" / "hpa_70-1")
    costs = []
    for prices in ("{shortage: 1, start: 0}", "{shortage: 100, start: 0}", "{shortage: 100, start: 3600}"):
        output = tmp_path / str(len(costs))
        asked = ["--set", f"scale.prices={prices}", "--set", "evaluate.timelines=0"]
        assert run_script([str(tmp_path / "runs")], output, *asked) == 0
        summary = json.loads((output / "summary.json").read_text())
        costs.append(summary["policies"]["hpa_70"]["realised_cost"])
    minute = 1 / 60
    held = 2 * minute * 1.5
    assert costs == pytest.approx(
        [held + 2 * minute * 0.5, held + 100 * 2 * minute * 0.5, held + 100 * 2 * minute * 0.5 + 1.5]
    )
