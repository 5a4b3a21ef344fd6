"""YAML of a bounded size, in which no key is given twice and numbers are what people read."""

from __future__ import annotations

import re
from typing import Any

import yaml

from deepscaler.artefacts import one_line

MOST_NODES = 100_000
"""Values in a document, those that aliases repeat counted each time."""
MOST_DEPTH = 40
"""Sections within sections."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which no key is given twice, and numbers are what people read.

    030 is 30, 1e-3 is 0.001, and 1:30 is a text.
    """

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
_Loader.add_implicit_resolver(  # as YAML 1.2 has it; YAML 1.1 asks for a point and a sign: 1.0e-3
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


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
