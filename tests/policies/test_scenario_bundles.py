"""`deepscaler` and its kin over a bundle of scenarios: what they plan, and what they refuse."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.bundles import write_bundle, write_scenario_bundle
from helpers.fakes import START, make_settings

from deepscaler.cluster import Workload
from deepscaler.errors import BundleError
from deepscaler.labels.demand import DemandModel
from deepscaler.learning.bundle import load_bundle, save_bundle
from deepscaler.learning.forecaster import load_forecaster
from deepscaler.panel import MetricPanel
from deepscaler.policies.base import Observation, Reason
from deepscaler.policies.registry import make_policy
from model.analogs import Moments

NAMES = ("web", "api", "db")
STEP = 15.0


def demand() -> DemandModel:
    """One core per replica, 0.1 s per request, one visit each per request at web."""
    ones = np.ones(3)
    return DemandModel(
        services=NAMES, idle_cores=0 * ones, demand_seconds=0.1 * ones, limit_cores=ones,
        boot_seconds=30 * ones, entries=("web",), visits=ones[None], external_share=np.ones(1),
        sla_seconds=0.2, think_seconds=None, rho_max=0.9, sla_margin=0.75, response=None, quality={},
    )  # fmt: skip


def panel(rates, response=0.05):
    times = START - STEP * np.arange(len(rates) - 1, -1, -1.0)
    req = np.broadcast_to(np.asarray(rates, float)[:, None], (len(rates), 3))
    values = np.stack([req, np.full(req.shape, response), np.full(req.shape, 0.5), 0 * req + 4], axis=2)
    return MetricPanel(times, NAMES, ("req", "res", "cpu", "pod"), values.astype(np.float32))


@pytest.fixture
def path(tmp_path):
    return write_scenario_bundle(tmp_path / "AdapGLQ.pt", demand().to_dict(), rises=0.25)


def settings_of(path, **scale):
    settings = make_settings(bundle=str(path), **scale)
    process = settings.process.model_copy(update={"features": ["req", "res"]})
    return settings.model_copy(update={"process": process})


def targets(policy, seen):
    workloads = [Workload(name, 5, 1.0, 0.5) for name in NAMES]
    found = policy.decide(Observation(START, seen, workloads, []))
    return {name: (item.target, item.reason) for name, item in found.items()}


def test_templates_travel_with_the_bundle(path):
    assert load_bundle(path).templates.shape == (3, 8, 3)


@pytest.mark.parametrize("rows", [2, 4, 60])
def test_scenarios_start_at_the_present_rate_and_open_up_as_the_forecast_does(path, rows):
    courses = load_forecaster(path).scenarios(panel([20.0] * rows), 3)
    assert courses.shape == (3, 8, 3)
    assert courses[1] == pytest.approx(np.full((8, 3), 20.0), rel=1e-3)
    assert (courses[2] > 30).all() and (courses[0] < 10).all()


def test_a_service_without_samples_has_no_scenarios(path):
    seen = panel([20.0] * 10)
    seen.values[:, 2, 0] = np.nan
    seen.values[:, :, 0][:, 0] = np.nan  # the entry too: nothing is known of anybody
    assert np.isnan(load_forecaster(path).scenarios(seen, 3)).all()


def test_the_plan_is_there_from_the_first_minute_and_prepares_for_what_may_come(path):
    policy = make_policy("deepscaler", settings_of(path))
    found = targets(policy, panel([20.0] * 4))  # 20 requests per second take 3 replicas, 40 take 5
    assert {reason for _, reason in found.values()} == {Reason.PLAN}
    assert all(4 <= target <= 6 for target, _ in found.values())
    assert policy.describe()["scenarios"] == {"network": {"made": 1, "failed": 0}}
    assert len(policy.describe()["bundle_sha256"]) == 64


def test_the_sources_are_tried_against_one_another_and_the_run_tells_who_led(path):
    policy = make_policy("deepscaler", settings_of(path))
    calm = panel([20.0] * 240)
    for tick in range(4):
        seen = replace(calm, times=calm.times + STEP * tick)
        policy.decide(Observation(START + STEP * tick, seen, [Workload(n, 5, 1.0, 0.5) for n in NAMES], []))
    told = policy.describe()["trials"]
    assert told["led"] == {"bootstrap and network": 4}
    assert told["cost_seconds"]["past"] < told["cost_seconds"]["together"]  # nothing came
    assert set(told["cost_seconds"]) == {"season", "together", "past", "day", "network"}


@pytest.fixture
def remembering(tmp_path):
    """A bundle whose training saw the load double after every moment."""
    return write_scenario_bundle(tmp_path / "M.pt", demand().to_dict(), rises=0.1, followed=1.0)


def test_what_followed_alike_moments_starts_at_the_present_rate(remembering):
    found = load_forecaster(remembering).analogs(panel([20.0] * 10), 3)
    assert found == pytest.approx(np.full((3, 8, 3), 40.0), rel=1e-3)


def test_the_analogs_are_mixed_with_the_live_past_and_the_quantiles_wait_for_proof(remembering):
    policy = make_policy("deepscaler", settings_of(remembering))
    policy.decide(Observation(START, panel([20.0] * 240), [Workload(n, 5, 1.0, 0.5) for n in NAMES], []))
    told = policy.describe()
    assert told["scenarios"] == {name: {"made": 1, "failed": 0} for name in ("network", "analogs")}
    assert told["trials"]["led"] == {"bootstrap and analogs": 1}
    ways = ("together", "together_with_network", "season", "past", "day", "network", "analogs")
    assert set(told["trials"]["cost_seconds"]) == set(ways)


def test_analogs_alone_prepare_for_what_followed_them(remembering):
    found = targets(make_policy("deepscaler_analogs", settings_of(remembering)), panel([20.0] * 4))
    assert {target for target, _ in found.values()} == {5}  # 40 requests per second


@pytest.mark.parametrize(
    "name", ["deepscaler", "deepscaler_nofloor", "deepscaler_network", "deepscaler_analogs"]
)
def test_each_goes_by_its_name(name, remembering):
    assert make_policy(name, settings_of(remembering)).name == name


@pytest.mark.parametrize(
    "moments",
    [
        Moments(torch.zeros(5), torch.zeros(5, 8, 3)),
        Moments(torch.zeros(5, 4), torch.zeros(4, 8, 3)),
        Moments(torch.zeros(5, 4), torch.zeros(5, 7, 3)),
        Moments(torch.zeros(0, 4), torch.zeros(0, 8, 3)),
        Moments(torch.zeros(5, 4), torch.full((5, 8, 3), torch.nan)),
    ],
)
def test_moments_of_another_shape_or_without_a_number_are_refused(moments, remembering, tmp_path):
    bundle = replace(load_bundle(remembering), moments=moments)
    with pytest.raises(BundleError):
        save_bundle(bundle, tmp_path / "bad.pt")
        load_bundle(tmp_path / "bad.pt")


def test_without_requests_the_plan_waits_and_the_floor_decides(path):
    found = targets(make_policy("deepscaler", settings_of(path)), panel([np.nan] * 10))
    assert {reason for _, reason in found.values()} <= {Reason.FLOOR, Reason.HELD_MISSING}


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("deepscaler_network", "required", "plans over scenarios: train it on process.label=offered"),
        ("deepscaler_analogs", "offered", "keeps no moments of its training"),
        ("deepscaler_quantile", "offered", "needs replicas .* name such a bundle in scale.quantile_bundle"),
    ],
)
def test_a_bundle_for_the_other_kind_of_decision_is_refused(name, label, message, path, tmp_path):
    chosen = path if label == "offered" else write_bundle(tmp_path / "r.pt", features=("req", "res"))
    with pytest.raises(BundleError, match=message):
        make_policy(name, settings_of(chosen))


def test_the_quantile_policy_takes_a_bundle_of_its_own(path, tmp_path):
    own = write_bundle(tmp_path / "r.pt", features=("req", "res"), demand=demand().to_dict())
    policy = make_policy("deepscaler_quantile", settings_of(path, quantile_bundle=str(own)))
    assert policy.name == "deepscaler_quantile" and policy.describe()["forecasts"]
