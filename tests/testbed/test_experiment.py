"""The experiment runner: what it runs, resumes, refuses, logs and prints."""

from __future__ import annotations

import json
import math
import shutil
import threading
import time
from pathlib import Path

import pytest
import yaml
from distributed import LocalCluster
from helpers.moments import START
from helpers.paths import CONFIG, ROOT
from helpers.run_samples import endpoint_row, make_run

from deepscaler.errors import DataError, SettingsError
from deepscaler.evaluation.measures import evaluate_run
from deepscaler.evaluation.realised import realised_cost
from deepscaler.evaluation.span import run_span
from deepscaler.settings import Experiment, Holds, load_section, load_settings
from testbed.experiment import check_entrants, main
from testbed.experiments.choice import best_at_the_ends, choose, read_chosen
from testbed.experiments.expected import Pace, guess, told
from testbed.experiments.matrix import cases_of, entrants_of, tasks_of
from testbed.experiments.smoke import covering, ends_of_sweeps
from testbed.experiments.smoke import main as smoke
from testbed.experiments.tables import MEASURES, holds_table

SWEEP = {"sweeps": {"hpa": {"policy": "hpa_{}", "values": [50, 70]}}}
LOAD = "scale.load={shape: steady, low: 10, high: 20}"
SHIPPED = sorted((ROOT / "config" / "experiments").glob("*.yaml"))


@pytest.fixture(scope="module")
def cluster():
    """Two workers, as threads' and processes' default on a machine of two cores."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        silence_logs=50,
    ) as found:
        yield found


@pytest.fixture
def written(tmp_path):
    """A small experiment's file: one load, two policies that need no data, one seed."""

    def write(**changes):
        text = {
            "config": str(ROOT / "config" / "boutique.yaml"),
            "set": ["testbed.history=60", "scale.duration=120", "evaluate.warmup=0"],
            "loads": {"steady": {"set": [LOAD]}},
            "policies": ["hpa_70", "oracle"],
            "seeds": [1000],
            "output": str(tmp_path / "runs"),
            **changes,
        }
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump(text))
        return str(path)

    return write


@pytest.fixture
def run(cluster, monkeypatch):
    """`main` on the workers of `cluster`."""
    monkeypatch.chdir(ROOT)
    return lambda *arguments: main([*arguments, "--scheduler", cluster.scheduler_address])


def answer(path):
    """Case -> policy -> what a table tells of it."""
    told = ("seeds", "violation_rate", "core_hours", "realised_cost")
    return {
        case: {name: [row[key] for key in told] for name, row in found["policies"].items()}
        for case, found in read(path)["cases"].items()
    }


def read(path):
    """The JSON in a file."""
    return json.loads(path.read_text())


