"""A network as a source of scenarios: order of services, failures, and the mixture with the live past."""

import numpy as np
import pytest

from deepscaler.errors import BundleError
from deepscaler.learning.scenarios import NetworkScenarios
from deepscaler.panel import MetricPanel
from deepscaler.planning.scenarios import NETWORK_SURPRISE, Moment, Scenarios
from deepscaler.planning.sources import Together

PANEL = MetricPanel(np.arange(3.0), ("a", "b"), ("req",), np.ones((3, 2, 1), np.float32))
RATES = np.array([[1.0, 2.0], [3.0, 4.0]])


class Known:
    """A forecaster of known courses for services b and a."""

    services = ("b", "a")

    def __init__(self, courses, error=None):
        self.courses, self.error = np.asarray(courses, float), error

    def scenarios(self, panel, count):
        if self.error:
            raise self.error
        return self.courses[:count]

    def analogs(self, panel, count):
        return 2 * self.scenarios(panel, count)


class Fixed:
    def __init__(self, source, value, surprise=0.0, count=2):
        self.found = source and Scenarios(
            np.full((count, 4, 2), value), np.full(count, 1 / count), source, surprise
        )

    def scenarios(self, moment):
        return self.found


def test_courses_come_in_the_order_of_the_plan_and_hold_on_beyond_their_end():
    source = NetworkScenarios(Known([[[1, 10], [2, 20]]]), ("a", "b"), 4, 5)
    found = source.scenarios(Moment(0.0, RATES, PANEL))
    assert found.rates[0].tolist() == [[10, 1], [20, 2], [20, 2], [20, 2]]
    assert found.weights.tolist() == [1.0] and found.surprise == NETWORK_SURPRISE
    assert source.describe() == {"made": 1, "failed": 0}


def test_analogs_are_a_source_of_their_own():
    source = NetworkScenarios(Known([[[1, 10], [2, 20]]]), ("a", "b"), 2, 5, analogs=True)
    found = source.scenarios(Moment(0.0, RATES, PANEL))
    assert (found.source, found.rates[0].tolist()) == ("analogs", [[20, 2], [40, 4]])


def test_a_mixture_is_of_its_own_sources_and_of_what_is_known_where_they_know_nothing():
    sources = {"past": Fixed("past", 1.0), "network": Fixed("network", 2.0), "analogs": Fixed("analogs", 3.0)}
    mixtures = {"lean": ("past", "analogs"), "wide": ("past", "network"), "other": ("day",)}
    found = Together(Fixed(None, 1.0), sources, mixtures).ways(Moment(0.0, RATES, PANEL))
    assert [found[name].source for name in (*mixtures, "season")] == [
        "past and analogs", "past and network", "past and network and analogs", "past and analogs",
    ]  # fmt: skip
    sources |= {"network": Fixed(None, 2.0), "analogs": Fixed(None, 3.0)}
    found = Together(Fixed(None, 1.0), sources, mixtures).ways(Moment(0.0, RATES, PANEL))
    assert found["lean"] is found["wide"] is found["season"] is found["past"]


def test_a_service_that_the_network_cannot_foresee_keeps_its_present_rate():
    source = NetworkScenarios(Known([[[1, np.nan]]]), ("a", "b", "new"), 2, 5)
    found = source.scenarios(Moment(0.0, np.array([[7.0, 8.0, 9.0]]), PANEL))
    assert found.rates[0].tolist() == [[7, 1, 9], [7, 1, 9]]


@pytest.mark.parametrize("error", [BundleError("broken"), RuntimeError("torch"), ZeroDivisionError()])
def test_a_network_that_fails_in_whatever_way_leaves_the_plan_to_the_live_past(error):
    source = NetworkScenarios(Known([[[1, 1]]], error), ("a", "b"), 4, 5)
    assert {way.source for way in ways(None, Fixed("bootstrap", 5.0), source).values()} == {"bootstrap"}
    assert source.describe() == {"made": 0, "failed": 1}


def ways(season, past, network):
    together = Together(season or Fixed(None, 1.0), {"past": past, "network": network})
    return together.ways(Moment(0.0, RATES, PANEL))


@pytest.mark.parametrize(
    ("past", "network", "source", "count", "surprise"),
    [
        (Fixed("bootstrap", 1.0, 0.25), Fixed("network", 2.0, 0.75), "bootstrap and network", 4, 0.5),
        (Fixed(None, 1.0), Fixed("network", 2.0, 0.25), "network", 2, 0.25),
        (Fixed("bootstrap", 1.0, 0.25), Fixed(None, 2.0), "bootstrap", 2, 0.25),
        (Fixed("bootstrap", 1.0, 0.25), Fixed("network", np.nan), "bootstrap", 2, 0.25),
    ],
)
def test_all_that_know_something_share_the_weight(past, network, source, count, surprise):
    found = ways(None, past, network)["together"]
    assert (found.source, len(found.rates), found.surprise) == (source, count, surprise)
    assert found.weights.sum() == pytest.approx(1.0)


def test_each_source_has_the_same_weight_whatever_its_number():
    sources = {
        name: Fixed(name, 1.0, count=count) for name, count in (("past", 2), ("day", 3), ("network", 8))
    }
    found = Together(Fixed(None, 1.0), sources).ways(Moment(0.0, RATES, PANEL))["together"]
    assert {name: found.weights[part].sum() for name, part in found.by_source().items()} == pytest.approx(
        dict.fromkeys(sources, 1 / 3)
    )


def test_without_any_source_there_is_no_plan_and_a_season_alone_is_one():
    nothing = Fixed(None, 1.0)
    assert ways(None, nothing, nothing) == {}
    assert {way.source for way in ways(Fixed("season", 1.0), nothing, nothing).values()} == {"season"}


def test_a_season_is_one_way_and_where_a_source_knows_nothing_its_way_is_the_first_mixture():
    past, network = Fixed("bootstrap", 1.0), Fixed("network", 2.0)
    found = ways(Fixed("season", 1.0), past, network)
    assert [(name, way.source) for name, way in found.items()] == [
        ("together", "bootstrap and network"),
        ("season", "season"),
        ("past", "bootstrap"),
        ("network", "network"),
    ]  # fmt: skip
    found = ways(None, past, Fixed(None, 1.0))
    assert found["season"] is found["together"] is found["network"] is found["past"]
