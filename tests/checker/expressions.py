"""CEL and templates, straight from the library: what the strings of a plan come to."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel
from cel_expr_python.ext import ext_math, ext_strings

__all__ = ["Unusable", "condition", "render"]

ROOTS: Final = ("input", "vars", "steps", "execution")

Scope = Mapping[str, Any]


class Unusable(ValueError):
    """A value that can't be computed, or not used; ``type`` is that of the failure it makes."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type


def render(value: Any, scope: Scope) -> Any:
    """``value`` with its expressions evaluated. Raises Unusable (``ExpressionError``)."""
    if isinstance(value, dict):
        return {key: render(item, scope) for key, item in value.items()}
    if isinstance(value, list):
        return [render(item, scope) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    pieces = list(_split(value))
    if len(pieces) == 1 and pieces[0][1]:
        return _evaluate(pieces[0][0], scope)
    return "".join(_inserted(_evaluate(piece, scope)) if is_code else piece for piece, is_code in pieces)


def condition(text: str, scope: Scope) -> Any:
    """The value of an expression that may have ``${ }`` around it. Raises Unusable."""
    bare = text.strip()
    if bare.startswith("${") and bare.endswith("}"):
        bare = bare[2:-1].strip()
    return _evaluate(bare, scope)


def _split(text: str) -> Iterator[tuple[str, bool]]:
    """Pieces of text, and of code."""
    literal, index = "", 0
    while index < len(text):
        if text.startswith("$${", index):
            literal, index = literal + "${", index + 3
        elif text.startswith("${", index):
            if literal:
                yield literal, False
            end = _end(text, index + 2)
            yield text[index + 2 : end].strip(), True
            literal, index = "", end + 1
        else:
            literal, index = literal + text[index], index + 1
    if literal:
        yield literal, False


def _end(text: str, index: int) -> int:
    """Where the brace is that closes the expression that begins at ``index``."""
    depth, quote = 0, ""
    while index < len(text):
        char = text[index]
        if char == "\\" and quote:
            index += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "}" and depth == 0:
            return index
        else:
            depth += (char == "{") - (char == "}")
        index += 1
    raise Unusable("ExpressionError", f"no end of the expression in {text!r}")


def _inserted(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _evaluate(text: str, scope: Scope) -> Any:
    try:
        value = _compiled(text, tuple(scope)).eval(data=dict(scope))
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise Unusable("ExpressionError", f"{text}: {error}") from None
    if value.type() == cel.Type.ERROR:
        raise Unusable("ExpressionError", f"{text}: {value.value()}")
    return _plain(value.plain_value())


@lru_cache(maxsize=64)
def _environment(names: tuple[str, ...]) -> Any:
    variables = dict.fromkeys((*ROOTS, *names), cel.Type.DYN)
    return cel.NewEnv(variables=variables, extensions=[ext_strings.ExtStrings(), ext_math.ExtMath()])


@lru_cache(maxsize=4096)
def _compiled(text: str, names: tuple[str, ...]) -> Any:
    return _environment(names).compile(text)


def _plain(value: Any) -> Any:
    """What CEL gives, as JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        raise Unusable("ExpressionError", f"{value} is no JSON")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise Unusable("ExpressionError", f"{type(value).__name__} is no JSON")
