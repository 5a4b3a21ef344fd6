"""Raised minimums by cron and by dates, in a time zone with its summer time; what several services share."""

import logging
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from helpers.fakes import FakeCluster, ScriptedPolicy, make_settings
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deepscaler.control.calendar import Calendar
from deepscaler.control.constraints import excess_of, within_constraints
from deepscaler.control.controller import Controller
from deepscaler.control.decision import Decision
from deepscaler.policies.base import Reason
from deepscaler.settings import CalendarEntry, Constraint

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
OPEN = {"scale_down_window": 0.0, "max_step_up": 99, "max_step_down": 99}


def entry(begin, end, zone="UTC", low=8, services=()):
    given = {"begin": begin, "end": end, "time_zone": zone, "min_replicas": low, "services": list(services)}
    return CalendarEntry.model_validate(given)


def at(text, zone="UTC", fold=0):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


@pytest.mark.parametrize(
    ("begin", "end", "zone", "moment", "holds"),
    [
        ("0 8 * * 1-5", "0 18 * * 1-5", "UTC", "2026-01-05T07:59:59", False),
        ("0 8 * * 1-5", "0 18 * * 1-5", "UTC", "2026-01-05T08:00:00", True),
        ("0 8 * * 1-5", "0 18 * * 1-5", "UTC", "2026-01-05T17:59:59", True),
        ("0 8 * * 1-5", "0 18 * * 1-5", "UTC", "2026-01-05T18:00:00", False),
        ("0 8 * * 1-5", "0 18 * * 1-5", "UTC", "2026-01-10T12:00:00", False),  # a Saturday
        ("0 22 * * *", "0 6 * * *", "UTC", "2026-01-05T23:30:00", True),  # over midnight
        ("0 22 * * *", "0 6 * * *", "UTC", "2026-01-05T05:59:59", True),
        ("0 22 * * *", "0 6 * * *", "UTC", "2026-01-05T12:00:00", False),
        ("0 0 1 * *", "0 0 2 * *", "UTC", "2026-02-01T12:00:00", True),
        ("0 8 * * *", "0 18 * * *", BERLIN, "2026-07-01T07:59:59", False),
        ("0 8 * * *", "0 18 * * *", BERLIN, "2026-07-01T08:00:00", True),
        ("2026-11-27T08:00", "2026-11-27T23:00", BERLIN, "2026-11-27T08:00:00", True),
        ("2026-11-27T08:00", "2026-11-27T23:00", BERLIN, "2026-11-27T23:00:00", False),
        ("2026-11-27T08:00Z", "2026-11-27T23:00Z", BERLIN, "2026-11-27T08:30:00", False),  # 09:00 there
    ],
)
def test_an_entry_holds_from_its_begin_up_to_its_end(begin, end, zone, moment, holds):
    found = Calendar([entry(begin, end, zone)]).minimums(["web"], at(moment, zone))
    assert found == ({"web": 8} if holds else {})


@pytest.mark.parametrize(
    ("zone", "begin", "end", "moments"),
    [
        # at 02:00 the clocks of Berlin go to 03:00: what would begin at 02:30 begins at 03:00
        (BERLIN, "30 2 * * *", "0 5 * * *", [
            ("2026-03-29T01:59:59", 0, False), ("2026-03-29T03:00:01", 0, True),
        ]),
        # at 03:00 they go back to 02:00: 02:30 comes twice, and it has begun since the first of them
        (BERLIN, "30 2 * * *", "0 5 * * *", [
            ("2026-10-25T02:29:59", 0, False), ("2026-10-25T02:30:00", 0, True),
            ("2026-10-25T02:10:00", 1, True), ("2026-10-25T04:59:59", 0, True),
            ("2026-10-25T05:00:00", 0, False),
        ]),
        # an office day has its usual times on both days, in New York as well
        (NEW_YORK, "0 8 * * *", "0 18 * * *", [
            ("2026-03-08T07:59:59", 0, False), ("2026-03-08T08:00:00", 0, True),
            ("2026-03-08T18:00:00", 0, False),
            ("2026-11-01T07:59:59", 0, False), ("2026-11-01T08:00:00", 0, True),
            ("2026-11-01T18:00:00", 0, False),
        ]),
        ("UTC", "30 2 * * *", "0 5 * * *", [
            ("2026-03-29T02:29:59", 0, False), ("2026-03-29T02:30:00", 0, True),
        ]),
    ],
)  # fmt: skip
def test_summer_time_comes_and_goes(zone, begin, end, moments):
    for moment, fold, holds in moments:
        found = Calendar([entry(begin, end, zone)]).minimums(["web"], at(moment, zone, fold))
        assert bool(found) == holds, (moment, fold)


