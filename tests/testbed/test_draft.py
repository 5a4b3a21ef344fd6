"""Settings drafted from an emulated application."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from helpers.paths import ROOT

from deepscaler.settings import load_settings
from testbed.__main__ import _load_command, _scale_options, main
from testbed.applications.loading import load_application
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


@pytest.mark.parametrize(
    ("name", "load", "scale"),
    [
        ("boutique", "sendLoop.sh", " --config config/live.yaml"),
        (
            "boutique_real",
            "sendLoop.sh --application boutique_real",
            " --config 'my config.yaml' --policy hpa_70",
        ),
        ("train_ticket", "sendLoop.sh --application train_ticket", " --config 'my config.yaml'"),
        ("synthetic:10", "no users of synthetic:10 yet: add its URLs to sendFlow/routes.py", " --config 'my"),
        (
            "My App",
            "no users of My App yet: add its URLs to sendFlow/routes.py",
            "'cluster.kubeconfig=a b/",
        ),
    ],
)
def test_what_to_type_next_can_be_typed(name: str, load: str, scale: str) -> None:
    places = {"gateway": "http://127.0.0.1:30001", "prometheus": None, "kubeconfig": "a b/kubeconfig"}
    live = SimpleNamespace(
        program=SimpleNamespace(name=name),
        addresses=SimpleNamespace(**places),
        serve=SimpleNamespace(controller_port=30092),
    )
    assert load in _load_command(live)
    said = _scale_options(live, "my config.yaml")
    assert scale in said and "a b/kubeconfig" in " ".join(shlex.split(said))


def test_users_who_never_pause_are_an_open_question_in_no_draft(tmp_path: Path) -> None:
    """No pause between tasks means that no closed loop's correction applies."""
    description = (ROOT / "testbed/apps/bookinfo.yaml").read_text()
    own = tmp_path / "own.yaml"
    own.write_text(re.sub(r"think_seconds: .*", "think_seconds: 0", description))
    (tmp_path / "app.yaml").write_text(draft(str(own), "app.schema.json"))
    assert load_settings(tmp_path / "app.yaml").process.think_time is None


def test_a_draft_of_nothing_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--application", "nonsense"]) == 1
    assert "unknown application 'nonsense'" in capsys.readouterr().err


def test_the_published_editor_schema_is_named_in_every_experiment() -> None:
    for path in (ROOT / "config/studies").glob("*.yaml"):
        first = path.read_text().splitlines()[0]
        assert first == "# yaml-language-server: $schema=../app.schema.json", path
        assert yaml.safe_load(path.read_text())["app"]["name"]
