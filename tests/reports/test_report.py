"""The report's page: its answer, and what a browser makes of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.browser import DESKTOP, PHONE
from helpers.moments import START
from helpers.paths import ROOT
from helpers.run_samples import POLICIES, endpoint_row, make_run, write_runs

import calculate
from deepscaler.artefacts import utc_text
from deepscaler.evaluation.answer import by_load, prices_told, told, winner
from deepscaler.evaluation.comparison import ComparedPolicy, Outcome
from deepscaler.evaluation.measured import measured
from deepscaler.evaluation.portraits import Portrait, portray
from deepscaler.evaluation.run_details import RunDetails
from deepscaler.pictures.style import SERIES, new_figure
from deepscaler.pictures.vector import inline_svg
from deepscaler.runs import PolicyName, write_run
from deepscaler.settings import PlanPrices

LARGEST = 3 * 2**20
HOSTILE = "<script>alert(1)</script>"


def edit_run(directory: Path, change) -> None:
    path = directory / "run.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of four policies on two loads, of which one run says what it needed and one is hostile."""
    base = tmp_path_factory.mktemp("report")
    for load in ("square", "steady"):
        write_runs(base / "runs" / load, {name: row for name, row in POLICIES.items() if name != "static"})
    run = base / "runs" / "square" / "deepscaler-2000"
    rows = "".join(f"{utc_text(START + t)},2,2\n" for t in range(15, 301, 15))
    (run / "needed.csv").write_text("time,web,db\n" + rows)
    edit_run(run, lambda info: info.update(app=HOSTILE, bundle_sha256="abcdef0123456789" * 4))
    sources = [[utc_text(START), "none"], [utc_text(START + 120), "season"]]
    edit_run(run, lambda info: info.update(scenario_sources=sources))
    found = base / "report.html"
    config = ["--config", str(ROOT / "config/boutique.yaml"), "--set", "evaluate.warmup=0"]
    config += ["--set", "evaluate.timelines=0", "--runs", str(base / "runs"), "--output", str(base)]
    assert calculate.main([*config, "--report", str(found)]) == 0
    return found


def test_a_browser_finds_nothing_to_complain_about(page, browser):
    browser.open(page, DESKTOP)
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.overhang() == 0
    assert page.stat().st_size <= LARGEST


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_in_light_and_dark(page, browser, dark):
    browser.open(page, PHONE, dark)
    assert browser.overhang() == 0
    style = "return getComputedStyle(document.body)"
    paper, ink = browser.run(f"{style}.backgroundColor"), browser.run(f"{style}.color")
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
    assert (light[0] < light[1]) == dark
    svg_ink = "return getComputedStyle(document.querySelector('figure svg text')).fill"
    assert browser.run(svg_ink) == ink


def test_a_screen_reader_and_a_keyboard_find_their_way(page, browser):
    browser.open(page)
    headings = browser.run("return [...document.querySelectorAll('h1, h2')].map(one => one.textContent)")
    assert headings[:3] == ["Which policy scales best?", "The answer", "Results"]
    wanted = {"Cost against violations", "Load by load", "The worst and the median run", "Response times"}
    assert {*wanted, "Which scenarios decided", "To repeat it"} <= set(headings)
    assert browser.run("return document.documentElement.lang") == "en"
    nameless = (
        "return [...document.querySelectorAll('svg')].filter(one => one.getAttribute('role') != 'img'"
        " || !one.querySelector('title').textContent || !one.querySelector('desc').textContent).length"
    )
    assert browser.run("return document.querySelectorAll('svg').length") >= 5 and browser.run(nameless) == 0
    assert browser.run("return document.querySelectorAll('table').length") >= 4
    assert (
        browser.run(
            "return document.querySelectorAll('table:not(:has(caption)), table:not(:has(th))').length"
        )
        == 0
    )
    broken = (
        "return [...document.querySelectorAll('a')].map(one => one.getAttribute('href').slice(1))"
        ".filter(one => !document.getElementById(one))"
    )
    assert browser.run(broken) == []
    twice = (
        "const ids = [...document.querySelectorAll('[id]')].map(one => one.id);"
        "return ids.filter((one, place) => ids.indexOf(one) != place)"
    )
    assert browser.run(twice) == []