def test_a_date_in_the_hour_that_is_skipped_begins_after_it():
    calendar = Calendar([entry("2026-03-29T02:30", "2026-03-29T05:00", BERLIN)])
    edge = at("2026-03-29T01:30:00")  # UTC; 03:30 in Berlin
    assert calendar.minimums(["web"], edge - 1) == {} and calendar.minimums(["web"], edge) == {"web": 8}


@given(st.lists(st.floats(0, 86400 * 400), min_size=1, max_size=20))
def test_what_is_remembered_of_a_span_never_changes_the_answer(offsets):
    """In whatever order moments come (a clock may be set back), the answer is that of a new calendar."""
    start = at("2026-01-01T00:00:00")
    kept = Calendar([entry("0 8 * * 1-5", "30 18 * * 1-5", BERLIN)])
    for offset in offsets:
        fresh = Calendar([entry("0 8 * * 1-5", "30 18 * * 1-5", BERLIN)])
        assert kept.minimums(["web"], start + offset) == fresh.minimums(["web"], start + offset)


def test_the_highest_of_the_entries_holds_for_the_services_that_they_name():
    always = ("0 0 1 1 *", "59 23 31 12 *")
    calendar = Calendar(
        [entry(*always, low=3), entry(*always, low=9, services=["api"]), entry(*always, low=5)]
    )
    assert calendar.minimums(["web", "api"], at("2026-06-01T00:00:00")) == {"web": 5, "api": 9}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"begin": "8 o'clock"}, "five fields of cron"),
        ({"begin": "61 8 * * *"}, "five fields of cron"),
        ({"begin": "0 0 31 2 *"}, "five fields of cron"),
        ({"begin": "2026-11-27T08:00"}, "both cron, or both dates"),
        ({"begin": "2026-11-27T08:00", "end": "2026-11-27T07:00"}, "is not after begin"),
        ({"end": "0  8 * * *"}, "begin and end are the same"),
        ({"time_zone": "Berlin"}, "not a time zone"),
        ({"time_zone": "../etc/passwd"}, "not a time zone"),
        ({"min_replicas": 0}, "greater than or equal to 1"),
    ],
)
def test_an_entry_that_means_nothing_is_refused(changes, message):
    given = {"begin": "0 8 * * *", "end": "0 18 * * *", "min_replicas": 2, **changes}
    with pytest.raises(ValidationError, match=message):
        CalendarEntry.model_validate(given)


def test_a_controller_keeps_the_calendar_within_the_maximum():
    rails = {
        **OPEN,
        "max_replicas": 6,
        "calendar": [{"begin": "0 1 * * *", "end": "0 2 * * *", "min_replicas": 9}],
    }
    cluster = FakeCluster(names=("web",), clock=at("2026-01-05T00:59:50"))
    policy = ScriptedPolicy(lambda _now, _name: 2.0, history_seconds=0.0)
    controller = Controller(cluster, policy, make_settings(("web",), guard_rails=rails))
    for moment in ("00:59:50", "01:00:05", "01:59:50", "02:00:05"):
        cluster.clock = at(f"2026-01-05T{moment}")
        controller.tick()
    found = controller.decisions()
    assert found["target"].tolist() == [2, 6, 6, 2]
    assert found["reason"].tolist() == ["forecast", "calendar", "calendar", "forecast"]


# ----------------------------------------------------------------------------------------- what several share
def decided(service, target, current=2, reason=Reason.FORECAST):
    return Decision(service, current, target, reason, target)


def wishes(web, api):
    return [
        decided("web", web),
        decided("api", *(api if isinstance(api, tuple) else (api,))),
        decided("db", 9),
    ]


def pool(at_most=100.0, reduce=("api", "web"), **takes):
    takes = takes or {"web": 10, "api": 5, "db": 1}
    given = {"name": "pool", "takes": takes, "at_most": at_most, "reduce": list(reduce)}
    return Constraint.model_validate(given)


