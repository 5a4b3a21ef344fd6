"""From settings to what `model` wants: hyper-parameters are copied by name and stand in one place."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from deepscaler.settings import ModelConfig, Section

Filled = TypeVar("Filled")


def fill(kind: type[Filled], *sections: Section) -> Filled:
    """The dataclass `kind` with each field taken from the setting of the same name.

    Args:
        kind: a dataclass of `model`; a field that is itself a dataclass is filled from the section of its
            name.
        sections: where settings are looked up; the first that has the name wins.

    Raises:
        KeyError: no section has a setting of a field's name.
    """
    hints = get_type_hints(kind)
    values = {}
    for name in (item.name for item in fields(kind)):  # type: ignore[arg-type]
        section = next((section for section in sections if name in type(section).model_fields), None)
        if section is None:
            raise KeyError(f"{kind.__name__}.{name}: no such setting")
        value = getattr(section, name)
        values[name] = fill(hints[name], value) if is_dataclass(hints[name]) else value
    return kind(**values)


def network_sizes(config: ModelConfig, name: str, channels: int | None = None) -> dict[str, Any]:
    """Hyper-parameters of the network `name`: its section of the model settings.

    Args:
        config: the model settings.
        name: of the network.
        channels: where given, it replaces every size whose name ends in `channels`.
    """
    sizes: dict[str, Any] = getattr(config, name).model_dump()
    if channels is not None:
        sizes.update({key: channels for key in sizes if key.endswith("channels")})
    return sizes
