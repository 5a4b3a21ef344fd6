"""A trouble is logged when it begins, changes and ends, not each time it is seen."""

import logging

import pytest

from deepscaler.logs import OnChange


def test_a_trouble_is_told_once_again_when_it_changes_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    changes = OnChange(logging.getLogger("test"), logging.ERROR)
    changes.well("pods")
    for text in ("pods: 403", "pods: 403", "pods: 500"):
        changes.trouble("pods", text)
        assert "pods" in changes and "quota" not in changes
    changes.trouble("quota", "quota: 5 % used")
    changes.well("pods")
    changes.well("pods")
    assert "pods" not in changes
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "pods: 403"),
        ("ERROR", "pods: 500"),
        ("ERROR", "quota: 5 % used"),
        ("WARNING", "pods: well again"),
    ]


def test_a_trouble_that_comes_back_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    changes = OnChange(logging.getLogger("test"))
    for _ in range(2):
        changes.trouble("keda", "keda: paused")
        changes.well("keda")
    assert [record.getMessage() for record in caplog.records] == ["keda: paused", "keda: well again"] * 2


def test_the_end_of_a_trouble_can_have_words_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    changes = OnChange(logging.getLogger("test"))
    changes.well("web", "web: decided again")
    changes.trouble("web", "web: stays at 4")
    changes.well("web", "web: decided again")
    assert [record.getMessage() for record in caplog.records] == ["web: stays at 4", "web: decided again"]