LOWS = {"web": 1, "api": 1, "db": 1}


@pytest.mark.parametrize(
    ("name", "plan", "at_most", "fixed", "targets"),
    [
        ("it fits", wishes(5, 5), 84, (), [5, 5, 9]),
        ("the first is cut first", wishes(5, 8), 84, (), [5, 5, 9]),
        ("then the second", wishes(9, 8), 84, (), [7, 1, 9]),
        ("a part of a replica is a whole", wishes(5, 5), 83, (), [5, 4, 9]),
        ("not below the minimum", wishes(9, 8), 5, (), [1, 1, 9]),
        ("a held one isn't cut below what it has", wishes(5, (8, 6, Reason.HELD_STALE)), 74, (), [3, 6, 9]),
        ("a paused one counts as it is", wishes(9, (8, 8, Reason.PAUSED)), 109, (), [6, 8, 9]),
        ("an advised one counts as it is", wishes(9, (8, 4)), 89, ("api",), [6, 8, 9]),
    ],
)  # fmt: skip
def test_a_constraint_is_kept_by_cutting_in_its_order(name, plan, at_most, fixed, targets):
    found = within_constraints(plan, [pool(at_most)], LOWS, fixed)
    assert [item.target for item in found] == targets
    for before, after in zip(plan, found, strict=True):
        cut = after.target < before.target
        assert (after.reason is Reason.CONSTRAINT, after.bound_by) == (cut, "constraint pool" if cut else "")


@given(
    st.lists(st.integers(1, 30), min_size=3, max_size=3),
    st.lists(st.floats(0.1, 20), min_size=3, max_size=3),
    st.floats(1, 600),
)
def test_it_is_kept_whenever_the_minimums_fit_and_nobody_is_raised(targets, takes, at_most):
    names = ("web", "api", "db")
    plan = [decided(name, target) for name, target in zip(names, targets, strict=True)]
    both = [
        pool(at_most, names, **dict(zip(names, takes, strict=True))),
        pool(at_most / 2, names[::-1], web=1.0, api=2.0, db=3.0),
    ]
    found = within_constraints(plan, both, LOWS)
    assert all(1 <= after.target <= before.target for before, after in zip(plan, found, strict=True))
    for each in both:
        if sum(each.takes.values()) <= each.at_most:
            assert excess_of(each, {item.service: item for item in found}) <= 1e-6


def test_one_that_cant_be_kept_is_said_once_and_when_it_is_kept_again(caplog):
    pool_ = {"name": "database", "takes": {"web": 10, "api": 10}, "at_most": 50, "reduce": ["web"]}
    cluster = FakeCluster(names=("web", "api"), replicas={"web": 2, "api": 2})
    wanted = {"web": 9.0, "api": 6.0}
    policy = ScriptedPolicy(lambda _now, name: wanted[name], history_seconds=0.0)
    settings = make_settings(("web", "api"), guard_rails={**OPEN, "constraints": [pool_]})
    controller = Controller(cluster, policy, settings)
    with caplog.at_level(logging.WARNING):
        controller.tick()
        controller.tick()
        assert caplog.text.count("constraint database: 20 more than the 50 there are is taken") == 1
        wanted["api"] = 2.0
        controller.tick()
    assert cluster.replicas == {"web": 3, "api": 2} and "constraint database: kept again" in caplog.text
    assert controller.decisions()["reason"].tolist()[-2:] == ["constraint", "forecast"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reduce": ["db"]}, "reduce: 'db' takes nothing"),
        ({"reduce": ["web", "web"]}, "named twice"),
        ({"takes": {}}, "at least 1 item"),
        ({"takes": {"web": 0}}, "greater than 0"),
    ],
)
def test_a_constraint_that_means_nothing_is_refused(changes, message):
    given = {"name": "pool", "takes": {"web": 1}, "at_most": 5, "reduce": ["web"], **changes}
    with pytest.raises(ValidationError, match=message):
        Constraint.model_validate(given)
    with pytest.raises(ValidationError, match=r"constraints\[0\].takes: unknown service 'ghost'"):
        ghost = {"name": "pool", "takes": {"ghost": 1}, "at_most": 5, "reduce": []}
        make_settings(("web",), guard_rails={"constraints": [ghost]})