def test_it_says_who_wins_what_was_decided_by_what_and_how_to_repeat_it(page):
    text = page.read_text(encoding="utf-8")
    assert "deepscaler has the lowest realised cost" in text
    assert "At equal cost the hpa settings (hpa_50 to hpa_80) reach" in text
    assert "2000-2002" in text and "abcdef012345" in text
    assert re.search(r"deepscaler, square</th><td>300</td><td>60\.0</td><td>40\.0", text)
    assert HOSTILE not in text and "&lt;script&gt;alert(1)" in text
    assert re.search(r"The worst run: \w+, seed 2002", text) and "The median run" in text


NO_DETAILS = RunDetails(np.zeros(1), Counter(), {})


def judged(
    run: Path, policy: str, unit: str, warmup: float = 0.0, prices: PlanPrices | None = None
) -> Outcome:
    prices = prices or PlanPrices()
    known = measured(run, warmup, prices)
    entrant = ComparedPolicy(PolicyName.parse(policy))
    return Outcome(entrant, unit, known.measures, run, warmup, prices, known.details)


def portraits(costs: dict[str, list[float]], load: str = "load", first: int = 0) -> list[Portrait]:
    found = []
    for name, values in costs.items():
        for seed, cost in enumerate(values, first):
            outcome = Outcome(ComparedPolicy(PolicyName.parse(name)), str(seed), {"realised_cost": cost})
            found.append(Portrait(outcome, load, NO_DETAILS, {}))
    return found


def test_a_planted_difference_is_sure_and_a_planted_null_isnt():
    rng = np.random.default_rng(1)
    base = rng.normal(5, 1, 20)
    win = winner(portraits({"a": list(base), "hpa_70": list(base * 1.25), "oracle": list(base / 2)}))
    assert (win.best, win.second, win.sure) == ("a", "hpa_70", True)  # the oracle knows the future: no rival
    assert win.saved == pytest.approx(0.2)
    assert win.saved_interval[0] < 0.2 < win.saved_interval[1]
    assert "20 % below the next, hpa_70" in told(win) and "isn't chance" in told(win)
    noise = rng.normal(0, 1, 20)
    null = winner(portraits({"a": list(base), "b": list(base + noise)}))
    assert not null.sure and "may be chance" in told(null)
    assert told(winner(portraits({"a": [1.0]}))).endswith("it has no rival here.")
    assert "can't be compared" in told(winner(portraits({"a": [float("nan")]})))


def test_a_few_large_savings_that_the_mean_rests_on_are_not_called_sure():
    own = [4.0] * 12
    rival = [4.1] * 11 + [40.0]  # by ranks it is dearer each time; the mean is one run's
    win = winner(portraits({"a": own, "b": rival}))
    assert win.saved_interval[0] < 0 < win.saved_interval[1]
    assert win.level == ("b",) and "may be chance" in told(win)


def test_who_ran_on_cheap_loads_only_doesnt_win_by_that():
    rng = np.random.default_rng(0)
    costs = {"deepscaler": 2.0, "hpa_70": 1.5, "plan_bootstrap": 3.0}
    cheap = portraits({name: list(mean + rng.normal(0, 0.05, 6)) for name, mean in costs.items()}, "cheap")
    dear = portraits({"deepscaler": [9.0] * 6, "hpa_70": [7.0] * 6}, "dear")  # the means are 5.5, 4.25 and 3
    win = winner([*cheap, *dear])
    assert (win.best, win.second, win.pairs, win.further) == ("hpa_70", "deepscaler", 6, 6)
    assert win.cost == pytest.approx(1.5, abs=0.1) and win.saved == pytest.approx(0.25, abs=0.05)
    assert win.saved_interval[0] < win.saved < win.saved_interval[1]
    assert "counts the 6 of 12 loads and seeds that all ran on" in told(win)


@pytest.mark.parametrize(
    "other",
    [
        portraits({"hpa_70": [1.0, 1.0]}, "other"),  # another load under the same seeds
        portraits({"hpa_70": [1.0, 1.0]}, first=10),  # other seeds
        portraits({"hpa_70": [float("nan"), 1.0]}, first=1),  # the shared run's cost isn't known
    ],
)
def test_nobody_wins_where_no_run_is_shared(other):
    win = winner([*portraits({"deepscaler": [2.0, 2.0]}), *other])
    assert told(win).startswith("No winner is named")


