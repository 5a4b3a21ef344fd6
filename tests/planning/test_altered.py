"""What ablations take from scenarios."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.fakes import make_settings

from deepscaler.errors import SettingsError
from deepscaler.planning.altered import AS_THEY_ARE, Altered
from deepscaler.planning.scenarios import Scenarios
from deepscaler.settings import load_settings

COURSES = np.arange(40.0)[:, None, None] + np.linspace(0, 0.9, 20)[None, :, None] + np.array([0.0, 100.0])
FOUND = Scenarios(
    COURSES, np.full(40, 1 / 40), "bootstrap and network", 0.25, (("bootstrap", 10), ("network", 30))
)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def test_nothing_changes_unless_it_is_asked() -> None:
    assert AS_THEY_ARE(FOUND) is FOUND


@pytest.mark.parametrize("surprise", [0.0, 1.0])
def test_the_surprise_of_every_source_is_replaced(surprise: float) -> None:
    altered = Altered(surprise=surprise)(FOUND)
    assert altered.surprise == surprise and altered.rates is FOUND.rates


def test_services_apart_keep_their_courses_but_not_each_other() -> None:
    rates = Altered(apart="services")(FOUND).rates
    np.testing.assert_array_equal(np.sort(rates, axis=0), np.sort(COURSES, axis=0))
    assert correlation(COURSES[:, 0, 0], COURSES[:, 0, 1]) == pytest.approx(1)
    assert abs(correlation(rates[10:, 0, 0], rates[10:, 0, 1])) < 0.5
    assert correlation(rates[:, 0, 0], rates[:, -1, 0]) == pytest.approx(1)


def test_steps_apart_break_what_follows_on_what() -> None:
    rates = Altered(apart="steps")(FOUND).rates
    np.testing.assert_array_equal(np.sort(rates, axis=0), np.sort(COURSES, axis=0))
    assert abs(correlation(rates[10:, 0, 0], rates[10:, 1, 0])) < 0.5


def test_sources_keep_their_own_scenarios_and_the_caller_his() -> None:
    before = COURSES.copy()
    rates = Altered(apart="steps")(FOUND).rates
    assert rates[:10, :, 0].max() < 10.95 <= 10.95 + rates[10:, :, 0].min()
    np.testing.assert_array_equal(COURSES, before)
    np.testing.assert_array_equal(Altered(apart="steps")(FOUND).rates, rates)


def test_the_settings_reach_the_plan_and_nonsense_is_refused() -> None:
    assert make_settings().scale.plan.surprise is None
    with pytest.raises(SettingsError, match="apart"):
        load_settings("config/boutique.yaml", ["scale.plan.apart=all"])
