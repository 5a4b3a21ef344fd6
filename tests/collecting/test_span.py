"""The span of time that a user asks to collect; more in tests/scripts/test_metrics_fetch.py."""

import pytest

from deepscaler.collecting.span import duration_seconds


@pytest.mark.parametrize(
    ("text", "expected"), [("3600", 3600), ("90s", 90), ("1.5m", 90), ("12h", 43200), ("4d", 345600)]
)
def test_durations_have_units(text, expected):
    assert duration_seconds(text) == expected