def test_where_each_load_has_other_settings_families_compete_at_their_best():
    """As in the test of an experiment, which runs other points of its sweeps in each case."""
    rng = np.random.default_rng(2)
    base = {load: rng.normal(5, 0.5, 8) for load in ("square", "step")}

    def costs(load: str, factors: dict[str, float]) -> list[Portrait]:
        return portraits({name: list(base[load] * factor) for name, factor in factors.items()}, load)

    square = costs("square", {"plan_bootstrap": 1.0, "hpa_40": 1.5, "hpa_50": 1.3, "oracle": 0.5})
    step = costs("step", {"plan_bootstrap": 1.0, "hpa_60": 1.1, "hpa_70": 4.0})
    win = winner([*square, *step])
    assert (win.best, win.second, win.tuned) == ("plan_bootstrap", "hpa", ("hpa",))
    assert (win.pairs, win.further) == (16, 0)
    cheapest = 1.3 * base["square"].sum() + 1.1 * base["step"].sum()
    assert win.saved == pytest.approx(1 - (base["square"].sum() + base["step"].sum()) / cheapest)
    assert "of hpa each load's cheapest setting counts, picked from these runs" in told(win)
    shared = winner(costs("square", {"plan_bootstrap": 1.0, "hpa_40": 1.5, "hpa_50": 1.3}))
    assert (shared.second, shared.tuned) == ("hpa_50", ())  # settings that each load has stand by themselves


def test_load_by_load_the_winner_is_named_though_none_is_over_all():
    one, other = portraits({"a": [1.0], "b": [2.0]}, "one"), portraits({"c": [3.0], "d": [2.5]}, "other")
    rows = by_load([*one, *other], [])
    assert rows == [["one", "a", "no"], ["other", "d", "no"]]
    assert told(winner([*one, *other])).startswith("No winner is named")


def test_a_picture_takes_the_pages_colours_and_keeps_its_ids_to_itself():
    figure = new_figure(3, 2)
    figure.subplots().plot([0, 1], [0, 1], color=SERIES[0], clip_on=True)
    one, other = (inline_svg(figure, name, "A < B", "rising") for name in ("one", "other"))
    assert one.startswith("<svg ") and '<title id="one-title">A &lt; B</title>' in one
    assert "var(--series-1" in one and "font-family: system-ui" in one
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0] and not ids[0] & ids[1]
    assert set(re.findall(r"url\(#([^)]+)\)", one)) <= ids[0]


@pytest.mark.parametrize("policy", ["static", "plan_informed"])
def test_a_run_without_a_policy_of_ours_still_gets_its_page(tmp_path, policy):
    rows = [endpoint_row(t, "GET /", 0, 0.1, offered=5) for t in range(15, 121, 15)]
    run, page = tmp_path / "runs" / f"{policy}-1", tmp_path / "page.html"
    write_run(make_run(rows, policy=policy), run)
    config = ["--config", str(ROOT / "config/boutique.yaml"), "--runs", str(tmp_path / "runs")]
    config += ["--set", "evaluate.timelines=0", "--set", "evaluate.warmup=0", "--output", str(tmp_path)]
    assert calculate.main([*config, "--report", str(page)]) == 0
    assert "There is no run of deepscaler" in page.read_text(encoding="utf-8")
    not_on_disk = Outcome(ComparedPolicy(PolicyName.parse(policy)), "2", {})
    [portrait] = portray([judged(run, policy, "1"), not_on_disk])
    assert portrait.load == "the load" and not portrait.details.buckets.any()


def test_without_deepscaler_the_pictures_are_about_the_plan_even_if_an_hpa_is_better(tmp_path):
    write_runs(tmp_path / "runs", {"plan_bootstrap": ((2, 2, 2), 3), "hpa_50": ((0, 0, 0), 2)})
    config = ["--config", str(ROOT / "config/boutique.yaml"), "--runs", str(tmp_path / "runs")]
    config += ["--set", "evaluate.timelines=0", "--set", "evaluate.warmup=0", "--output", str(tmp_path)]
    assert calculate.main([*config, "--report", str(tmp_path / "page.html")]) == 0
    assert "Of the runs of plan_bootstrap" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_each_run_is_told_after_its_own_warm_up_at_the_price_at_which_it_was_judged(tmp_path):
    rows = [endpoint_row(t, "GET /", 10, 0.1) for t in range(15, 301, 15)]
    outcomes = []
    for load, warmup, shortage in (("calm", 0.0, 100.0), ("steep", 120.0, 5.0)):
        run = make_run(rows, start=START, settings={"scale": {"prices": {"shortage": 1.0}}})
        write_run(run, tmp_path / load)
        prices = PlanPrices(shortage=shortage)
        outcomes.append(judged(tmp_path / load, "hpa_70", f"{load}/1", warmup, prices))
    portraits = portray(outcomes)
    assert [one.details.buckets.sum() for one in portraits] == [200, 120]
    assert "times 5 or 100, plus 180 seconds" in prices_told(portraits)
