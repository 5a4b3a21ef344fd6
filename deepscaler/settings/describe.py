"""The settings as JSON schemas for editors, as docs/settings.md for readers, and as they apply."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from deepscaler.artefacts import write_text
from deepscaler.settings.base import Section
from deepscaler.settings.experiment import Experiment
from deepscaler.settings.layers import EXTENDS, MOST_BASES
from deepscaler.settings.loading import load_section, read_document
from deepscaler.settings.stages import Settings
from deepscaler.settings.training import ModelConfig, Train

KINDS: dict[str, type[Section]] = {
    "app": Settings,
    "train": Train,
    "model": ModelConfig,
    "experiment": Experiment,
}
"""The kinds of settings files, by the names of their schemas."""
ABOUT_EXTENDS = (
    "path of a settings file that this one builds on, relative to this file; mappings of both are merged, "
    f"anything else here takes the place of what stands there; at most {MOST_BASES} files in a row"
)
INTRODUCTION = f"""# Settings

Written by `python -m deepscaler.settings --docs`; change the descriptions in `deepscaler/settings/` instead.

Everything that can be tuned is a key of a YAML file in `config/`. A file needs to name only what differs from
the defaults below. Unknown keys and values of the wrong type are refused. `--set section.key=value` overrides
a key for one command; for main.py, which reads two files, it is `--set train.num_iter=10` or
`--set model.dataset.stride=4`.

A file may build on another one: `{EXTENDS}: boutique.yaml` at its top. The path is relative to the file.
Mappings of both are merged; anything else, lists included, takes the place of what the other file says.
The other file may itself build on one, and that is all. `python -m deepscaler.settings --effective FILE`
prints what applies in the end.
"""
WORDS = {
    "string": "text",
    "number": "number",
    "integer": "whole number",
    "boolean": "true or false",
    "null": "null",
}
SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
HEADINGS = {
    "app": "`config/<app>.yaml`, for every script but main.py",
    "train": "`train_config.yaml`, for main.py",
    "model": "`train_datasets_speed.yaml`, for main.py",
    "experiment": "`experiments/<name>.yaml`, for `python -m testbed.experiment`",
}


# ---------------------------------------------------------------------------------------------------- schemas
def schema(name: str) -> dict[str, Any]:
    """The JSON schema of a kind of file.

    A file that extends another one may leave out keys without a default; they are asked of all other files.
    """
    kind = KINDS[name]
    found = kind.model_json_schema()
    asked = _asked(kind)
    for part in (found, *found.get("$defs", {}).values()):
        if part.get("title") in _mergeable(kind):
            part.pop("required", None)
    about = {"type": "string", "title": "Extends", "description": ABOUT_EXTENDS}
    found["properties"] = {EXTENDS: about, **found["properties"]}
    if asked:
        found["if"], found["then"] = {"not": {"required": [EXTENDS]}}, asked
    return found


def _asked(kind: type[BaseModel]) -> dict[str, Any]:
    """A schema that only asks for the keys without a default, in the section and in the sections in it."""
    required = [name for name, info in kind.model_fields.items() if info.is_required()]
    below = {name: asked for name, section in _sections(kind) if (asked := _asked(section))}
    return {
        **({"required": required} if required else {}),
        **({"properties": below} if below else {}),
    }


def _mergeable(kind: type[BaseModel]) -> set[str]:
    """Names of the sections of which a file may state one part and its base the rest."""
    return {kind.__name__, *(name for _, section in _sections(kind) for name in _mergeable(section))}


def _sections(kind: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The keys that hold one section (not a list or a mapping of sections)."""
    for name, info in kind.model_fields.items():
        if (section := _section(info)) is not None:
            yield name, section


def _section(info: FieldInfo) -> type[BaseModel] | None:
    candidates = (info.annotation, *get_args(info.annotation)) if not _container(info) else ()
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _container(info: FieldInfo) -> bool:
    return get_origin(info.annotation) in (list, dict, tuple)


def write_schemas(directory: Path) -> list[Path]:
    """Write `<kind>.schema.json` for each kind of file, and return the paths."""
    paths = [directory / f"{name}.schema.json" for name in KINDS]
    for name, path in zip(KINDS, paths, strict=True):
        write_text(path, schema_text(name))
    return paths


