"""Regular expressions of users, matched in time linear in the text.

Python's own take for ever on some short texts (``^(a+)+$``), and a worker's event loop would stand still.
CEL brings RE2, which never does; it has no look-around and no back references.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

__all__ = ["PatternError", "check_pattern", "found", "matched"]

_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x(00)|[\s\S])")
_FOR_NUL: Final = "\ufffe"
"""Stands for a NUL, at which CEL would take the text to end. It is no character, either."""


class PatternError(ValueError):
    """A regular expression that can't be matched in bounded time, or is none."""


@lru_cache(maxsize=1)
def _program() -> tuple[Any, Any]:
    """``matches`` of CEL, and CEL's type of a value that is an error."""
    from cel_expr_python import cel  # late: it takes 12 MB

    names = dict.fromkeys(("text", "pattern"), cel.Type.STRING)
    return cel.NewEnv(variables=names).compile("text.matches(pattern)"), cel.Type.ERROR


def matched(pattern: str, text: str) -> bool:
    """What ``text.matches(pattern)`` gives in CEL. Raises ValueError, with what CEL says."""
    program, error = _program()
    try:
        value = program.eval(data={"text": text, "pattern": pattern})
    except (RuntimeError, TypeError) as failed:
        raise ValueError(str(failed)) from None
    if value.type() == error:
        raise ValueError(str(value.value()))
    return bool(value.value())


def _escape(match: re.Match[str]) -> str:
    code = match[1] or match[2]
    if not code:
        return match[0]
    return rf"\x{{{code}}}" if int(code, 16) else _FOR_NUL


def found(pattern: str, text: str) -> bool:
    """Whether ``pattern`` matches somewhere in ``text``. Raises PatternError."""
    # JSON Schema's patterns are those of JavaScript, which writes characters in another way.
    theirs = _ESCAPE.sub(_escape, pattern).replace("\0", _FOR_NUL)
    try:
        return matched(theirs, text.replace("\0", _FOR_NUL))
    except ValueError as error:
        reason = str(error).rpartition("invalid regular expression: ")[2]
        raise PatternError(f"the pattern {pattern[:100]!r} can't be used: {reason[:200]}") from None


def check_pattern(pattern: str) -> None:
    """Raise PatternError where ``pattern`` can't be used."""
    found(pattern, "")
