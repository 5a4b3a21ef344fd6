"""The page of an experiment says what its tables and its summary say."""

from __future__ import annotations

import shlex
from pathlib import Path

from helpers.experiment_runs import small_experiment, write_task_run

from testbed.experiment import build_parser, command, summarise
from testbed.experiments.matrix import cases_of, tasks_of
from testbed.experiments.report_page import write_experiment_page


def test_the_page_names_the_winner_of_the_tables_though_policies_have_prices_of_their_own(
    tmp_path: Path,
) -> None:
    """At the case's price of a shortage, 100, deepscaler wins; at its own, price_5 would."""
    experiment = small_experiment(
        tmp_path,
        policies=["deepscaler", "price"],
        sweeps={"price": {"policy": "deepscaler", "set": ["scale.prices.shortage={}"], "values": [5, 50]}},
        baseline="deepscaler",
    )
    tasks = tasks_of(list(cases_of(experiment)))
    for task in tasks:
        write_task_run(task, replicas=3 if str(task.entrant.name) == "deepscaler" else 1)
    rows = summarise(tasks, "deepscaler")["steady"]["policies"]
    costs = {name: row["realised_cost"] for name, row in rows.items()}
    assert min(costs, key=costs.__getitem__) == "deepscaler"
    write_experiment_page(tmp_path / "page.html", tasks, experiment, "python")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"deepscaler has the lowest realised cost: {costs['deepscaler']:.2f} core-hours" in page
    assert "times 100, plus 180 seconds of holding per pod started" in page


def test_the_page_tells_of_the_experiments_baseline_and_not_of_the_applications(tmp_path: Path) -> None:
    """That of Boutique's own settings is hpa_70, which takes no part."""
    experiment = small_experiment(tmp_path, policies=["deepscaler", "hpa_50"], baseline="deepscaler")
    tasks = tasks_of(list(cases_of(experiment)))
    for task in tasks:
        write_task_run(task)
    write_experiment_page(tmp_path / "page.html", tasks, experiment, "python")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "deepscaler: 0.00 % of the minutes" in page and "no run of the baseline" not in page


def test_the_page_answers_the_experiments_question_load_by_load_as_its_file_has_them(tmp_path: Path) -> None:
    loads: dict[str, object] = {f"boot_{seconds}s": {} for seconds in (5, 30, 120)}
    question = "Is slower <dearer>?"
    experiment = small_experiment(tmp_path, policies=["deepscaler", "hpa_50"], loads=loads, question=question)
    tasks = tasks_of(list(cases_of(experiment)))
    for task in tasks:
        write_task_run(task)
    write_experiment_page(tmp_path / "page.html", tasks, experiment, "python")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h1>Is slower &lt;dearer&gt;?</h1>" in page
    rows = [page.index(f'scope="row">{name}') for name in loads]
    assert rows == sorted(rows)


def test_the_command_on_the_page_makes_the_same_page_again() -> None:
    flags = ["--set", "seeds=[1001, 1002]", "--set", "baseline=oracle", "--with", "scale.period=30"]
    flags += ["--only", "load=square", "policy=hpa_70,oracle", "--test", "--output", "runs/my own"]
    given = ["config/experiments/quick.yaml", *flags]
    made = command(build_parser().parse_args([*given, "--workers", "2", "--json"]))
    assert shlex.split(made) == ["python", "-m", "testbed.experiment", *given]
    plain = "python -m testbed.experiment config/experiments/quick.yaml"
    assert command(build_parser().parse_args(given[:1])) == plain
