"""A shadow run told: the numbers on paper, the page in a browser, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from helpers.browser import PHONE
from helpers.moments import START
from helpers.paths import ROOT
from helpers.run_samples import LIMITS, endpoint_row, make_run

import calculate
from deepscaler.evaluation.span import run_span
from deepscaler.labels.record import BORROWED
from deepscaler.reports.counterfactual import counterfactual, replayed, sections, to_dict
from deepscaler.reports.decided import by_hour, course, held, moments, ready_after
from deepscaler.runs import DECISION_COLUMNS, write_run

HOUR = 3600


def shadow(mode="dry_run", wanted=1, slow_minutes=3, hours=2):
    """Hours with two replicas of each service; the shadow wants `wanted` of web from the second hour on."""
    times = range(15, hours * HOUR + 1, 15)
    rows = [
        endpoint_row(
            t, "GET /", 10, 0.6 if t <= 60 * slow_minutes else 0.1, slow=10 if t <= 60 * slow_minutes else 0
        )
        for t in times
    ]
    pods = [(START + t, service, 2, 0, 2) for t in times for service in LIMITS]
    decisions = []
    for t in times:
        late = t > HOUR
        reason, target = ("plan", wanted) if late else ("unchanged", 2)
        decisions.append((START + t - 15, "web", 2, 2, 2.0, 1.0, target, np.nan, reason, mode, ""))
        decisions.append((START + t - 15, "db", 2, 2, 2.0, 1.0, 2, np.nan, "held_stale", mode, ""))
    run = make_run(rows, pods, policy="plan_bootstrap", mode=mode, acting="hpa_70", start=START)
    run.decisions = pd.DataFrame(decisions, columns=DECISION_COLUMNS)
    return run


def test_core_hours_are_told_by_service_and_hour():
    run = shadow()
    span = run_span(run, 0.0)
    there = course(run, span)
    hours = by_hour(there, span)
    assert hours.loc["web"].tolist() == pytest.approx([0.0, -LIMITS["web"]])  # one replica less, an hour long
    assert hours.loc["db"].tolist() == pytest.approx([0.0, 0.0])
    found = counterfactual(run, 0.0, None)
    assert found.decided_core_hours == pytest.approx(found.was["core_hours"] - LIMITS["web"])
    assert (found.acting, found.shadow) == ("hpa_70", "plan_bootstrap")


def test_the_moments_that_matter_are_those_that_violate_or_differ_most():
    run = shadow()
    found = moments(run, run_span(run, 0.0), course(run, run_span(run, 0.0)))
    assert len(found) == 10
    first = found[0]
    assert (first["time"], first["violating"], first["changes"]) == (START, 3, [])
    assert first["response"] == pytest.approx((3 * 0.6 + 2 * 0.1) / 5)
    assert all(one["time"] >= START + HOUR for one in found[1:])
    assert found[1]["changes"] == ["web: 2.0 -> 1.0 (plan)"]


def test_what_was_held_is_counted_with_its_reason():
    run = shadow()
    assert held(run, run_span(run, 0.0)) == [("db", "held_stale", 2 * HOUR // 15 - 1)]


def test_a_rise_counts_after_the_start_up_and_a_fall_at_once():
    target = np.array([[1, 1], [3, 3], [3, 3], [3, 3], [2, 2], [2, 2]], float)
    found = ready_after(target, 15.0 * np.arange(6), np.array([30.0, 0.0]))
    assert found[:, 0].tolist() == [1, 1, 1, 3, 2, 2]
    assert found[:, 1].tolist() == [1, 3, 3, 3, 2, 2]


def measured(core_hours, violation_minutes):
    return {"core_hours": core_hours, "violation_minutes": violation_minutes, "minutes": 60}


def test_a_replay_that_misses_what_was_widens_the_interval():
    was, would = measured(4.0, 3), measured(3.0, 1)
    exact = replayed(was, [was, was], [would, would])
    # Two replays that agree: 4 of 5 degrees of freedom are what is usual, 1.5 % of 4 core-hours.
    half = 2.5706 * np.sqrt(4 / 5 * 1.5) * 0.015 * 4.0
    assert exact.core_hours.value == 3.0
    assert (exact.core_hours.low, exact.core_hours.high) == pytest.approx((3 - half, 3 + half), rel=1e-4)
    off = measured(4.5, 5)
    found = replayed(was, [off, off], [measured(3.5, 1)] * 2)
    assert found.core_hours.value == 3.0
    assert found.core_hours.high == pytest.approx(3 + np.hypot(half, 0.5), rel=1e-4)
    assert (found.minutes.value, found.minutes.low) == (0.0, 0.0)  # never below none


def test_replays_that_differ_widen_the_interval_and_one_alone_has_one():
    was = measured(4.0, 3)
    apart = replayed(was, [was] * 3, [measured(hours, 1) for hours in (2.5, 3.0, 3.5)])
    assert apart.core_hours.high - apart.core_hours.value > 0.8
    [alone] = [replayed(was, [was], [measured(3.0, 1)])]
    assert 0.2 < alone.core_hours.high - 3.0 < 0.3 and alone.core_hours.value == 3.0


def test_many_violating_minutes_are_foretold_less_surely_than_none():
    was, none, many = measured(4.0, 3), measured(3.0, 0), measured(3.0, 12)
    calm, busy = (replayed(was, [was, was], [would, would]).minutes for would in (none, many))
    assert 0 < calm.high - calm.value < busy.high - busy.value
    # Two replays that agree; usual are 1.5 % of 60 minutes, and 2.4 times the 12 minutes as variance.
    half = 2.5706 * np.sqrt(4 / 5 * 1.5 * ((0.015 * 60) ** 2 + 2.4 * 12))
    assert busy.high - busy.value == pytest.approx(half, rel=1e-4)


@pytest.mark.parametrize(("hours", "unit", "columns"), [(2, "hour", 2), (50, "day", 3)])
def test_a_long_record_is_told_day_by_day(hours, unit, columns):
    found = counterfactual(shadow(hours=hours), 0.0, None)
    [table] = next(one for one in sections(found, "") if one.anchor == "differences").tables
    assert list(table.heads) == ["service", "in all", *(f"{unit} {place}" for place in range(1, columns + 1))]
    assert table.rows[-1][0] == "all"
    web = next(row for row in table.rows if row[0] == "web")
    assert web[1] == f"{-LIMITS['web'] * (hours - 1):+.2f}" and len(web) == columns + 2


def test_both_pictures_name_who_held_and_who_wanted():
    pictures = next(
        one for one in sections(counterfactual(shadow(), 0.0, None), "") if one.anchor == "course"
    )
    (response, _), (cores, caption) = pictures.pictures
    assert "hpa_70, measured" in response and "by the fit" not in response
    assert "hpa_70, held" in cores and "plan_bootstrap, wanted" in cores
    assert caption.endswith("6.00 core-hours held, 5.50 wanted.")


@pytest.mark.parametrize("mode", ["act", "standby", None])
def test_a_run_that_acted_is_refused(tmp_path, capsys, mode):
    write_run(shadow(mode=mode), tmp_path / "run")
    config = ["--config", str(ROOT / "config/boutique.yaml"), "--counterfactual", str(tmp_path / "run")]
    assert calculate.main(config) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("calculate: run.json: mode is") and "--dry-run" in message


def test_text_json_and_page_say_the_same_and_what_is_missing(tmp_path, capsys, browser):
    write_run(shadow(), tmp_path / "run")
    page = tmp_path / "page.html"
    arguments = ["--config", str(ROOT / "config/boutique.yaml"), "--set", "evaluate.warmup=0"]
    arguments += ["--counterfactual", str(tmp_path / "run"), "--report", str(page)]
    assert calculate.main(arguments) == 0
    told = capsys.readouterr().out
    assert "As decided, plan_bootstrap would have held 5.50 core-hours instead of 6.00 (-8 %)." in told
    assert "There is no replay: metrics.csv: no such file" in told
    assert "web: 2.0 -> 1.0 (plan)" in told and "held_stale" in told
    assert calculate.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["by_replay"] is None and found["decided_core_hours"] == pytest.approx(5.5)
    assert found["core_hours_more_by_service_and_hour"]["web"] == pytest.approx([0.0, -0.5])
    browser.open(page, PHONE)
    assert (browser.complaints(), browser.outside(), browser.overhang()) == ([], [], 0)
    [cell] = browser.run(
        "return [...new Set([...document.querySelectorAll('#moments td:last-child')]"
        ".map(one => getComputedStyle(one).textAlign + ' ' + getComputedStyle(one).whiteSpace))]"
    )
    assert cell == "left normal"
    headings = browser.run("return [...document.querySelectorAll('h1, h2')].map(one => one.textContent)")
    assert headings[:2] == ["What would have been?", "The answer"]
    assert {"Where they differ", "The moments that matter", "What was held, and why"} <= set(headings)


def test_everything_is_plain_for_json():
    found = to_dict(counterfactual(shadow(), 0.0, None))
    assert json.loads(json.dumps(found, allow_nan=False))["acting"] == "hpa_70"


def test_the_response_of_another_fit_judges_nothing():
    """A record that is too calm for a response of its own is told to be so."""

    class Borrowed:
        response, quality = object(), {BORROWED: True}

    run = shadow()
    run.panel = object()
    found = counterfactual(run, 0.0, Borrowed())
    assert found.response is None and "too little load to fit the response" in found.response_why