def test_it_runs_resumes_and_refuses_runs_of_other_settings(written, run, tmp_path, capsys):
    path = written()
    assert run(path) == 0
    first = capsys.readouterr()
    assert {"hpa_70", "oracle"} <= {line.split()[0] for line in first.out.splitlines() if line}
    assert "2 runs on 2 workers; expected: " in first.err
    place = tmp_path / "runs" / "steady" / "hpa_70-1000"
    case = read(tmp_path / "runs" / "summary.json")["cases"]["steady"]
    assert case["policies"]["oracle"]["minutes"] == 2  # the history isn't judged
    assert case["policies"]["hpa_70"]["realised_cost"] > 0
    kept = (place / "run.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "runs" / "steady" / "oracle-1000")
    assert run(path) == 0
    assert capsys.readouterr().out == first.out
    assert (place / "run.json").stat().st_mtime_ns == kept
    assert run(written(set=["scale.duration=180", "evaluate.warmup=0"])) == 1
    message = capsys.readouterr().err
    assert "a run of other settings (" in message and message.count("\n") == 1


def test_a_part_that_is_run_again_leaves_the_whole_answer(written, run, tmp_path):
    path = written(loads={name: {"set": [LOAD]} for name in ("one", "other")}, policies=["hpa_70", "hpa_50"])
    assert run(path) == 0
    whole = answer(tmp_path / "runs" / "summary.json")
    shutil.rmtree(tmp_path / "runs" / "other" / "hpa_50-1000")
    assert run(path, "--only", "load=other", "policy=hpa_50", "policy=hpa_70") == 0
    assert answer(tmp_path / "runs" / "summary.json") == whole


@pytest.mark.parametrize("text", ["{", "[]", '{"settings": 5}', '{"settings": {"scale": 5}}'])
def test_a_broken_run_is_to_be_removed(written, run, tmp_path, capsys, text):
    place = tmp_path / "runs" / "steady" / "hpa_70-1000"
    place.mkdir(parents=True)
    (place / "run.json").write_text(text)
    assert run(written()) == 1
    message = capsys.readouterr().err
    assert str(place) in message and "remove " in message and message.count("\n") == 1


@pytest.mark.parametrize("text", ["{}", '{"points": []}', '{"points": {"steady": "hpa_70"}}'])
def test_points_that_cant_be_read_are_to_be_chosen_again(tmp_path, text):
    (tmp_path / "chosen.json").write_text(text)
    with pytest.raises(DataError, match=r"chosen\.json: no points by case; run the experiment again without"):
        read_chosen(tmp_path / "chosen.json", "")


@pytest.mark.parametrize("measure", ["nosuch", "endpoints", "policy"])
def test_a_promise_over_no_number_of_the_runs_names_those_that_are(measure):
    run = {"policy": "hpa_70", "endpoints": {}, "p99_seconds": 0.2}
    case = {"policies": {"hpa_70": {"family": "hpa"}}, "runs": [run]}
    with pytest.raises(SettingsError, match=f"no measure '{measure}'; there are: p99_seconds$"):
        holds_table({"steady": case}, Holds(measure=measure, at_most=1.0))


@pytest.mark.parametrize(("value", "told"), [(0.2, "1.50"), (2.0, "N/A"), (math.nan, "N/A"), (None, "N/A")])
def test_what_isnt_known_to_be_kept_is_broken(value, told):
    run = {"policy": "hpa_70", "recovery_seconds": value}
    case = {"policies": {"hpa_70": {"family": "hpa", "mean_cores": 1.5}}, "runs": [run]}
    table = holds_table({"steady": case}, Holds(measure="recovery_seconds", at_most=1.0))
    assert table.split()[-1] == told


def test_a_promise_can_be_about_each_number_of_a_run():
    rows = [endpoint_row(t, "GET /", 10, 0.1) for t in range(15, 121, 15)]
    oracle = {"oracle": {"web": [1, 1]}, "oracle_times": [START, START + 60]}
    run = make_run(rows, start=START, decision_seconds=[0.1], **oracle)
    run.needed = run.pods[["time"]].drop_duplicates().assign(web=1)
    measures = {**evaluate_run(run, 0.0), **realised_cost(run, run_span(run, 0.0), 100.0, 180.0)}
    assert measures.keys() - {"endpoints"} == set(MEASURES)


def test_a_run_keeps_what_it_was_made_of_in_little_space(written, run, tmp_path):
    assert run(written(), "--only", "policy=hpa_70") == 0
    place = tmp_path / "runs" / "steady" / "hpa_70-1000"
    info = read(place / "run.json")
    assert info["plays"] == "hpa_70" and list(info["inputs"]) == ["application boutique"]
    assert info["settings"]["scale"]["duration"] == 120
    assert {"python", "numpy"} <= info["versions"].keys()
    assert {path.name for path in place.iterdir()} == {
        *("run.json", "measures.json"),
        *(f"{table}.csv.gz" for table in ("endpoints", "decisions", "pods", "needed")),
    }
    assert sum(path.stat().st_size for path in place.iterdir()) < 5 * 2**20 / 24  # of three minutes


def test_a_lost_worker_costs_its_run_only(written, run, cluster, tmp_path):
    path = written(seeds=[1000, 1001, 1002, 1003], policies=["hpa_70", "hpa_50"])
    runs, codes = tmp_path / "runs" / "steady", []
    thread = threading.Thread(target=lambda: codes.append(run(path)))
    thread.start()
    while not (done := list(runs.glob("*/measures.json"))):
        time.sleep(0.02)
    before = {one: (one.parent / "run.json").stat().st_mtime_ns for one in done}
    lost = cluster.workers[0]
    pid = lost.process.pid
    lost.process.process._process.kill()
    thread.join()
    assert codes == [0]
    assert len(list(runs.glob("*/run.json"))) == 8
    assert {one: (one.parent / "run.json").stat().st_mtime_ns for one in done} == before
    assert lost.process is None or lost.process.pid != pid


def test_variants_and_sweeps_are_chosen_on_validation_seeds_and_tested_at_the_points_chosen(
    written, run, tmp_path, capsys
):
    path = written(
        policies=["slow", "hpa"],
        variants={"slow": {"policy": "hpa_60", "set": ["scale.hpa.sync_period=60"]}},
        sweeps={"hpa": {"policy": "hpa_{}", "values": [30, 50, 70, 90]}},
        test_seeds=[2000],
    )
    assert run(path, "--test") == 1
    assert "run the experiment without --test first" in capsys.readouterr().err
    assert run(path) == 0
    assert not (tmp_path / "runs" / "test_seeds.jsonl").exists()
    points = read(tmp_path / "runs" / "chosen.json")["points"]["steady"]
    assert 1 <= len(points) < 4
    info = read(tmp_path / "runs" / "steady" / "slow-1000" / "run.json")
    assert (info["policy"], info["plays"], info["settings"]["scale"]["hpa"]["sync_period"]) == (
        "slow",
        "hpa_60",
        60.0,
    )
    assert run(path, "--test") == 0
    tested = {place.name for place in (tmp_path / "runs" / "test" / "steady").iterdir()}
    assert tested == {f"{name}-2000" for name in ("slow", "hpa_70", *points)}  # hpa_70 is the baseline
    lines = (tmp_path / "runs" / "test_seeds.jsonl").read_text().splitlines()
    noted = json.loads(lines[0])
    assert len(lines) == 1 and noted["seeds"] == [2000] and noted["new_runs"] == len(tested)


def test_a_case_collects_and_fits_first_where_asked_and_cases_of_one_telemetry_share_it(
    written, run, tmp_path
):
    path = written(
        config="config/studies/single.yaml",
        set=["scale.duration=60", "evaluate.warmup=0", "collect.last=4800", "testbed.boot_seconds=5"],
        loads={
            name: {"set": [f"scale.load={{shape: {name}, kind: open, low: 5, high: 10}}"]}
            for name in ("steady", "square")
        },
        policies=["reactive_holistic"],
        prepare=True,
    )
    assert run(path) == 0
    (data,) = (tmp_path / "runs" / "data").iterdir()
    demand = read(data / "meta.json")["demand"]
    assert demand["boot_seconds"] == [5.0]
    info = read(tmp_path / "runs" / "steady" / "reactive_holistic-1000" / "run.json")
    assert list(info["inputs"]) == [str(data / "meta.json"), "application single"]
    cases = list(cases_of(load_section(Experiment, path, [])))
    assert len({case.data for case in cases}) == 1
    assert (
        cases[0].data != next(iter(cases_of(load_section(Experiment, path, []), ["collect.last=4500"]))).data
    )


def experiment(**changes):
    """An experiment that isn't run."""
    return Experiment(
        **{
            "config": str(ROOT / "config" / "boutique.yaml"),
            "loads": {"steady": {}},
            "policies": ["hpa_70"],
            "seeds": [1000],
            "output": "runs/x",
            **changes,
        }
    )


def test_every_combination_of_application_load_and_levels_is_a_case():
    found = experiment(
        config=None,
        applications={
            "shop": {"config": str(ROOT / "config" / "boutique.yaml")},
            "book": {"config": str(ROOT / "config" / "bookinfo.yaml"), "seeds": [1000, 1001]},
        },
        loads={"steady": {}, "square": {"policies": ["oracle"]}},
        factors={
            "boot": {"5s": ["scale.period=60"], "60s": ["scale.period=30"]},
            "floor": {"without": ["scale.floor.enabled=false"]},
        },
    )
    cases = list(cases_of(found, ["scale.duration=300"]))
    assert len({case.name for case in cases}) == len(cases) == 8
    case = next(case for case in cases if case.name == "book/square/60s/without")
    assert (case.settings.scale.period, case.settings.scale.floor.enabled) == (30.0, False)
    assert case.settings.scale.duration == 300 and case.seeds == (1000, 1001)
    tasks = tasks_of(cases, {"application": ["book"], "load": ["square"], "boot": ["5s"], "seed": ["1001"]})
    assert [str(task.place) for task in tasks] == ["runs/x/book/square/5s/without/oracle-1001"]
    with pytest.raises(SettingsError, match=r"--only: no load 'storm'; there are: steady, square"):
        tasks_of(cases, {"load": ["storm"]})
    with pytest.raises(SettingsError, match="--only: unknown key 'lod'"):
        tasks_of(cases, {"lod": ["steady"]})


def test_two_entrants_of_one_name_are_refused():
    found = experiment(sweeps={"hpa": {"policy": "hpa_{}", "set": ["scale.period={}"], "values": [70]}})
    with pytest.raises(SettingsError, match="hpa_70 stands for two"):
        entrants_of(found, ["hpa_70", "hpa"])


@pytest.mark.parametrize(
    ("sweep", "point", "plays"),
    [
        ({"policy": "hpa_{}"}, "hpa_80", "hpa_80"),
        ({"policy": "hpa_r{}"}, "hpa_r80", "hpa_r80"),
        ({"policy": "queueing_trend_{}"}, "queueing_trend_80", "queueing_trend_80"),
        ({"policy": "hpa_{}", "set": ["scale.period={}"]}, "mine_80", "hpa_80"),
        ({"policy": "hpa_r{}", "set": ["scale.hpa.sync_period=30"]}, "mine_80", "hpa_r80"),
        ({"policy": "plan_bootstrap", "set": ["scale.prices.shortage={}"]}, "mine_80", "plan_bootstrap"),
    ],
)
def test_a_point_of_a_sweep_has_the_name_of_what_runs_unless_settings_tell_it_apart(sweep, point, plays):
    found = experiment(sweeps={"mine": {**sweep, "values": [80, 120]}}, policies=["mine"], test_seeds=[2000])
    first, _ = entrants_of(found, ["mine"])
    assert (str(first.name), first.name.family, first.name.knob) == (point, "mine", 80.0)
    assert (first.policy, first.sweep) == (plays, "mine")
    (case,) = list(cases_of(found, chosen={"steady": [point]}))[:1]
    assert [str(one.name) for one in case.entrants] == [point]
    with pytest.raises(SettingsError, match=r"no point 'other_80' in the sweeps of steady.*without --test"):
        list(cases_of(found, chosen={"steady": ["other_80"]}))
    with pytest.raises(SettingsError, match=r"no points were chosen for steady; run .* without --test first"):
        list(cases_of(found, chosen={"storm": [point]}))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1234567"),
        (1e6, "1000000"),
        (0.12345678, "0.12345678"),
        (1e-7, "1e-07"),
        (70, "70"),
        (0.6, "0.6"),
    ],
)
def test_a_point_of_a_sweep_runs_the_value_itself(value, text):
    found = experiment(
        sweeps={"mine": {"policy": "static", "set": ["scale.prices.start={}"], "values": [value]}}
    )
    (one,) = entrants_of(found, ["mine"])
    assert str(one.name) == f"mine_{text}"
    assert load_settings(CONFIG / "boutique.yaml", one.set).scale.prices.start == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": ["hpa_70", "nosuch"]}, "policy 'nosuch' is unknown"),
        ({"policies": ["hpa_-3"]}, "policy 'hpa_-3' is unknown"),
        ({"policies": ["a"], "sweeps": {"a": {"policy": "hpa_{}", "values": [-3]}}}, "'hpa_-3' is unknown"),
        ({"baseline": "nosuch"}, "baseline: 'nosuch' is none of"),
        ({"holds": {"measure": "p99", "at_most": 0.5}}, "no measure 'p99'; there are: .*, p99_seconds,"),
        (
            {"holds": {"measure": "endpoints", "at_most": 0.5}},
            "no measure 'endpoints'; there are: below_half",
        ),
    ],
)
def test_what_can_be_known_before_the_first_run_is_said_then(changes, message):
    found = experiment(**changes)
    with pytest.raises(SettingsError, match=message):
        check_entrants(found, list(cases_of(found)))


