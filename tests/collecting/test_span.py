"""The span of time that a user asks to collect; more in tests/scripts/test_metrics_fetch.py."""

import pytest
from helpers.paths import ROOT

from deepscaler.artefacts import utc_seconds, utc_text
from deepscaler.collecting.span import asked_span, duration_seconds
from deepscaler.settings import load_settings


@pytest.mark.parametrize(
    ("text", "expected"), [("3600", 3600), ("90s", 90), ("1.5m", 90), ("12h", 43200), ("4d", 345600)]
)
def test_durations_have_units(text, expected):
    assert duration_seconds(text) == expected


@pytest.mark.parametrize("kind", ["testbed", "kubernetes"])
@pytest.mark.parametrize("how", ["--end", "collect.end"])
def test_an_end_with_last_is_a_span_of_that_length_wherever_it_is_asked_for(kind, how):
    end = "2026-01-20T00:00:00Z"
    given = [f"collect.end={end}"] if how == "collect.end" else []
    settings = load_settings(ROOT / "config/boutique.yaml", [f"cluster.kind={kind}", *given])
    found = asked_span(settings, None, None if given else end, "1h", utc_seconds("2026-02-01T00:00:00Z"))
    assert found == (utc_seconds(end) - 3600, utc_seconds(end))


@pytest.mark.parametrize(
    ("start", "end", "last", "expected"),
    [
        (None, None, None, (0, 7200)),
        (None, None, "1h", (0, 3600)),
        (None, 5400, None, (0, 5400)),
        (None, 5400, "1h", (1800, 5400)),
        (None, 5400, "2d", (0, 5400)),  # there is no time before
        (1800, None, "1h", (1800, 5400)),
        (900, 5400, "1h", (900, 5400)),
    ],
)
def test_on_the_testbed_time_begins_at_its_start(start, end, last, expected):
    settings = load_settings(ROOT / "config/boutique.yaml", ["cluster.kind=testbed", "collect.last=7200"])
    begin = utc_seconds(settings.testbed.start)
    given = [None if moment is None else utc_text(begin + moment) for moment in (start, end)]
    found = asked_span(settings, *given, last, 0.0)
    assert tuple(moment - begin for moment in found) == expected
