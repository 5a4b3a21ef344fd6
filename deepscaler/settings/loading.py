"""Reading settings files: bases that a file extends, `--set section.key=value`, and errors in one line."""

from __future__ import annotations

import contextlib
import copy
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from deepscaler.artefacts import one_line
from deepscaler.errors import SettingsError
from deepscaler.scrubbing import HIDDEN, is_secret_name
from deepscaler.settings.base import Section
from deepscaler.settings.stages import Settings

EXTENDS = "extends"
"""The key by which a settings file names the file that it builds on."""
MOST_BASES = 2
MOST_BYTES = 2**20
"""No settings file may be larger."""
MOST_NODES = 100_000
"""Values in a document, those that aliases repeat counted each time."""
MOST_DEPTH = 40
"""Sections within sections."""
Document = dict[str, Any]
Place = tuple[int | str, ...]
"""Keys and positions that lead to a value, as pydantic gives them."""
Kind = TypeVar("Kind", bound=Section)


@dataclass(frozen=True)
class _Layer:
    """One of the files that make up the settings, without its key `extends`."""

    name: str
    document: Document


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
    layers = _layers(Path(path), kind)
    document = _merged(layers)
    for text in overrides:
        _override(document, text)
    try:
        return kind.model_validate(_floats(document, kind))
    except ValidationError as error:
        raise SettingsError(_explain(error, kind, layers, overrides)) from error


def read_document(path: str | Path) -> Document:
    """What a settings file and its bases say together, not yet checked.

    Raises:
        SettingsError: a file can't be read, or `extends` is wrong.
    """
    return _merged(_layers(Path(path), Section))


