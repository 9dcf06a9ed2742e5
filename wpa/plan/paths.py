"""Paths into data, as expressions read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from wpa.model.integers import INT_MAX, INT_MIN

__all__ = ["at", "longest_in", "measured", "narrowed", "passed_on"]

Path = tuple[str, ...]


def narrowed(scope: Mapping[str, Any], paths: Iterable[Path]) -> dict[str, Any]:
    """As much of ``scope`` as the paths lead to.

    An evaluation converts every variable that it touches, with all that hangs on it.
    """
    below = _by_first(paths)
    return {root: _part(scope[root], inner) for root, inner in below.items() if root in scope}


def _part(value: Any, paths: list[Path]) -> Any:
    """``value``, with those of its fields that the paths lead to; as it is where a path ends here."""
    if not all(paths) or not isinstance(value, dict):
        return value
    return {key: _part(value[key], inner) for key, inner in _by_first(paths).items() if key in value}


def _by_first(paths: Iterable[Path]) -> dict[str, list[Path]]:
    below: dict[str, list[Path]] = {}
    for path in paths:
        below.setdefault(path[0], []).append(path[1:])
    return below


def at(scope: Mapping[str, Any], path: Path) -> Any:
    """The value at a path, or as near to it as there is one."""
    value = scope.get(path[0])
    for link in path[1:]:
        if type(value) is not dict or link not in value:
            break
        value = value[link]
    return value


def passed_on(scope: Mapping[str, Any], path: Path) -> Any:
    """The value at a path, as it comes out of CEL, which takes far longer. Raises ValueError where there is
    none, or where CEL may refuse it."""
    value: Any = scope
    for link in path:
        if not isinstance(value, Mapping) or link not in value:
            raise ValueError(f"no {link}")
        value = value[link]
    return value if _is_in_order(value) else _in_order(value)


def _is_in_order(value: Any) -> bool:
    """Whether nothing is to be made anew: a million small lists take long to be made."""
    if type(value) is list:
        return not value or all(map(_is_in_order, value))
    return type(value) is not dict and _in_order(value) is value


def _in_order(value: Any) -> Any:
    kind = type(value)
    if kind is str:
        if not value.isascii():
            value.encode()  # half a surrogate pair, CEL refuses
        return value
    if kind is bool or value is None:
        return value
    if kind is int and INT_MIN <= value <= INT_MAX:
        return value
    if kind is float and math.isfinite(value):
        return value
    if kind is list:
        return [_in_order(item) for item in value]
    if kind is dict and all(type(key) is str for key in value):
        return {_in_order(key): _in_order(value[key]) for key in sorted(value)}
    raise ValueError("CEL is to say what that is")


def measured(value: Any) -> tuple[int, int, bool]:
    """How many characters a value has as JSON, and how many values are in it, about; and whether any text
    within holds a NUL: on its way into CEL, it would silently end there.
    """
    kind = type(value)
    if kind is str:
        return len(value), 1, "\0" in value
    if kind is not dict and kind is not list:
        return 1, 1, False
    # The encoder sees all of it at C speed; behind a backslash, what it has found may be something else.
    encoded = msgspec.json.encode(value)
    values = encoded.count(b",") + encoded.count(b"[") + encoded.count(b"{")
    if b"\\u0000" not in encoded:
        return len(encoded), values, False
    inner = [*value, *value.values()] if kind is dict else value
    return len(encoded), values, any(measured(item)[2] for item in inner)


def longest_in(value: Any, looked_at: int | None = None) -> int:
    """How long the longest list or object within is; of each list only so many members are looked at."""
    if isinstance(value, list):
        return max(len(value), max((longest_in(item, looked_at) for item in value[:looked_at]), default=0))
    if isinstance(value, dict):
        return max(len(value), max((longest_in(item, looked_at) for item in value.values()), default=0))
    return 0
