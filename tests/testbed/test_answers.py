"""The page of answers: one policy per column, of a sweep the best, and how sure differences are."""

from __future__ import annotations

import json

import pytest
from helpers.paths import ROOT

from testbed.experiments.answers import KEPT, PAGE, main, page, shown


def row(policy: str, family: str, cost: float) -> dict[str, object]:
    knob = float(policy.rpartition("_r")[2]) if policy.startswith("hpa") else None
    return {
        "policy": policy,
        "knob": knob,
        "family": family,
        "violation_rate": 0.01,
        "core_hours": cost - 1,
        "realised_cost": cost,
    }


def summary(policies: list[str], sweeps: dict[str, object], costs: dict[str, float]) -> dict[str, object]:
    families = {name: "hpa" if name.startswith("hpa") else name for name in costs}
    paired = {
        name: {"realised_cost": {"mean_difference": cost - 8.0, "mean_difference_ci": [cost - 9, cost - 7.5]}}
        for name, cost in costs.items()
    }
    settings = {"policies": policies, "sweeps": sweeps, "baseline": "plan_bootstrap"}
    return {
        "experiment": {"name": "small", "question": "Why?", "seeds": [1000, 1001], "settings": settings},
        "cases": {
            "square": {
                "policies": {name: row(name, families[name], cost) for name, cost in costs.items()},
                "paired": paired,
            }
        },
    }


FOUND = summary(
    ["deepscaler", "plan_bootstrap", "hpa", "plan_foreseen", "oracle"],
    {"hpa": {"policy": "hpa_r{}"}},
    {
        "deepscaler": 6.0,
        "plan_bootstrap": 8.0,
        "hpa_r50": 9.0,
        "hpa_r70": 8.5,
        "plan_foreseen": 4.0,
        "oracle": 5.0,
    },
)


def test_of_a_sweep_the_cheapest_stands_and_the_oracle_gives_way_to_the_plan_that_is_told():
    (line,) = [line for line in page(shown(FOUND)).splitlines() if line.startswith("| square")]
    assert line == (
        "| square | 1.0 @ 5.00 (6.00) | 1.0 @ 7.00 (8.00) | 1.0 @ 7.50 (8.50) hpa_r70 | 1.0 @ 3.00 (4.00) "
        "| **-25.0 % [-37.5, -18.8]** |"
    )


def test_a_difference_is_a_share_of_the_baseline_on_the_seeds_that_both_ran_on():
    made = json.loads(json.dumps(FOUND))
    made["cases"]["square"]["paired"]["deepscaler"]["realised_cost"]["baseline_mean"] = 4.0  # of all: 8
    assert "| **-50.0 % [-75.0, -37.5]** |" in page(shown(made))


def test_what_isnt_sure_isnt_bold_and_what_wasnt_run_is_said_to_be_unknown():
    made = summary(["plan_bootstrap", "static"], {}, {"plan_bootstrap": 8.2})
    made["cases"]["other"] = {"policies": {"static": row("static", "static", 3)}, "paired": {}}
    text = page(shown(made))
    assert "| square | 1.0 @ 7.20 (8.20) | - |" in text and "**" not in text
    assert "| other | - | 1.0 @ 2.00 (3.00) | - |" in text


