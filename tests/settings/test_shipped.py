"""The files in config/: each loads, each fits its editor schema, and no fact stands in two of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from deepscaler.settings import ModelConfig, Section, Settings, Train, load_section
from deepscaler.settings.describe import KINDS, kind_of
from deepscaler.settings.loading import read_document

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "config").rglob("*.yaml"))
DRAFTED = ROOT / "config/studies/synthetic_30.yaml"
"""Written by `python -m testbed config`, which spells out defaults."""
FOR_EDITING = (
    "bookinfo.yaml",
    "boutique.yaml",
    "train_ticket.yaml",
    "single.yaml",
    "train_config.yaml",
    "train_datasets_speed.yaml",
)
"""Files to start from: they also have keys that a user may want to edit, with their defaults."""


def schema_of(path: Path) -> Path:
    """The schema that the first line names for editors."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named is not None, f"{path}: the first line names no schema"
    return path.parent / named[1]


def kind(path: Path) -> type[Section]:
    return KINDS[schema_of(path).name.removesuffix(".schema.json")]


def document(path: Path) -> dict[str, object]:
    """What stands in the file itself."""
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_shipped_file_loads_and_fits_the_schema_that_it_names(path: Path) -> None:
    assert load_section(kind(path), path)
    assert kind_of(read_document(path)) is kind(path)
    schema = json.loads(schema_of(path).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document(path))


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in FILES
        if path != DRAFTED and path.name not in FOR_EDITING and path.parent.name != "experiments"
    ],
    ids=lambda path: path.name,
)
def test_a_shipped_file_says_only_what_its_base_and_the_defaults_dont(path: Path) -> None:
    own = document(path)
    base = path.parent / str(own.pop("extends", ""))
    known = load_section(kind(path), base) if base.is_file() else kind(path)()
    stated = list(leaves(own))
    assert stated
    for place, value in stated:
        assert value_at(known.model_dump(mode="json"), place) != value, f"{'.'.join(place)} says nothing new"


def leaves(found: object, place: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], object]]:
    if not isinstance(found, dict):
        return [(place, found)]
    return [leaf for key, value in found.items() for leaf in leaves(value, (*place, str(key)))]


def value_at(found: object, place: tuple[str, ...]) -> object:
    for key in place:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def test_the_services_of_an_application_stand_in_one_file() -> None:
    stated = [
        frozenset(services)
        for path in FILES
        if kind(path) is Settings
        if isinstance(app := document(path).get("app"), dict) and (services := app.get("services"))
    ]
    assert len(stated) == len(set(stated)) == 5


def test_what_is_mounted_into_the_controllers_pod_comes_with_the_files_that_it_extends() -> None:
    mounted = {
        ROOT / name
        for name in re.findall(
            r"--from-file=(?:[\w.]+=)?(\S+)", (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
        )
        if name.startswith("config/")
    }
    assert mounted
    for path in mounted:
        base = document(path).get("extends")
        assert base is None or (path.parent / str(base)).resolve() in mounted


def test_the_training_files_to_start_from_show_the_defaults() -> None:
    assert load_section(Train, ROOT / "config/train_config.yaml") == Train()
    assert load_section(ModelConfig, ROOT / "config/train_datasets_speed.yaml") == ModelConfig()


def test_the_sizes_of_the_published_network_are_as_published() -> None:
    assert ModelConfig().AdapGLA.model_dump() == {
        "graph_channels": 128,
        "time_channels": 128,
        "order": 3,
        "kernel": 5,
        "blocks": 2,
        "attention": True,
    }


def test_the_published_training_is_as_published() -> None:
    paper = load_section(Train, ROOT / "config/train_config_paper.yaml")
    assert (paper.num_epoch, paper.num_iter, paper.patience, paper.early_stopping) == (5, 20, 5, "previous")
    assert paper.graph.model_dump() == {
        "learner": "antisymmetric",
        "trainer": "em",
        "max_graph_num": 3,
        "embedding_size": 64,
        "learning_rate": 1e-3,
        "sparsity_weight": 1.0,
        "union_temperature": "raw",
        "union_share": 0.8,
        "new_edge_term": "sign",
        "new_edge_budget": 0.05,
        "threshold": 0.5,
    }
