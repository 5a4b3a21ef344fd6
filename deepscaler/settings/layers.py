"""Settings files that build on one another: which they are, and what they say together."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deepscaler.errors import SettingsError
from deepscaler.settings.base import Section
from deepscaler.settings.safe_yaml import read_yaml

EXTENDS = "extends"
"""The key by which a settings file names the file that it builds on."""
MOST_BASES = 2
MOST_BYTES = 2**20
"""No settings file may be larger."""
Document = dict[str, Any]


@dataclass(frozen=True)
class Layer:
    """One of the files that make up the settings, without its key `extends`."""

    name: str
    document: Document


def layers_of(path: Path, kind: type[Section]) -> list[Layer]:
    """The file asked for, then its base, then the base's base."""
    layers: list[Layer] = []
    seen: list[Path] = []
    name = str(path)
    while True:
        document = _read(path, name, kind)
        base = document.pop(EXTENDS, None)
        layers.append(Layer(name, document))
        seen.append(path.resolve())
        if base is None:
            return layers
        if not isinstance(base, str):
            raise SettingsError(f"{name}: {EXTENDS}: expected the path of one file, found {base!r}")
        path = path.parent / base
        _check_chain([*(layer.name for layer in layers), os.path.normpath(path)], path, seen)
        name = os.path.normpath(path)


def _check_chain(names: list[str], path: Path, seen: list[Path]) -> None:
    """Refuses a base (the last name) that isn't there, stands in the chain already or is one too many."""
    chain = f" {EXTENDS} ".join(names)
    if not _is_file(path):
        raise SettingsError(
            f"{names[-2]}: {EXTENDS}: {names[-1]}: no such file; "
            "the path is relative to the file that names it"
        )
    if path.resolve() in seen:
        raise SettingsError(f"{names[0]}: {EXTENDS}: the files go in a circle: {chain}")
    if len(names) > MOST_BASES + 1:
        raise SettingsError(f"{names[0]}: {EXTENDS}: at most {MOST_BASES} bases in a row, found {chain}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _read(path: Path, name: str, kind: type[Section]) -> Document:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise SettingsError(f"{name}: more than {MOST_BYTES // 2**20} MiB, which is no file of settings")
        document = read_yaml(content.decode()) or {}
    except FileNotFoundError as error:
        raise SettingsError(f"{name}: no such file; the shipped ones are in config/") from error
    except OSError as error:
        raise SettingsError(f"{name}: can't be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise SettingsError(f"{name}:{line} not valid YAML ({_problem(error)})") from error
    if not isinstance(document, dict):
        raise SettingsError(
            f"{name}: expected sections ({', '.join(kind.model_fields)}), found {type(document).__name__}"
        )
    return document


def _problem(error: Exception) -> str:
    """What is wrong with a text, without the word that may be a secret: `token: *abc` is an unknown alias."""
    text = str(getattr(error, "problem", None) or error)
    return re.sub(r"(alias|tag) '[^']*'", r"\1", text)


def merged(layers: Sequence[Layer]) -> Document:
    """One document of its own; the first layer has the last word."""
    document: Document = {}
    for layer in reversed(layers):
        document = _merge(document, layer.document)
    return copy.deepcopy(document)


def _merge(base: Document, own: Document) -> Document:
    both = {
        key: _merge(base[key], value)
        for key, value in own.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return {**base, **own, **both}
