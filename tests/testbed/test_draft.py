"""Settings drafted from an emulated application."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.paths import ROOT

from deepscaler.settings import load_settings
from testbed.__main__ import main
from testbed.application import load_application
from testbed.experiments.draft import draft, unloaded_response


def test_the_committed_experiment_of_thirty_services_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config", "--application", "synthetic:30", "--schema", "../app.schema.json"]) == 0
    assert capsys.readouterr().out == (ROOT / "config/studies/synthetic_30.yaml").read_text()


@pytest.mark.parametrize("name", ["boutique", "bookinfo", "synthetic:12:3"])
def test_a_draft_is_valid_and_names_what_the_application_has(tmp_path: Path, name: str) -> None:
    (tmp_path / "app.yaml").write_text(draft(name, "app.schema.json"))
    settings = load_settings(tmp_path / "app.yaml", [])
    application = load_application(name)
    assert tuple(settings.app.services) == application.service_names
    assert tuple(entry.name for entry in settings.app.entries) == application.endpoint_names
    unloaded = unloaded_response(application)
    bounds = np.array([entry.sla for entry in settings.app.entries])
    assert (bounds >= 4 * unloaded - 1e-9).all() and (bounds < 4 * unloaded + 0.1).all()
    assert settings.testbed.load.low < settings.testbed.load.high
    assert ":" not in settings.app.name


def test_a_draft_of_nothing_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--application", "nonsense"]) == 1
    assert "unknown application 'nonsense'" in capsys.readouterr().err


def test_the_published_editor_schema_is_named_in_every_experiment() -> None:
    for path in (ROOT / "config/studies").glob("*.yaml"):
        first = path.read_text().splitlines()[0]
        assert first == "# yaml-language-server: $schema=../app.schema.json", path
        assert yaml.safe_load(path.read_text())["app"]["name"]
