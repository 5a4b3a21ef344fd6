"""What decisions cost on replicas alone, and when a new bundle takes the old one's place."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.bundles import write_bundle, write_scenario_bundle
from helpers.model_samples import make_dataset

from deepscaler.errors import BundleError, DataError
from deepscaler.labels.demand import DemandModel
from deepscaler.labels.rule import replicas_within
from deepscaler.learning import gate
from deepscaler.learning.bundle import load_bundle
from deepscaler.learning.dataset import Dataset, Normalizer
from deepscaler.learning.decisions import Decided, decide_over
from deepscaler.learning.gate import judge_candidate
from deepscaler.learning.played_plans import play_plans
from deepscaler.planning.plan import Prices
from deepscaler.settings import GateSettings

NAMES = ("web", "api", "db")
PRICES = Prices(100.0, 180.0)
ALL = 10**6


def constant(path, replicas, dataset, **meta):
    """A bundle that wants so many replicas of each service, whatever it sees."""
    about = {"app": "toy", "base_step": 60.0, "lead": 60.0, **meta}
    names, features = about.pop("services", dataset.services), dataset.meta["features"]
    return write_bundle(path, names, [replicas] * len(names), features=features, **about)


@pytest.fixture(scope="module")
def dataset():
    torch.set_num_threads(1)
    return make_dataset()


def test_costs_of_constant_replicas_are_those_on_paper(dataset, tmp_path):
    bundle = load_bundle(constant(tmp_path / "a.pt", 6, dataset))
    decided = decide_over(bundle, dataset, "test", PRICES, ALL)
    labels = dataset.labels[decided.rows + 1].astype(float)
    assert decided.held == pytest.approx(np.full(len(labels), 5 * 6 * 60.0))
    assert decided.short == pytest.approx(60 * np.maximum(labels - 6, 0).sum(axis=1))
    assert decided.excess == pytest.approx(60 * np.maximum(6 - labels, 0).sum(axis=1))
    assert decided.needed == pytest.approx(60 * labels.sum(axis=1))
    assert not decided.started.any()
    assert decided.costs(PRICES) == pytest.approx(decided.held + 100 * decided.short)
    assert decided.shares()["deficient"] == pytest.approx(decided.short.sum() / decided.needed.sum())


@pytest.mark.parametrize("replicas", [2.3, 2.4])
def test_a_perfect_forecast_of_observed_replicas_neither_lacks_nor_wastes(replicas, dataset, tmp_path):
    labels = np.full_like(dataset.labels, replicas)
    observed = replace(dataset, labels=labels, meta={**dataset.meta, "label": "observed"})
    bundle = load_bundle(constant(tmp_path / "a.pt", replicas, dataset, label="observed"))
    decided = decide_over(bundle, observed, "test", PRICES, ALL)
    assert decided.held.all() and not decided.short.any() and not decided.excess.any()


def test_the_newest_decisions_are_judged_and_services_are_matched_by_name(dataset, tmp_path):
    turned = {**dataset.meta, "services": ["pay", "web", "mail", "db", "cart"]}
    paths = (
        constant(tmp_path / "a.pt", 6, replace(dataset, meta=turned)),
        constant(tmp_path / "b.pt", 6, dataset),
    )
    ours, theirs = (decide_over(load_bundle(path), dataset, "test", PRICES, 100) for path in paths)
    assert len(ours.rows) == 100 and ours.rows[-1] == len(dataset.times) - 2
    assert ours.costs(PRICES) == pytest.approx(theirs.costs(PRICES))


def judged(candidate, running, dataset, **settings):
    return judge_candidate(candidate, running, dataset, GateSettings.model_validate(settings))


def test_a_worse_bundle_is_refused_and_a_better_one_taken(dataset, tmp_path):
    """8 replicas are nearly always enough; 5 is the mean of the need, and a shortage costs a hundredfold."""
    good, poor = constant(tmp_path / "good.pt", 8, dataset), constant(tmp_path / "poor.pt", 5, dataset)
    taken, refused = judged(good, poor, dataset), judged(poor, good, dataset)
    assert taken.taken and not refused.taken
    assert taken.facts["interval_percent"][1] < 0 < refused.facts["interval_percent"][0]
    assert "no gain by more than noise" in refused.why and "(interval +" in refused.why
    costs = refused.facts["core_hours"]
    assert costs["candidate"]["short"] > costs["running"]["short"]
    assert json.dumps(refused.to_dict())


def test_what_is_better_by_no_more_than_noise_is_refused(dataset, tmp_path):
    """Both are right for half of the time, at random."""
    rng = np.random.default_rng(1)
    labels = np.where(rng.random(dataset.labels.shape) < 0.5, 4.0, 8.0).astype(np.float32)
    fair = replace(dataset, labels=labels)
    one, other = constant(tmp_path / "a.pt", 4, dataset), constant(tmp_path / "b.pt", 8, dataset)
    prices = {"shortage": 2.0, "start": 0.0}  # on average 4 + 2 x 2 and 8
    for candidate, running in ((one, other), (other, one)):
        assert not judged(candidate, running, fair, prices=prices).taken


def test_of_bundles_that_are_no_better_as_few_are_taken_as_the_level_says(dataset, monkeypatch):
    """The interval of 95 % lies below 0 by chance in 2.5 of 100 cases, with the fewest blocks (8), too."""
    rng, rows, zero = np.random.default_rng(1), np.arange(240), np.zeros(240)
    files = {"new": SimpleNamespace(sha256="a"), "old": SimpleNamespace(sha256="b")}
    monkeypatch.setattr(gate, "read_bundle_file", files.get)
    monkeypatch.setattr(gate, "load_bundle", lambda source: SimpleNamespace(meta={"step": 60.0}))
    monkeypatch.setattr(
        gate,
        "decide_over",
        lambda *asked: Decided(rows, 100 + rng.normal(size=len(rows)), zero, zero, zero, zero),
    )
    taken = sum(judged("new", "old", dataset).taken for _ in range(400))
    assert taken / 400 == pytest.approx(0.025, abs=0.02)


def test_too_short_a_window_tells_nothing(dataset, tmp_path):
    good, poor = constant(tmp_path / "good.pt", 8, dataset), constant(tmp_path / "poor.pt", 5, dataset)
    verdict = judged(good, poor, dataset, decisions=100)
    assert (
        not verdict.taken and "3 blocks of 1800 s, too few" in verdict.why and "collect longer" in verdict.why
    )


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"services": ["a", "b", "c", "d", "e"]}, "trained for services"),
        ({"step": 120.0}, "trained for step 120.0, the data has 60.0"),
        ({"label": "feature:req"}, "trained for label feature:req"),
    ],
)
def test_a_running_bundle_that_isnt_comparable_stays_and_it_is_said_what_to_do(
    meta, message, dataset, tmp_path
):
    good, other = constant(tmp_path / "a.pt", 8, dataset), constant(tmp_path / "b.pt", 8, dataset, **meta)
    verdict = judged(good, other, dataset)
    assert not verdict.taken and message in verdict.why and "without --gate" in verdict.why
    with pytest.raises(BundleError, match=r"b\.pt: trained for"):
        judged(other, good, dataset)


def test_the_first_bundle_and_one_in_the_place_of_a_broken_one_are_taken(dataset, tmp_path):
    good = constant(tmp_path / "a.pt", 8, dataset)
    assert judged(good, tmp_path / "none.pt", dataset).taken
    (tmp_path / "broken.pt").write_bytes(b"broken")
    assert judged(good, tmp_path / "broken.pt", dataset).taken
    assert not judged(good, good, dataset).taken


def test_without_a_test_split_there_is_nothing_to_judge_on(dataset, tmp_path):
    good, poor = constant(tmp_path / "good.pt", 8, dataset), constant(tmp_path / "poor.pt", 5, dataset)
    with pytest.raises(DataError, match=r"no test split to judge on; set process\.split"):
        judged(good, poor, replace(dataset, bounds=(1200, len(dataset.times))))


# ------------------------------------------------------------------------------------------ over scenarios
def demand(seconds=0.1):
    ones = np.ones(3)
    return DemandModel(
        services=NAMES, idle_cores=0 * ones, demand_seconds=seconds * ones, limit_cores=ones,
        boot_seconds=30 * ones, entries=("web",), visits=ones[None], external_share=np.ones(1),
        sla_seconds=0.2, think_seconds=None, rho_max=0.9, sla_margin=0.75, response=None, quality={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def offered():
    """A load that climbs and falls every hour: 20 to 60 requests per second."""
    return of_rates(40 + 20 * np.sin(2 * np.pi * np.arange(2400) / 240))


@pytest.fixture(scope="module")
def wandering():
    """A load that doesn't repeat."""
    walk = np.cumsum(np.random.default_rng(1).normal(0, 1, 2400))
    return of_rates(40 + 20 * walk / np.abs(walk).max())