def test_a_variant_never_has_the_name_of_another_policy():
    found = experiment(variants={"hpa_50": {"policy": "hpa_30"}})
    with pytest.raises(SettingsError, match="variants: hpa_50 is the name of a policy that runs otherwise"):
        entrants_of(found, ["hpa_50"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_seeds": [1500]}, "test_seeds: 1500 is none of 2000 to 2999"),
        (
            {"sweeps": {"a": {"policy": "hpa_{}", "values": [1]}}, "seeds": [2000]},
            "seeds: a sweep is chosen on validation seeds",
        ),
        ({**SWEEP, "loads": {"steady": {"seeds": [2000]}}}, r"loads\.steady\.seeds: a sweep is chosen on"),
        (
            {**SWEEP, "config": None, "applications": {"a": {"config": "a.yaml", "seeds": [2999]}}},
            r"applications\.a\.seeds: a sweep is chosen on",
        ),
        ({"sweeps": {"a": {"policy": "hpa_70", "values": [1]}}}, "the value goes nowhere"),
        ({"factors": {"load": {"x": []}}}, "'load' is the name of something else"),
        ({"config": None}, "either `config` or `applications`"),
        ({"seeds": [1000, 1001, 1000]}, "1000 stands there twice"),
        ({"test_seeds": [2000, 2000]}, "2000 stands there twice"),
        ({"loads": {"steady": {"seeds": []}}}, r"loads\.steady\.seeds\s+.*at least 1"),
        ({"loads": {"steady": {"policies": []}}}, r"loads\.steady\.policies\s+.*at least 1"),
        ({"factors": {"boot": {}}}, r"factors\.boot\s+.*at least 1"),
        (
            {"factors": {"f": {"a": ["scale.period=30"], "b": ["scale.period=30"]}}},
            "'a' and 'b' are the same",
        ),
    ],
)
def test_an_experiment_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        experiment(**changes)


