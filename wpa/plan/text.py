"""Reading definitions: JSON, or YAML as the same thing. A key that stands twice is an error."""

from __future__ import annotations

import json
from typing import Any

import yaml

from wpa.errors import DefinitionError, Problem

__all__ = ["parse"]


def parse(text: str, filename: str = "") -> Any:
    """The document in ``text``. Raises DefinitionError with line and column."""
    if filename.endswith((".yaml", ".yml")) or (
        not filename.endswith(".json") and text.lstrip()[:1] not in "{["
    ):
        return _yaml(text)
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DefinitionError([Problem("$", f"not JSON: {error.msg} at {place}")]) from None
    except (ValueError, RecursionError) as error:
        raise DefinitionError([Problem("$", f"not JSON: {error}")]) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, as JSON would have it: no dates, no duplicate keys, no anchors that explode."""


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            # YAML 1.1 reads on, off, yes and no as booleans; a key is always meant as a word.
            key = str(key_node.value)
        if key in found:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice in one object", key_node.start_mark
            )
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: node.value)


def _yaml(text: str) -> Any:
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise DefinitionError([Problem("$", "YAML aliases are not supported", "write it out")])
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a safe loader of our own
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DefinitionError([Problem("$", f"not YAML: {error.problem}{place}")]) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DefinitionError([Problem("$", f"not YAML: {error}")]) from None