def of_rates(rates):
    """A data set of three services with these rates, and some noise."""
    rows = len(rates)
    rates = rates + np.random.default_rng(0).normal(0, 1, rows)
    req = np.repeat(rates[:, None], 3, axis=1)
    series = np.stack([req, np.full(req.shape, 0.05)], axis=2).astype(np.float32)
    labels = req.astype(np.float32)
    meta = {
        **{"app": "shop", "services": list(NAMES), "features": ["req", "res"], "step": 15.0},
        **{"base_step": 15.0, "window": 4, "horizon": 8, "label": "offered", "lead": 0.0},
        "demand": demand().to_dict(),
    }
    statistics = Normalizer.fit(series[:1000], labels[:1000])
    times = 15.0 * np.arange(rows)
    return Dataset(times, series, labels, (1000, 1400), statistics, meta, {})


def test_plans_follow_the_load_and_pods_take_their_time(offered, tmp_path):
    bundle = load_bundle(write_scenario_bundle(tmp_path / "a.pt", demand().to_dict(), rises=0.05))
    decided = decide_over(bundle, offered, "test", PRICES, 120)
    needed = replicas_within(demand(), offered.labels[decided.rows + 1], np.ones(3))
    assert decided.needed == pytest.approx(15.0 * needed.sum(axis=1))
    assert (decided.held > 0).all() and decided.started.sum() > 5  # it climbs once in an hour
    balance = decided.held - decided.needed
    assert (balance >= -decided.short - 1e-6).all()
    assert decided.shares()["deficient"] < 0.05 and decided.shares()["excess"] < 0.6


