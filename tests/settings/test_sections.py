"""Values that contradict each other or name what isn't there are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from deepscaler import settings as sections_of
from deepscaler.settings import (
    RHO_MAX,
    App,
    Collect,
    Comparison,
    Explore,
    Floor,
    GuardRails,
    Lease,
    Load,
    Process,
    Prometheus,
    Section,
    Settings,
)
from deepscaler.settings.base import Share

APP = {"name": "shop", "services": {"web": None}, "entries": [{"name": "GET /", "service": "web"}]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forced": {"web": 0}}, "outside the service's"),
        ({"forced": {"web": 31}}, "outside the service's"),
        ({"forced": {"web": 4}, "per_service": {"web": (1, 3)}}, "outside the service's"),
        ({"forced": {"web": 4}, "paused": ["web"]}, "choose one"),
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas 3 > max_replicas 2"),
        ({"per_service": {"web": (3, 2)}}, r"per_service\.web: needs 1 <= min <= max, found \[3, 2\]"),
    ],
)
def test_guard_rails_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GuardRails.model_validate(settings)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (
            App,
            {**APP, "entries": [{"name": "GET /", "service": "wbe"}]},
            "names unknown service 'wbe'; services: web",
        ),
        (Lease, {"renew_deadline": 20.0}, "needs retry_period < renew_deadline < duration"),
        (Prometheus, {"token": "a", "token_file": "b"}, "found token and token_file"),
        (Comparison, {"seeds": [1, 1, 1]}, "1 stands there twice"),
        (Explore, {"target": (0.9, 0.3)}, r"target: needs 0 < low <= high, found \[0\.9, 0\.3\]"),
        (Process, {"rho_max": "auto "}, "Input should be 'auto'"),
        (Process, {"rho_max": 1.0}, "less than 1"),
        (Floor, {"rho_max": "fitted"}, "Input should be 'auto'"),
        (Floor, {"rho_max": 0}, "greater than 0"),
        (Process, {"label": "feature"}, "allowed are required, observed, offered, feature:<name>"),
        (Process, {"split": (0.6, 0.2, 0.3)}, "three shares that add up to 1"),
        (Process, {"split": (0.0, 0.5, 0.5)}, "the first two above 0"),
        (Process, {"split": (0.8, 0.0, 0.2)}, "validation chooses the epoch that is kept"),
        (Process, {"features": ["cpu", "latency"]}, "latency is none of pod, cpu, mem, res, req"),
        (Process, {"split": (0.5, 0.5)}, "Field required"),
        (Collect, {"start": "noon"}, "not an ISO 8601 time such as 2026-01-05T00:00:00Z"),
        (Collect, {"end": "9999-12-31T23:59:59Z"}, "a time from 1970 to 8999 is expected"),
        (sections_of.Testbed, {"start": "9999-12-31T23:59:00Z"}, "a time from 1970 to 8999 is expected"),
        (sections_of.Testbed, {"start": "9999-12-31T23:59:00-14:00"}, "a time from 1970 to 8999 is expected"),
        (sections_of.Testbed, {"start": "0001-01-01T00:00:00+14:00"}, "a time from 1970 to 8999 is expected"),
        (Collect, {"start": 1767571200}, "valid string"),
        (Collect, {"queries": {"cpu": {"query": "", "label": "pod"}}}, "at least 1 character"),
        (Collect, {"calls_query": {"query": "up", "label": " "}}, "match pattern"),
        (Process, {"boot_seconds": {"web": -3.0}}, "greater than or equal to 0"),
        (GuardRails, {"quota_cores": 0.0}, "greater than 0"),
        (sections_of.Testbed, {"seed": -1}, "greater than or equal to 0"),
        (Load, {"course": [(60.0, 0.5), (30.0, 1.0)]}, "course: 30 s stands behind 60 s; give it in time"),
        (
            Load,
            {"mix": [{"after_seconds": 9.0, "weights": {}}, {"after_seconds": 5.0, "weights": {}}]},
            "mix: 5 s stands behind 9 s",
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_a_section_refuses_what_makes_no_sense(
    section: type[Section], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        section.model_validate(values)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"scale": {"static_replicas": {"wbe": 2}}},
            r"scale\.static_replicas: unknown service 'wbe'; services: web",
        ),
        (
            {"scale": {"guard_rails": {"paused": ["wbe"]}}},
            r"scale\.guard_rails\.paused: unknown service 'wbe'",
        ),
        ({"process": {"boot_seconds": {"wbe": 2.0}}}, r"process\.boot_seconds: unknown service 'wbe'"),
        ({"collect": {"step": 7.0}}, r"process\.step 60 is not a multiple of collect\.step 7"),
    ],
)
def test_sections_that_dont_fit_each_other_are_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate({"app": APP, **sections})


def test_a_highest_utilisation_is_a_number_or_left_to_the_fit() -> None:
    assert Floor().stated_rho_max == Floor().fixed_rho_max == Process().fixed_rho_max == RHO_MAX == 0.9
    assert Floor(rho_max="auto").stated_rho_max is None and Floor(rho_max="auto").fixed_rho_max == RHO_MAX
    assert Floor(rho_max=0.8).stated_rho_max == Process(rho_max=0.8).fixed_rho_max == 0.8
    assert Process(rho_max="auto").fixed_rho_max == RHO_MAX


BED = {"load": {"shape": "mixed", "low": 150.0, "high": 600.0, "period": 900.0}}


@pytest.mark.parametrize(
    ("own", "played"),
    [
        ({"shape": "square"}, ("square", 150, 600, 900)),
        ({"high": 700.0}, ("mixed", 150, 700, 900)),
        ({"shape": "square", "low": 25.0, "high": 95.0}, ("square", 25, 95, 900)),
        ({}, ("mixed", 150, 600, 900)),
        ({"shape": "trace.csv.gz#2026-01-05", "step": 60.0}, ("trace.csv.gz#2026-01-05", 25, 95, 700)),
    ],
)
def test_what_a_load_of_runs_doesnt_name_is_that_of_the_testbed(
    own: dict[str, Any], played: tuple[object, ...]
) -> None:
    settings = Settings.model_validate({"app": APP, "scale": {"load": own}, "testbed": BED})
    load = settings.scale.load
    assert (load.shape, load.low, load.high, load.period) == played
    assert Settings.model_validate(settings.model_dump(mode="json")).scale.load == load


def test_a_wrong_load_of_the_testbed_is_refused_where_it_stands() -> None:
    bed = {"load": {"low": -1.0}}
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"app": APP, "scale": {"load": {"shape": "square"}}, "testbed": bed})
    assert [one["loc"] for one in caught.value.errors()] == [("testbed", "load", "low")]


def test_a_load_without_one_of_the_testbed_has_the_defaults() -> None:
    settings = Settings.model_validate({"app": APP, "scale": {"load": {"shape": "square"}}})
    assert settings.scale.load == Load(shape="square")


@pytest.mark.parametrize(
    ("process", "collect", "fits"),
    [
        (0.3, 0.1, True),
        (60.0, 15.0, True),
        (4.2, 0.7, True),
        (0.35, 0.1, False),
        (10.0, 15.0, False),
        (0.1, 15.0, False),
    ],
)
def test_a_step_of_the_network_is_a_multiple_of_that_of_the_samples(
    process: float, collect: float, fits: bool
) -> None:
    document = {"app": APP, "process": {"step": process}, "collect": {"step": collect}}
    if fits:
        assert Settings.model_validate(document).process.step == process
    else:
        with pytest.raises(ValidationError, match="not a multiple"):
            Settings.model_validate(document)


def test_types_are_strict_and_values_stay_as_they_are() -> None:
    with pytest.raises(ValidationError, match="valid integer"):
        GuardRails.model_validate({"max_replicas": "30"})
    with pytest.raises(ValidationError, match="frozen"):
        GuardRails().max_replicas = 5  # type: ignore[misc]


def test_a_service_may_stand_without_keys() -> None:
    assert App.model_validate(APP).services["web"].scaled


def test_a_share_is_from_0_to_1() -> None:
    class Part(Section):
        share: Share

    assert Part.model_validate({"share": 1.0}).share == 1
    with pytest.raises(ValidationError):
        Part.model_validate({"share": 1.01})


# ------------------------------------------------------------------------------------------------------ modes
def scale_settings(**scale: Any) -> Settings:
    return Settings.model_validate({"app": APP, "scale": scale})


@pytest.mark.parametrize(
    ("scale", "mode", "dry_run"),
    [
        ({}, "act", False),
        ({"mode": "shadow"}, "shadow", True),
        ({"dry_run": True}, "shadow", True),
        ({"dry_run": False}, "act", False),
        ({"dry_run": True, "mode": "shadow"}, "shadow", True),
        ({"dry_run": False, "mode": "advise"}, "advise", False),
        ({"mode": "shadow", "modes": {"web": "advise"}}, "advise", False),
        ({"mode": "act", "modes": {"web": "shadow"}}, "shadow", False),
        ({"mode": "shadow", "modes": {"web": "shadow"}}, "shadow", True),
    ],
)
def test_a_mode_and_a_dry_run_mean_one_thing(scale: dict[str, Any], mode: str, dry_run: bool) -> None:
    settings = scale_settings(**scale)
    assert (settings.scale.mode_of("web"), settings.scale.dry_run) == (mode, dry_run)
    assert settings.modes == {mode}
    again = Settings.model_validate(settings.model_dump(mode="json"))  # as run.json keeps it
    assert again.scale == settings.scale


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ({"dry_run": True, "mode": "act"}, "dry_run: true and mode: act mean different things"),
        ({"dry_run": False, "mode": "shadow"}, "dry_run: false and mode: shadow mean different things"),
        ({"dry_run": True, "modes": {"web": "act"}}, "modes: {'web': 'act'} mean different things"),
        ({"mode": "watch"}, "'shadow', 'advise' or 'act'"),
        ({"modes": {"api": "act"}}, "scale.modes: unknown service 'api'"),
    ],
)
def test_modes_that_contradict_a_dry_run_are_refused(scale: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        scale_settings(**scale)
