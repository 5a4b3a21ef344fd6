"""What the orchestrator says of the services."""

import json

import pytest

from deepscaler.errors import DataError
from deepscaler.labels.facts import read_facts


def test_facts_fall_back_to_requests_overrides_and_a_stated_guess(tmp_path, caplog):
    path = tmp_path / "workloads.json"
    path.write_text(
        json.dumps({
            "a": {"cpu_limit_cores": 0.2, "boot_seconds": 5},
            "b": {"cpu_limit_cores": None, "cpu_request_cores": 0.1},
            "c": {"boot_seconds": 3},
        })
    )  # fmt: skip
    facts = read_facts(path, ("a", "b"), {"a": 7.0})
    assert facts.limit_cores.tolist() == [0.2, 0.1]
    assert facts.boot_seconds.tolist() == [7, 30]
    assert "b: start-up time unknown" in caplog.text
    with pytest.raises(DataError, match="'c' has neither"):
        read_facts(path, ("c",), {})
    with pytest.raises(DataError, match="'d' is missing"):
        read_facts(path, ("d",), {})
    path.write_text("[1")
    with pytest.raises(DataError, match="not valid JSON"):
        read_facts(path, ("a",), {})
    with pytest.raises(DataError, match=r"metrics_fetch\.py"):
        read_facts(tmp_path / "none.json", ("a",), {})
