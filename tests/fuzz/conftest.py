"""Fuzzing: how many examples each parser gets, and that they are the same ones each time.

`make fuzz` runs it. `DEEPSCALER_FUZZ_EXAMPLES=50000 make fuzz` tries more, and others at each run.
"""

import logging
import os

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = "DEEPSCALER_FUZZ_EXAMPLES"
settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get(EXAMPLES, "2000")),
    derandomize=EXAMPLES not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    """What is logged of broken inputs isn't wanted; formatting it is a part of the test."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    yield
    root.setLevel(level)