def schema_text(name: str) -> str:
    """The text of a kind's schema file."""
    return json.dumps(schema(name), indent=2) + "\n"


# ------------------------------------------------------------------------------------------- docs/settings.md
def docs() -> str:
    """The page with a table for each section: key, type, default and meaning."""
    lines = [INTRODUCTION]
    for name, kind in KINDS.items():
        lines += [f"## {HEADINGS[name]}", ""]
        explained: dict[type[BaseModel], str] = {}
        for place, section in _walk(kind, ""):
            lines += [f"### `{place}`", ""] if place else []
            if section in explained and section.model_fields:
                lines += [f"The keys of `{explained[section]}`.", ""]
            else:
                lines += _table(section)
            explained.setdefault(section, place)
    return "\n".join(lines).rstrip() + "\n"


def _walk(kind: type[BaseModel], place: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Sections with the dotted keys at which they stand, each before the sections in it."""
    yield place, kind
    for name, info in kind.model_fields.items():
        key = f"{place}.{name}" if place else name
        if (section := _section(info)) is not None:
            yield from _walk(section, key)
        elif (member := _member(info)) is not None:
            yield from _walk(member, f"{key}[]" if get_origin(info.annotation) is list else f"{key}.<name>")


def _member(info: FieldInfo) -> type[BaseModel] | None:
    """The section of which a key holds many."""
    found = get_args(info.annotation)[-1:] if _container(info) else ()
    return next((each for each in found if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _table(kind: type[BaseModel]) -> list[str]:
    """What a section is for, and its keys that aren't sections themselves."""
    properties = kind.model_json_schema().get("properties", {})
    rows = [
        f"| `{name}` | {_words(properties[name])} | {_default(info)} | {_meaning(info)} |"
        for name, info in kind.model_fields.items()
        if _section(info) is None or not isinstance(info.default, BaseModel)
        if not (info.is_required() and _section(info))
    ]
    about = ["\n\n".join(" ".join(part.split()) for part in (kind.__doc__ or "").split("\n\n")), ""]
    return [
        *about,
        *(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""] if rows else []),
    ]


def _meaning(info: FieldInfo) -> str:
    return (info.description or "").replace("|", "\\|")


def _default(info: FieldInfo) -> str:
    return "must be given" if info.is_required() else f"`{json.dumps(info.default, ensure_ascii=False)}`"


def _words(found: Mapping[str, Any]) -> str:
    """A JSON schema's type in words, with its bounds."""
    if "anyOf" in found:
        return " or ".join(_words(each) for each in found["anyOf"])
    if "$ref" in found:
        return "section"
    if "enum" in found:
        return "one of " + ", ".join(f"`{value}`" for value in found["enum"])
    if "const" in found:
        return f"`{found['const']}`"
    kind = found["type"]
    if kind == "array":
        return _list_words(found)
    if kind == "object":
        return _mapping_words(found)
    if found.get("format") == "password":
        return "secret text"
    return WORDS[kind] + _bounds(found)


def _list_words(found: Mapping[str, Any]) -> str:
    if "prefixItems" in found:
        return f"list of {len(found['prefixItems'])} (each item: {_words(found['prefixItems'][0])})"
    return f"list (each item: {_words(found['items'])})"


def _mapping_words(found: Mapping[str, Any]) -> str:
    values = found.get("additionalProperties")
    return f"mapping by name (each value: {_words(values)})" if isinstance(values, dict) else "mapping"


def _bounds(found: Mapping[str, Any]) -> str:
    parts = [f"{sign} {found[key]:g}" for key, sign in SIGNS.items() if key in found]
    return f" {', '.join(parts)}" if parts else ""


# -------------------------------------------------------------------------------------------- effective files
def effective(path: str | Path, overrides: Sequence[str] = ()) -> str:
    """All settings that apply with a file, as YAML; secrets are stars.

    Raises:
        SettingsError: the file, one of its bases or an override is wrong.
    """
    settings = load_section(kind_of(read_document(path)), path, overrides)
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def kind_of(document: Mapping[str, Any]) -> type[Section]:
    """The kind of file with which a document has the most keys in common; in doubt it is an application's."""
    return max(KINDS.values(), key=lambda kind: len(document.keys() & kind.model_fields.keys()))
