"""Reading settings files and `--set section.key=value` as checked settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from deepscaler.artefacts import one_line
from deepscaler.errors import SettingsError
from deepscaler.scrubbing import HIDDEN
from deepscaler.settings.base import Section
from deepscaler.settings.explaining import explained, holds_secrets, parts_of
from deepscaler.settings.layers import Document, layers_of, merged
from deepscaler.settings.safe_yaml import read_yaml
from deepscaler.settings.stages import Settings

Kind = TypeVar("Kind", bound=Section)


def load_settings(path: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Read `config/<app>.yaml` and apply `section.key=value` texts; see `load_section`.

    Raises:
        SettingsError: one line with file, dotted key, value and what is allowed.
    """
    return load_section(Settings, path, overrides)


def load_section(kind: type[Kind], path: str | Path, overrides: Sequence[str] = ()) -> Kind:
    """Read any settings file as `kind` and apply `section.key=value` texts.

    A file may name another one on which it builds: `extends: boutique.yaml`, a path relative to the file.
    Mappings of both are merged; anything else replaces what the base says. A base may extend a file, too.

    Raises:
        SettingsError: one line with the file in which the key stands, dotted key, value and what is allowed.
    """
    layers = layers_of(Path(path), kind)
    document = merged(layers)
    for text in overrides:
        _override(document, text)
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise SettingsError(explained(error, kind, layers, overrides)) from error


def read_document(path: str | Path) -> Document:
    """What a settings file and its bases say together, not yet checked.

    Raises:
        SettingsError: a file can't be read, or `extends` is wrong.
    """
    return merged(layers_of(Path(path), Section))


# -------------------------------------------------------------------------------------------------- overrides
def _override(document: Document, text: str) -> None:
    key, equals, value = text.partition("=")
    parts = parts_of(key)
    if not equals or not all(parts):
        raise SettingsError(f"--set {_shown(text)}: expected section.key=value")
    place = document
    while len(parts) > 1 and ".".join(parts) not in place:
        part, parts = _next_key(place, parts)
        if place.get(part) is None:  # an empty section, such as a service of which nothing is said
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise SettingsError(f"--set {_shown(text)}: {part!r} is not a section")
    try:
        place[".".join(parts)] = read_yaml(value)
    except yaml.YAMLError as error:
        shown = HIDDEN if holds_secrets(key) else one_line(repr(value))
        raise SettingsError(f"--set {_shown(text)}: {shown} is not a YAML value") from error


def _shown(text: str) -> str:
    """A `section.key=value` text as messages show it."""
    key, separator, _ = re.match(r"([^=:\s]*)([=:\s]?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{key}{separator}{HIDDEN}" if holds_secrets(key) and separator else one_line(text)


def _next_key(place: Document, parts: list[str]) -> tuple[str, list[str]]:
    """The key by which the way leads on, and the parts behind it; a key may have dots: `reviews.v1`."""
    for count in range(len(parts) - 1, 1, -1):
        if ".".join(parts[:count]) in place:
            return ".".join(parts[:count]), parts[count:]
    return parts[0], parts[1:]
