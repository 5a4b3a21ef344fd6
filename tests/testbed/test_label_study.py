"""The study of what labels are worth: its verdicts by hand, and a small one from end to end."""

import json

import pytest
from helpers.paths import CONFIG

from deepscaler.errors import SettingsError
from testbed.experiments.label_study import judge, main, make_cases, study_table, summarize

CONFIG = str(CONFIG / "studies" / "labels.yaml")


def run(
    policy: str, violations: float, cost: float, case: str = "one", shape: str = "square", seed: int = 2000
) -> dict[str, object]:
    rates = dict.fromkeys(("slow_rate", "window_violation_rate", "slowest_endpoint_rate"), violations)
    return {
        "case": case,
        "shape": shape,
        "policy": policy,
        "seed": seed,
        "violation_rate": violations,
        "core_hours": cost,
        **rates,
    }


@pytest.mark.parametrize(
    ("violations", "cost", "rival", "saving", "holds"),
    [
        (0.0, 4.0, "hpa_50", 0.2, True),  # hpa_60 is cheaper, but violates
        (0.0, 5.5, "hpa_50", -0.1, False),
        (0.005, 4.0, "hpa_60", 0.0, False),  # with as few violations at the same cost: nothing gained
        (0.02, 2.0, "hpa_60", 0.5, False),  # more than a minute in a hundred
    ],
)
def test_the_claim_is_judged_against_the_cheapest_hpa_with_as_few_violations(
    violations, cost, rival, saving, holds
):
    runs = [
        run("foreseen", violations, cost),
        run("oracle", 0.0, 1.0),
        run("hpa_40", 0.0, 6.0),
        run("hpa_50", 0.0, 5.0),
        run("hpa_60", 0.005, 4.0),
    ]
    (verdict,) = judge(runs)
    assert (verdict["rival"], verdict["holds"]) == (rival, holds)
    assert verdict["saving"] == pytest.approx(saving)


def test_no_rival_is_a_win_and_cases_and_shapes_are_judged_apart():
    runs = [run("foreseen", 0.0, 4.0, case, shape) for case in ("one", "two") for shape in ("square", "req")]
    runs += [
        run("hpa_40", 0.0 if shape == "req" else 0.1, 5.0, case, shape)
        for case in ("one", "two")
        for shape in ("square", "req")
    ]
    verdicts = judge(runs)
    assert [(item["case"], item["shape"], item["saving"]) for item in verdicts[:2]] == [
        ("one", "square", None),
        ("one", "req", pytest.approx(0.2)),
    ]
    assert all(item["holds"] for item in verdicts)
    text = study_table({"policies": summarize(runs), "verdicts": verdicts})
    assert "2 of 2; no HPA of the sweep violates as little: 2" in text
    assert "2 of 2; saving 20.0 % (median; 20.0 to 20.0)" in text


def test_means_and_the_worst_run():
    (row,) = summarize([run("foreseen", 0.0, 4.0), run("foreseen", 0.1, 5.0, seed=2001)])
    assert (row["violation_rate"], row["core_hours"], row["worst"], row["runs"]) == (0.05, 4.5, 0.1, 2)


def test_every_draw_is_an_application_of_its_own_learned_and_replayed_in_its_own_directories():
    plain = make_cases(CONFIG, [], 0, "random")
    assert [case.settings.testbed.balancing for case in plain] == ["random"] and plain[
        0
    ].settings.testbed.demand_sigma == 0
    cases = make_cases(CONFIG, ["scale.run_dir=runs/x"], 10, None)
    beds = [case.settings.testbed for case in cases]
    assert [(bed.demand_sigma, bed.demand_seed, bed.seed) for bed in beds] == [
        (0.3, draw, draw) for draw in range(1, 11)
    ]
    assert (
        len({case.settings.collect.output_dir for case in cases})
        == len({case.settings.scale.run_dir for case in cases})
        == 10
    )
    assert all(
        case.settings.process.output_dir.startswith("runs/x/least_request-drawn/draw-") for case in cases
    )
    with pytest.raises(SettingsError, match=r"needs scale\.seeds"):
        make_cases(CONFIG, ["scale.seeds=[]"], 0, None)


SMALL = (
    "collect.last=7200",
    "process.window=2",
    "process.plots=false",
    "testbed.load.low=4",
    "testbed.load.high=24",
    "scale.load.low=4",
    "scale.load.high=24",
    "scale.duration=600",
    "evaluate.warmup=60",
    "scale.shapes=[sharp_increase]",
    "scale.seeds=[1000]",
    "scale.policies=[foreseen,hpa_50]",
    "scale.workers=1",
)


def test_a_small_study_from_end_to_end(tmp_path, capsys):
    sets = [flag for text in (*SMALL, f"scale.run_dir={tmp_path}") for flag in ("--set", text)]
    assert main(["--config", CONFIG, "--balancing", "random", "--draws", "1", "--json", *sets]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((tmp_path / "random-drawn.json").read_text())
    assert (
        result["balancing"] == "random" and result["fits"]["draw-1"]["demand_error"] < 0.3
    )  # of an hour with few checkouts
    told = json.loads((tmp_path / "random-drawn" / "draw-1" / "data" / "labels.json").read_text())[
        "services"
    ]["frontend"]
    assert (
        told["demand_ms"] == pytest.approx(told["true_demand_ms"], rel=0.03) != 7.0
    )  # the draw's own, not the file's
    assert [row["policy"] for row in result["runs"]] == ["foreseen", "hpa_50"]
    assert result["verdicts"][0]["violation_rate"] <= 0.12
    assert main(["--config", CONFIG, "--balancing", "nobody", *sets]) == 1
    assert "testbed.balancing" in capsys.readouterr().err