def test_the_points_around_the_others_and_the_best_ones_go_to_the_test():
    found = experiment(
        policies=["mine", "hpa"],
        variants={"mine": {"policy": "hpa_60"}},
        sweeps={"hpa": {"policy": "hpa_{}", "values": [20, 30, 40, 50, 60, 70, 80]}},
    )
    case = next(iter(cases_of(found)))
    rates = {80: 0.3, 70: 0.2, 60: 0.1, 50: 0.02, 40: 0.005, 30: 0.0, 20: 0.0}
    rows = {
        f"hpa_{knob}": {
            "violation_rate": rate,
            "core_hours": 480 / knob,
            "realised_cost": 480 / knob + 90 * rate,
        }
        for knob, rate in rates.items()
    }
    rows["mine"] = {"violation_rate": 0.15, "core_hours": 9.0, "realised_cost": 9.0}
    chosen = choose([case], {case.name: {"policies": rows}}, 0.01)
    # hpa_40: cheapest within 1 % and lowest realised cost; 50, 60: around 9 core-hours; 60, 70: around 15 %
    assert chosen == {case.name: ["hpa_40", "hpa_50", "hpa_60", "hpa_70"]}


def test_of_a_promise_the_cheapest_point_that_keeps_it_goes_to_the_test_and_the_next_one():
    found = experiment(policies=["hpa"], sweeps={"hpa": {"policy": "hpa_{}", "values": [40, 50, 60, 70, 80]}})
    case = next(iter(cases_of(found)))
    slow = {40: 0.1, 50: 0.2, 60: 0.3, 70: 0.4, 80: 0.6}
    rows = {
        f"hpa_{knob}": {
            "family": "hpa",
            "violation_rate": knob / 1000,
            "core_hours": 480 / knob,
            "realised_cost": 480 / knob + knob,
            "mean_cores": 480 / knob,
        }
        for knob in slow
    }
    runs = [{"policy": f"hpa_{knob}", "p99_seconds": seconds} for knob, seconds in slow.items()]
    summaries = {case.name: {"policies": rows, "runs": runs}}
    promise = Holds(measure="p99_seconds", at_most=0.5)
    without = choose([case], summaries, 0.0)[case.name]
    assert set(choose([case], summaries, 0.0, promise)[case.name]) == {*without, "hpa_70", "hpa_60"}
    assert not {"hpa_70", "hpa_60"} & set(without)
    assert best_at_the_ends([case], summaries, 0.2, promise) == [
        f"{case.name}: hpa_40",
        f"{case.name}: hpa_80",
    ]
    assert best_at_the_ends([case], summaries, 0.06, Holds(measure="p99_seconds", at_most=0.35)) == [
        f"{case.name}: hpa_40"
    ]
    impossible = Holds(measure="p99_seconds", at_most=0.01)
    assert choose([case], summaries, 0.0, impossible)[case.name] == without


