"""Schemas, docs/settings.md and effective files say what the settings are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from deepscaler.settings import Settings, load_settings
from deepscaler.settings.__main__ import main
from deepscaler.settings.describe import KINDS, docs, effective, schema, schema_text

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "config/demo.yaml")


def models(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The section, and all sections that its keys hold."""
    yield kind
    for info in kind.model_fields.values():
        pending: list[Any] = [info.annotation]
        while pending:
            each = pending.pop()
            pending += get_args(each)
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield from models(each)


SECTIONS = sorted({each for kind in KINDS.values() for each in models(kind)}, key=lambda each: each.__name__)


# ---------------------------------------------------------------------------------------------------- schemas
@pytest.mark.parametrize("name", KINDS)
def test_the_shipped_schema_is_what_make_schema_writes(name: str) -> None:
    shipped = (ROOT / "config" / f"{name}.schema.json").read_text(encoding="utf-8")
    assert shipped == schema_text(name), "run: make schema"


def problems(name: str, document: object) -> list[str]:
    jsonschema.Draft202012Validator.check_schema(schema(name))
    return [error.message for error in jsonschema.Draft202012Validator(schema(name)).iter_errors(document)]


def test_an_editor_asks_for_what_has_no_default_unless_the_file_extends_another() -> None:
    assert problems("app", {"app": {"name": "own"}}) == [
        "'services' is a required property",
        "'entries' is a required property",
    ]
    assert problems("app", {}) == ["'app' is a required property"]
    assert problems("app", {"extends": "shop.yaml", "app": {"name": "own"}}) == []
    assert problems("train", {"extends": "train_config.yaml", "num_iter": 2}) == []


def test_an_editor_marks_unknown_keys_and_wrong_values() -> None:
    assert len(problems("app", {"extends": "shop.yaml", "scale": {"perriod": 3}})) == 1
    assert len(problems("app", {"extends": ["a.yaml", "b.yaml"]})) == 1
    assert len(problems("app", {"extends": "shop.yaml", "app": {"entries": [{"name": "GET /"}]}})) == 1
    assert len(problems("model", {"AdapGLA": {"order": 0}})) == 1


# ------------------------------------------------------------------------------------------- docs/settings.md
def test_the_page_is_what_make_schema_writes() -> None:
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == docs(), "run: make schema"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_key_is_explained(section: type[BaseModel]) -> None:
    assert section.__doc__ and section.__doc__ != BaseModel.__doc__
    for name, info in section.model_fields.items():
        kept = [info.annotation, *get_args(info.annotation)]
        is_section = any(isinstance(each, type) and issubclass(each, BaseModel) for each in kept)
        assert info.description or is_section, f"{section.__name__}.{name} has no description"


def test_every_key_has_a_row_with_type_default_and_meaning() -> None:
    rows = [line for line in docs().splitlines() if line.startswith("| `")]
    assert (
        "| `last` | number > 0 | `3600.0` | seconds back from now (testbed: seconds from testbed.start on) |"
        in rows
    )
    assert any(
        row.startswith("| `split` | list of 3 (each item: number) | `[0.6, 0.2, 0.2]` |") for row in rows
    )
    assert any(row.startswith("| `token` | secret text or null | `null` |") for row in rows)
    assert any(
        row.startswith("| `services` | mapping by name (each value: section or null) | must be given |")
        for row in rows
    )
    assert all(len(row.replace("\\|", "").split(" | ")) == 4 for row in rows)


# -------------------------------------------------------------------------------------------- effective files
def test_an_effective_file_loads_as_the_same_settings(tmp_path: Path) -> None:
    (tmp_path / "whole.yaml").write_text(effective(DEMO, ["scale.period=30"]), encoding="utf-8")
    assert load_settings(tmp_path / "whole.yaml") == load_settings(DEMO, ["scale.period=30"])


def test_the_command_prints_what_applies_with_secrets_as_stars(capsys: pytest.CaptureFixture[str]) -> None:
    secret = ["--set", "cluster.prometheus.token=sesame", "--set", "cluster.jaeger.headers={X-Key: sesame}"]
    assert main(["--effective", DEMO, *secret]) == 0
    printed = capsys.readouterr().out
    assert "sesame" not in printed
    found = yaml.safe_load(printed)
    assert found["app"]["name"] == "demo" and found["collect"]["step"] == 15
    assert set(found["cluster"]["prometheus"]["token"]) == {"*"}
    assert list(found) == list(Settings.model_fields)


def test_the_command_knows_the_training_files_by_their_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--effective", str(ROOT / "config/demo_train.yaml")]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["optimiser"]["learning_rate"] == 4e-3
    assert main(["--effective", str(ROOT / "config/demo_datasets.yaml")]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["AdapGLA"]["kernel"] == 5


def test_a_wrong_file_is_one_line_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "app.yaml"
    path.write_text("app: {name: x, services: {web: }, entries: []}\nscale: {perriod: 3}\n")
    assert main(["--effective", str(path)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(
        f"settings: {path}: scale.perriod: unknown key; allowed here"
    )


def test_schemas_and_page_are_written_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schema", str(tmp_path)]) == 0
    assert main(["--docs", str(tmp_path / "settings.md")]) == 0
    paths = [*(f"{name}.schema.json" for name in KINDS), "settings.md"]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / name) for name in paths]
    assert json.loads((tmp_path / "train.schema.json").read_text())["title"] == "Train"
    assert (tmp_path / "settings.md").read_text() == docs()
