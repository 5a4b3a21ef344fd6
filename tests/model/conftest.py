"""Settings of the tests of networks."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """The same numbers on every machine."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