def test_a_newer_summary_takes_its_place_and_the_others_stay(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("one", "two"):
        made = json.loads(json.dumps(FOUND))
        made["experiment"]["name"] = name
        (tmp_path / f"{name}.json").write_text(json.dumps(made))
        assert main([str(tmp_path / f"{name}.json"), "--root", str(tmp_path)]) == 0
    first = (tmp_path / PAGE).read_text()
    assert "## one" in first and "## two" in first
    assert main(["--root", str(tmp_path)]) == 0 and (tmp_path / PAGE).read_text() == first


def test_two_summaries_of_one_name_are_refused_and_none_is_kept(tmp_path, capsys):
    """One was run with other flags (`--with scale.period=30 --output runs/fast`)."""
    (tmp_path / "docs").mkdir()
    files = [tmp_path / "usual.json", tmp_path / "fast.json"]
    for file in files:
        file.write_text(json.dumps(FOUND))
    assert main([*map(str, files), "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert (
        f"{files[1]}: of the experiment 'small', as {files[0]} is" in said
        and "a file of its own name" in said
    )
    assert not (tmp_path / KEPT).exists()
    assert main([str(files[0]), str(files[0]), "--root", str(tmp_path)]) == 0


ABOUT = FOUND["experiment"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "'experiment' is missing"),
        ({"policies": {}}, "'experiment' is missing"),
        ({"experiment": ABOUT}, "'cases' is missing"),
        ({"experiment": 3, "cases": 4}, "of another kind"),
        ({"experiment": {"settings": {}}, "cases": {}}, "is missing"),
        ({"experiment": {**ABOUT, "seeds": []}, "cases": {}}, "of another kind"),
        ({"experiment": {**ABOUT, "seeds": 3}, "cases": {}}, "of another kind"),
        ({"experiment": {**ABOUT, "settings": None}, "cases": {}}, "of another kind"),
        ({"experiment": ABOUT, "cases": [1]}, "of another kind"),
        ({"experiment": ABOUT, "cases": {"square": {"policies": {}}}}, "'paired' is missing"),
        ({"experiment": ABOUT, "cases": {"square": {"policies": {"hpa": 3}, "paired": {}}}}, "another kind"),
    ],
)
def test_what_is_no_summary_of_an_experiment_is_refused_by_name(tmp_path, capsys, content, says):
    (tmp_path / "docs").mkdir()
    (tmp_path / "summary.json").write_text(json.dumps(content))
    assert main([str(tmp_path / "summary.json"), "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"answers: {tmp_path / 'summary.json'}: no summary of an experiment (")
    assert says in said and "python -m testbed.experiment config/" in said and said.count("\n") == 1
    assert not (tmp_path / KEPT).exists()


@pytest.mark.parametrize("change", [3, {}, {"seeds": 3}, {"cases": {"square": 3}}, {"columns": None}])
def test_a_broken_answer_that_is_kept_is_named_and_a_newer_summary_mends_it(tmp_path, capsys, change):
    (tmp_path / "docs").mkdir()
    kept = shown(FOUND)
    wrong = {**kept["small"], **change} if change and isinstance(change, dict) else change
    (tmp_path / KEPT).write_text(json.dumps({"small": wrong}))
    assert main(["--root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path / KEPT}: no answer of the experiment 'small' (" in said and said.count("\n") == 1
    assert "python -m testbed.experiments.answers <its summary.json>" in said
    (tmp_path / "summary.json").write_text(json.dumps(FOUND))
    assert main([str(tmp_path / "summary.json"), "--root", str(tmp_path)]) == 0


def test_the_page_says_what_is_kept():
    kept = json.loads((ROOT / KEPT).read_text(encoding="utf-8"))
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(kept)
    assert all((ROOT / f"config/experiments/{name}.yaml").is_file() for name in kept)


def test_many_policies_are_the_lines_and_say_in_each_cell_how_they_differ():
    many = {f"part_{number}": 8.0 + number for number in range(11)}
    found = summary(["plan_bootstrap", *many], {}, {"plan_bootstrap": 8.0, **many})
    lines = page(shown(found)).splitlines()
    assert "| against plan_bootstrap | square |" in lines
    assert "| **plan_bootstrap** | 1.0 @ 7.00 (8.00); +0.0 % [-12.5, 6.2] |" in lines
    assert "| part_4 | 1.0 @ 11.00 (12.00); **+50.0 % [37.5, 56.2]** |" in lines


def test_a_promise_has_its_own_table_with_the_cheapest_setting_that_keeps_it():
    made = json.loads(json.dumps(FOUND))
    made["experiment"]["settings"]["holds"] = {"measure": "p99_seconds", "at_most": 0.5}
    case, slow = made["cases"]["square"], {"hpa_r70": 0.6, "oracle": 0.7}
    case["runs"] = [{"policy": name, "p99_seconds": slow.get(name, 0.4)} for name in case["policies"]]
    for cores, row in enumerate(case["policies"].values()):
        row["mean_cores"] = 9.0 - cores
    text = page(shown(made))
    assert "keep `p99_seconds` within 0.5 in every run" in text
    assert "| mean cores | deepscaler | plan_bootstrap | hpa | plan_foreseen | oracle |" in text
    assert "| square | 9.00 | 8.00 | 7.00 hpa_r50 | 5.00 | N/A |" in text
    assert "N/A" not in page(shown(FOUND))


def test_older_sections_say_that_their_intervals_are_bootstrap():
    kept = shown(summary(["hpa_r70", "plan_bootstrap"], {}, {"hpa_r70": 9.0, "plan_bootstrap": 8.0}))
    ((name, section),) = kept.items()
    assert "bootstrap, made" not in page(kept) and "bootstrap, made" in page(
        {name: section | {"bootstrap": True}}
    )
