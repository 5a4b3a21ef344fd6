"""What a test needs of the machine: programs that are installed, or a skip that says why."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import pytest

from deepscaler.errors import ClusterError

Made = TypeVar("Made")


def had(install: Callable[[], Made]) -> Made:
    """What `install` gives. In CI a missing program is a failure, elsewhere a skip that says why."""
    try:
        return install()
    except ClusterError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
