"""The study of budgets: where a closed loop comes to rest, pods that start, and the loads."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.fakes import make_settings

from deepscaler.labels.demand import DemandModel, Response
from testbed.experiments.budget_study import Cell, Pods, asked, offered_users, served, table

FIT = DemandModel(
    services=("web",),
    idle_cores=np.zeros(1),
    demand_seconds=np.array([0.01]),
    limit_cores=np.array([0.2]),
    boot_seconds=np.array([30.0]),
    entries=("web",),
    visits=np.ones((1, 1)),
    external_share=np.ones(1),
    sla_seconds=0.2,
    think_seconds=1.0,
    rho_max=0.9,
    sla_margin=0.75,
    response=Response(0.05, 1.0, "shared"),
    quality={},
)
"""One server of 20 requests per second: R = 0.05 + 0.05 rho / (1 - rho)."""


def test_a_closed_loop_rests_where_users_and_responses_agree():
    rates, response = served(FIT, 12.0, np.array([1]))
    assert rates[0] == pytest.approx(12.0 / (1.0 + response))
    rho = rates[0] / 20.0
    assert response == pytest.approx(0.05 + 0.05 * rho / (1 - rho), rel=1e-3)


def test_more_users_than_pods_can_serve_wait_instead_of_being_served():
    rates, response = served(FIT, 100.0, np.array([1]))
    assert rates[0] <= 20.0
    assert response > 20 * FIT.sla_seconds
    assert served(FIT, 100.0, np.array([10]))[1] < FIT.sla_seconds


def test_pods_start_late_and_those_that_start_are_stopped_first():
    pods = Pods([0.0, 0.0], boot=30.0)
    pods.scale(4, 100.0)
    assert pods.ready == [0.0, 0.0, 130.0, 130.0]
    pods.scale(3, 110.0)
    assert pods.ready == [0.0, 0.0, 130.0]
    pods.scale(1, 120.0)
    assert pods.ready == [0.0]


@pytest.mark.parametrize("load", ["square", "mixed", "bursts", "drift"])
def test_the_seed_draws_the_load_and_nothing_else_does(load):
    settings = make_settings()
    drawn = [offered_users(settings, Cell(load, 0.01, None, seed), 2) for seed in (1000, 1000, 1001)]
    assert len(drawn[0]) == 2 * 240
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_bursts_of_a_drifting_load_grow_and_shrink():
    settings = make_settings()
    users = offered_users(settings, Cell("drift", 0.01, None, 1000), 72)
    calm, wild = users[: 240 * 8], users[240 * 26 : 240 * 34]  # the highest are after 30 hours
    assert np.quantile(wild, 0.99) > np.quantile(calm, 0.99) + 20


def test_a_cell_asks_for_its_share_or_its_price():
    settings = make_settings(budget={"share": 0.5, "spending": 3.0})
    kept = asked(settings, Cell("square", 0.02, None, 1000)).scale
    assert (kept.budget.share, kept.budget.spending) == (0.02, 3.0)
    fixed = asked(settings, Cell("square", None, 7.0, 1000)).scale
    assert (fixed.budget, fixed.prices.shortage, fixed.prices.start) == (None, 7.0, 180.0)


def test_the_table_has_a_line_per_cell():
    row = {"load": "square", "asked": 0.01, "fixed": None, "obtained": 0.012, "worst_day": 0.02}
    row.update(cores=4.2, price=12.0, note="kept")
    lines = table([row, {**row, "asked": None, "fixed": 5.0, "note": ""}])
    assert len(lines) == 3
    assert "1 %" in lines[1]
    assert "price 5" in lines[2]