# ------------------------------------------------------------------------------------------------------- YAML
class _Loader(yaml.SafeLoader):
    """Safe YAML in which no key is given twice, and numbers are what people read: 030 is 30, 1:30 a text."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The mapping as it stands in the text, before `<<` adds to it.

        Raises:
            yaml.constructor.ConstructorError: a key stands in it twice.
        """
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            name = f"{key.tag} {key.value}"
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(name)
        return node

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """One value of the text.

        Raises:
            yaml.constructor.ConstructorError: it is nested too deeply.
        """
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > MOST_DEPTH:
            raise yaml.constructor.ConstructorError(
                None, None, f"more than {MOST_DEPTH} levels", getattr(parent, "start_mark", None)
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """The whole text.

        Raises:
            yaml.constructor.ConstructorError: its aliases make it too large, or lead into themselves.
        """
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _size(node, {})
        return node

    def number(self, node: yaml.ScalarNode) -> int | float | str:
        """The number; the text where YAML 1.1 would count in sixties."""
        text = str(node.value)
        if ":" in text:
            return text
        if re.fullmatch(r"[-+]?0[0-9_]+", text):
            return int(text.replace("_", ""))
        if node.tag.endswith(":int"):
            return self.construct_yaml_int(node)
        return float(self.construct_yaml_float(node))


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node holds; 0 in `known` while it is being counted."""
    if id(node) not in known:
        known[id(node)], count = 0, 1
        if isinstance(node, yaml.SequenceNode):
            count += sum(_size(item, known) for item in node.value)
        elif isinstance(node, yaml.MappingNode):
            count += sum(_size(part, known) for pair in node.value for part in pair)
        known[id(node)] = count
    if not 0 < known[id(node)] <= MOST_NODES:
        why = "leads into itself" if not known[id(node)] else f"stands for more than {MOST_NODES} values"
        raise yaml.constructor.ConstructorError(None, None, f"an alias {why}", node.start_mark)
    return known[id(node)]


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.number)


def read_yaml(text: str) -> Any:
    """What the text says, as `_Loader` reads it.

    Raises:
        yaml.YAMLError: it isn't YAML, a key is given twice, or it is too deep or too large.
    """
    try:
        return yaml.load(text, _Loader)  # a subclass of SafeLoader: no code is run
    except yaml.YAMLError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        # PyYAML lets these through where a tag or the look of a value promises another type than it has.
        raise yaml.YAMLError(f"a value that is none of its type ({one_line(error, 100)})") from error


# ------------------------------------------------------------------------------------------------------ files
def _layers(path: Path, kind: type[Section]) -> list[_Layer]:
    """The file asked for, then its base, then the base's base."""
    layers: list[_Layer] = []
    seen: list[Path] = []
    name = str(path)
    while True:
        document = _read(path, name, kind)
        base = document.pop(EXTENDS, None)
        layers.append(_Layer(name, document))
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


def _merged(layers: Sequence[_Layer]) -> Document:
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


# -------------------------------------------------------------------------------------------------- overrides
def _override(document: Document, text: str) -> None:
    key, equals, value = text.partition("=")
    parts = _parts(key)
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
        shown = HIDDEN if _holds_secrets(key) else one_line(repr(value))
        raise SettingsError(f"--set {_shown(text)}: {shown} is not a YAML value") from error


def _shown(text: str) -> str:
    """A `section.key=value` text as messages show it."""
    key, separator, _ = re.match(r"([^=:\s]*)([=:\s]?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{key}{separator}{HIDDEN}" if _holds_secrets(key) and separator else one_line(text)


def _holds_secrets(key: str) -> bool:
    return is_secret_name(key) or "headers" in key


def _next_key(place: Document, parts: list[str]) -> tuple[str, list[str]]:
    """The key by which the way leads on, and the parts behind it; a key may have dots: `reviews.v1`."""
    for count in range(len(parts) - 1, 1, -1):
        if ".".join(parts[:count]) in place:
            return ".".join(parts[:count]), parts[count:]
    return parts[0], parts[1:]


def _parts(key: str) -> list[str]:
    return key.strip().split(".")


def _floats(value: Any, kind: type[BaseModel]) -> Any:
    """YAML reads 1e-3 as text: make it a float where only a number is allowed. Pydantic judges the rest."""
    if not isinstance(value, dict):
        return value
    out = dict(value)
    for name, info in kind.model_fields.items():
        if name not in out:
            continue
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            out[name] = _floats(out[name], annotation)
        elif annotation is float and isinstance(out[name], str):
            with contextlib.suppress(ValueError):  # pydantic names it
                out[name] = float(out[name])
    return out


# ----------------------------------------------------------------------------------------------------- errors
def _explain(
    error: ValidationError, kind: type[Section], layers: Sequence[_Layer], overrides: Sequence[str]
) -> str:
    """The first of pydantic's complaints in one line, with the number of further ones."""
    first = error.errors()[0]
    loc: Place = first["loc"]
    where = _whereabouts(loc, layers, overrides)
    dotted = ".".join(str(part) for part in loc)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return (
            f"{where}: {dotted}: unknown key; allowed here: {', '.join(_allowed_keys(kind, loc[:-1]))}{more}"
        )
    if first["type"] == "missing":
        return f"{where}: {dotted}: missing, and it has no default{more}"
    tell = not isinstance(first["input"], dict) and not _holds_secrets(dotted)
    found = f" (found {one_line(repr(first['input']))})" if tell else ""
    return f"{where}: {dotted or 'settings'}: {first['msg'].removeprefix('Value error, ')}{found}{more}"


def _whereabouts(loc: Place, layers: Sequence[_Layer], overrides: Sequence[str]) -> str:
    """The file in which the value at `loc` stands.

    It is the file asked for where `--set` gave the value, and that file with its bases where several of them
    say something about the value.
    """
    asked, *bases = layers
    if not bases or any(_overlap(_parts(text.partition("=")[0]), loc) for text in overrides):
        return asked.name
    depths = [_depth(layer.document, loc) for layer in layers]
    deepest = [layer for layer, depth in zip(layers, depths, strict=True) if depth == max(depths)]
    if len(deepest) == 1 or not isinstance(_at(deepest[0].document, loc[: max(depths)]), dict):
        return deepest[0].name
    return f"{asked.name} ({EXTENDS} {', '.join(base.name for base in bases)})"


def _overlap(parts: list[str], loc: Place) -> bool:
    """Whether one of the two places lies within the other."""
    return all(part == str(other) for part, other in zip(parts, loc, strict=False))


def _depth(document: Document, loc: Place) -> int:
    """How many parts of `loc` lead somewhere in the document."""
    return next((depth for depth in range(len(loc), 0, -1) if _at(document, loc[:depth]) is not _NOTHING), 0)


_NOTHING = object()


def _at(document: Document, loc: Place) -> Any:
    """The value at `loc`, `_NOTHING` where there is none."""
    value: Any = document
    for part in loc:
        members = dict(enumerate(value)) if isinstance(value, list) else value
        if not isinstance(members, dict) or part not in members:
            return _NOTHING
        value = members[part]
    return value


def _allowed_keys(kind: type[BaseModel], where: Place) -> list[str]:
    names = [] if where else [EXTENDS]
    for part in where:
        info = kind.model_fields.get(str(part))
        annotation: Any = info.annotation if info else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        sections = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if sections:
            kind = sections[0]
    return [*names, *kind.model_fields]
