"""A trouble is logged when it begins, changes and ends, not each time it is seen."""

import json
import logging
import re
import subprocess
import sys

import pytest
from helpers.paths import ROOT

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


TALK = """
import logging
from deepscaler.logs import start_logging
start_logging(%r)
logging.getLogger("deepscaler.x").info("two lines:\\nweb is \u00fcp")
logging.getLogger("urllib3.connectionpool").warning("Retrying (Retry(total=0)) after connection broken")
try:
    raise ValueError("odd")
except ValueError:
    logging.getLogger("deepscaler.x").exception("tick failed")
"""


def logged(form: str, level: str = "INFO") -> list[str]:
    """What a process that logs in this form writes to stderr."""
    environment = {"DEEPSCALER_LOG": level, "PYTHONIOENCODING": "utf-8", "TZ": "America/New_York"}
    done = subprocess.run(
        [sys.executable, "-c", TALK % form],
        capture_output=True,
        encoding="utf-8",
        cwd=ROOT,
        env=environment,
        timeout=60,
        check=True,
    )
    return done.stderr.splitlines()


def test_lines_are_dated_in_utc_and_libraries_retries_are_left_out() -> None:
    lines = logged("text")
    dated = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z (INFO|ERROR) deepscaler\.x: ")
    assert dated.match(lines[0]) and [line for line in lines if dated.match(line)][1].endswith("tick failed")
    assert "ValueError: odd" in lines and not any("Retrying" in line for line in lines)
    assert any("Retrying" in line for line in logged("text", "DEBUG"))


def test_json_lines_are_one_object_each() -> None:
    first, second = map(json.loads, logged("json"))
    assert (first["level"], first["logger"], first["message"]) == (
        "INFO",
        "deepscaler.x",
        "two lines:\nweb is \u00fcp",
    )
    assert first["time"].endswith("Z") and "traceback" not in first
    assert second["message"] == "tick failed" and "ValueError: odd" in second["traceback"]
