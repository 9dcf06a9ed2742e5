"""CEL's functions that can make a text far longer than what they are given, with an end to it.

Each ``replace`` of a chain may multiply the length: what fits on a line would take more memory than there is.
CEL has no limit of its own, so an expression that calls one of these is compiled with the functions below in
their place, which give the same, up to ``TEXT_CHARS_MAX``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

__all__ = ["TEXT_CHARS_MAX", "as_written", "bounded", "functions", "holds_nul"]

TEXT_CHARS_MAX: Final = 16 * 1024 * 1024

_GROWING: Final = re.compile(r"\.\s*(replace|join)(?=\s*\()")
_OURS: Final = "wpa_"
_OUR_CALL: Final = re.compile(rf"\.{_OURS}(replace|join)\(")
_NUL: Final = re.compile(r"\\(?:000|[xX]00|u0000|U00000000)|\0")
_NO_TEXTS: Final = "not a list of texts"


def bounded(text: str, bare: str) -> str:
    """The expression with the functions of this module in place of CEL's.

    Args:
        text: the expression.
        bare: the same, its literals and comments blanked.
    """
    for match in reversed(list(_GROWING.finditer(bare))):
        text = f"{text[: match.start(1)]}{_OURS}{text[match.start(1) :]}"
    return text


def holds_nul(text: str) -> bool:
    """Whether a literal of an expression may hold a NUL: a text given to Python would end there."""
    return _NUL.search(text) is not None


def functions(cel: Any) -> list[Any]:
    """What declares the functions. ``cel`` is the module ``cel_expr_python.cel``."""
    string, number, items = cel.Type.STRING, cel.Type.INT, cel.Type.LIST

    def declared(name: str, call: Callable[..., str], *kinds: list[Any]) -> Any:
        overloads = [
            cel.Overload(f"{_OURS}{name}_{len(kind)}", string, kind, is_member=True, impl=call)
            for kind in kinds
        ]
        return cel.FunctionDecl(f"{_OURS}{name}", overloads)

    return [
        declared("replace", _replace, [string] * 3, [string, string, string, number]),
        declared("join", _join, [items], [items, string]),
    ]


def as_written(complaint: str) -> str:
    """What CEL says of an expression, with the names that its author knows."""
    if complaint.endswith(_NO_TEXTS):
        return "UNKNOWN: No matching overloads found : join"
    return _OUR_CALL.sub(r".\1(", complaint)


def _replace(text: str, old: str, new: str, most: int = -1) -> str:
    found = len(text) + 1 if not old else text.count(old)
    count = found if most < 0 else min(found, most)
    _check(len(text) + count * (len(new) - len(old)))
    return text.replace(old, new, most)


def _join(items: Sequence[Any], between: str = "") -> str:
    if not all(isinstance(item, str) for item in items):
        raise ValueError(_NO_TEXTS)
    _check(sum(map(len, items)) + len(between) * (len(items) - 1))
    return between.join(items)


def _check(length: int) -> None:
    if length > TEXT_CHARS_MAX:
        raise ValueError(f"it would make a text of {length} characters; the most is {TEXT_CHARS_MAX}")