def test_the_expected_time_follows_finished_runs():
    task, other = tasks_of(list(cases_of(experiment(policies=["hpa_70", "plan_bootstrap"]))))
    pace = Pace()
    assert pace.seconds(task) == pytest.approx(guess(task) * task.hours)
    assert guess(other) > guess(task)
    for seconds in (10.0, 20.0, 60.0):
        pace.learn(task, seconds)
    assert pace.seconds(task) == pytest.approx(20.0) and not pace.knows([task, other])
    assert pace.total([task] * 4, 2) > 40
    assert [told(seconds) for seconds in (40, 720, 12600)] == ["40 s", "12 min", "3.5 h"]


def test_a_trial_has_each_application_load_and_level_and_the_ends_of_each_sweep(monkeypatch):
    monkeypatch.chdir(ROOT)
    experiment = load_section(Experiment, ROOT / "config/experiments/value_of_lead.yaml", [])
    cases = covering(cases_of(experiment), 50)
    seen = {item for case in cases for item in case.place.items()}
    assert seen == {item for case in cases_of(experiment) for item in case.place.items()}
    # six loads and five start-up times, of which one changes at a time
    assert len(cases) < 6 + 5 and all(case.seeds == (1000,) for case in cases)
    assert not covering(cases_of(experiment), 9)  # ten services are too many
    ends = ends_of_sweeps(load_section(Experiment, ROOT / "config/experiments/headline.yaml", []))
    assert ends.sweeps["hpa"].values == [40, 90]