def test_over_scenarios_too_a_worse_bundle_is_refused_and_a_better_one_taken(offered, tmp_path):
    """The one believes that requests cost five times what they cost."""
    good = write_scenario_bundle(tmp_path / "good.pt", demand().to_dict(), rises=0.05)
    poor = write_scenario_bundle(tmp_path / "poor.pt", demand(0.5).to_dict(), rises=0.05)
    gate = {"decisions": 96, "block_seconds": 180}
    assert judged(good, poor, offered, **gate).taken
    assert not judged(poor, good, offered, **gate).taken


def test_what_a_bundle_recalls_of_its_training_counts_beside_the_live_history(wandering, tmp_path):
    """The one recalls that the load stayed where it was, the other that it became five times as much."""
    good = write_scenario_bundle(tmp_path / "good.pt", demand().to_dict(), rises=0.05, followed=0.0)
    poor = write_scenario_bundle(tmp_path / "poor.pt", demand().to_dict(), rises=0.05, followed=4.0)
    gate = {"decisions": 96, "block_seconds": 180}
    better, worse = judged(good, poor, wandering, **gate), judged(poor, good, wandering, **gate)
    assert better.facts["change_percent"] < -3 and worse.facts["change_percent"] > 3 and not worse.taken


def test_a_bundle_that_knows_nothing_is_carried_by_the_live_history(wandering, tmp_path):
    """Its quantiles spread absurdly wide, which is found out on trial: soon others decide."""
    bundle = load_bundle(write_scenario_bundle(tmp_path / "a.pt", demand().to_dict(), rises=3.0))
    ends = np.arange(1600, 1840)
    played = play_plans(bundle, wandering, ends, PRICES)
    assert played.led.keys() - {"bootstrap and network"}
    late = np.nansum(played.held[-60:] - played.needed[-60:]) / np.nansum(played.needed[-60:])
    assert late < 0.6


def test_gaps_in_the_rates_hold_the_last_value_and_unknown_needs_cost_nothing(offered, tmp_path):
    labels = offered.labels.copy()
    labels[2300:2304] = np.nan
    bundle = load_bundle(write_scenario_bundle(tmp_path / "a.pt", demand().to_dict(), rises=0.05))
    decided = decide_over(bundle, replace(offered, labels=labels), "test", PRICES, 120)
    inside = (decided.rows >= 2299) & (decided.rows < 2303)
    assert inside.sum() == 4 and not decided.held[inside].any() and (decided.held[~inside] > 0).all()


def test_a_decision_knows_nothing_of_rates_that_come_later(offered, tmp_path):
    """The first hours are unknown: what is decided in them is the same whatever comes after."""
    bundle = load_bundle(write_scenario_bundle(tmp_path / "a.pt", demand().to_dict(), rises=0.05))
    ends, held = np.arange(1400, 1440), []
    for factor in (1.0, 3.0):
        labels = offered.labels.copy() * factor
        labels[:1450] = np.nan
        held.append(play_plans(bundle, replace(offered, labels=labels), ends, PRICES).held)
    np.testing.assert_array_equal(*held)
