"""Walks over maps, in the order of their keys.

CEL leaves the order in which ``map`` and ``filter`` walk over an object to chance: it differs between two
processes. What a step's inputs or a loop's items are must not depend on the worker that evaluates them, so
where such a macro may walk over an object, it is given the object's keys in their order instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

__all__ = ["IN_ORDER", "Walk", "in_order", "keys_in_order", "unordered_walks"]

IN_ORDER: Final = "wpaInOrder"
"""The name of :func:`keys_in_order` in expressions, as a method."""

Path = tuple[str, ...]

_OPENING: Final = {")": "(", "]": "[", "}": "{"}
_LISTS: Final = ("map", "filter")
"""The macros that make lists, in the order in which they walk; of all others the order does not show."""
_BEFORE_LITERAL: Final = re.compile(r"(?:^|[^\w\s)\]}\"'])\s*$")


class Walk(NamedTuple):
    """A macro that may walk over an object.

    Attributes:
        at: where, in the expression's text, what it walks over ends.
        path: what it walks over, where that is written as a path.
    """

    at: int
    path: Path | None


def unordered_walks(bare: str, macros: re.Pattern[str], paths: Mapping[int, Path]) -> tuple[Walk, ...]:
    """The macros that may walk over an object in an order that is left to chance.

    Args:
        bare: the expression, its literals and comments blanked.
        macros: finds ``.name(``, the name as its first group.
        paths: the paths of the expression whose last link is called, by the place of the parenthesis.
    """
    listing = {match.end() - 1: match for match in macros.finditer(bare) if match[1] in _LISTS}
    opened_by = _parentheses(bare)
    found = []
    for opening, match in listing.items():
        last = len(bare[: match.start()].rstrip()) - 1
        opener = opened_by.get(last)
        if opener in listing:
            continue  # what such a macro has made is a list
        if opener is not None and bare[opener] == "[" and _BEFORE_LITERAL.search(bare[:opener]):
            continue  # a list that is written out
        found.append(Walk(match.start(), paths.get(opening)))
    return tuple(found)


def _parentheses(bare: str) -> dict[int, int]:
    """Where each parenthesis was opened, by where it closes."""
    stack: list[int] = []
    opened_by = {}
    for index, char in enumerate(bare):
        if char in "([{":
            stack.append(index)
        elif char in ")]}" and stack and bare[stack[-1]] == _OPENING[char]:
            opened_by[index] = stack.pop()
    return opened_by


def in_order(text: str, walks: tuple[Walk, ...]) -> str:
    """The expression with :data:`IN_ORDER` called on all that may be an object."""
    for walk in sorted(walks, reverse=True):
        text = f"{text[: walk.at]}.{IN_ORDER}(){text[walk.at :]}"
    return text


def keys_in_order(value: Any) -> Any:
    """A map's keys in their order; a list as it is."""
    if isinstance(value, dict):
        return sorted(value, key=lambda key: (type(key).__name__, key))
    return value