def test_a_trial_runs_each_file_in_short_and_tells_the_broken_one(
    written, cluster, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(ROOT)
    good = written(set=["scale.duration=100000"])
    bad = Path(good).with_name("broken.yaml")
    bad.write_text("loads: {}\n")
    arguments = ["--output", str(tmp_path / "smoke"), "--scheduler", cluster.scheduler_address]
    assert smoke(["--expect", good]) == 0
    assert "not tried" in capsys.readouterr().out
    assert smoke([good, str(bad), *arguments]) == 1
    tried, broken = capsys.readouterr().out.splitlines()[-2:]
    assert tried.split()[0] == "experiment" and tried.split()[-1] == "ok" and "loads" in broken
    assert (tmp_path / "smoke" / "experiment" / "report.html").is_file()


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_shipped_experiments_load_and_choose_on_validation_seeds(path: Path, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = load_section(Experiment, path, [])
    cases = list(cases_of(found))
    assert all(1000 <= seed < 2000 for case in cases for seed in case.seeds)
    for case in (cases[0], cases[-1]):
        assert tasks_of([case])
    assert all("config/experiments/" in line for line in commands(path) if ".yaml" in line)
    assert any(f"config/experiments/{path.name}" in line for line in commands(path))
    assert "Two cores: " in path.read_text(), "say how long it takes"


def commands(path):
    """The lines of a file's header that show a command."""
    head = [line for line in path.read_text().splitlines() if line.startswith("#   python")]
    assert head
    return head
