"""Regular expressions of users, matched in time linear in the text.

Python's own take for ever on some short texts (``^(a+)+$``), and a worker's event loop would stand still.
CEL brings RE2, which never does; it has no look-around and no back references.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from wpa.plan.expressions import Expression, ExpressionError, compile_expression

__all__ = ["PatternError", "check_pattern", "found", "price"]

_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x(00)|[\s\S])")
_FOR_NUL: Final = "\ufffe"
"""Stands for a NUL, at which CEL would take the text to end. It is no character, either."""
_PART: Final = re.compile(
    r"""\\[pP](?:\{\^?\w{0,50}\}|.)                        # a class of letters
    |   \\.                                                # any other escape
    |   \[\^?\]?(?:\\.|[^\]\\])*(?:\]|\\?\Z)               # a set
    |   \{(?P<least>\d{1,4})(?P<most>,\d{0,4})?\}          # how often
    |   .""",
    re.DOTALL | re.VERBOSE,
)
"""A character, a set of characters, a bracket of a group, or how often what stands before comes."""
CHAR_US: Final = 3
SET_US: Final = 8
CLASS_US: Final = 1_500
"""What it takes to compile a character, a set of them, and a class of all the world's letters."""
PER_STEP_US: Final = 10
CHARS_PER_STEP: Final = 3_500
"""So many characters are matched in a step, by a pattern that is compiled in a microsecond."""


class PatternError(ValueError):
    """A regular expression that can't be matched in bounded time, or is none."""


@lru_cache(maxsize=1)
def _matches() -> Expression:
    return compile_expression("text.matches(pattern)", ("text", "pattern"))


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
        return bool(_matches().evaluate({"text": text.replace("\0", _FOR_NUL), "pattern": theirs}))
    except ExpressionError as error:
        reason = str(error).rpartition("invalid regular expression: ")[2]
        raise PatternError(f"the pattern {pattern[:100]!r} can't be used: {reason[:200]}") from None


def check_pattern(pattern: str) -> None:
    """Raise PatternError where ``pattern`` can't be used."""
    found(pattern, "")


def price(pattern: str, chars: int) -> int:
    """What :func:`found` takes at most, for a text of so many characters, in steps of about ten microseconds.

    A pattern is compiled each time, and as long as it is written out: ``(a{30}){30}`` is 900 characters. The
    text is gone over once, in the worst case at a price that grows with the pattern.
    """
    compiling_us = _compiling_us(pattern)
    return 1 + compiling_us // PER_STEP_US + chars * (5 + compiling_us) // CHARS_PER_STEP


@lru_cache(maxsize=1024)
def _compiling_us(pattern: str) -> int:
    groups, last = [0], 0
    for part in _PART.finditer(pattern):
        text = part[0]
        if part["least"] is not None:
            times = max(int(part["least"]), int((part["most"] or ",")[1:] or 0), 1)
            groups[-1] += last * (times - 1)
            last *= times
        elif text == "(":
            groups.append(0)
        elif text == ")":
            last = groups.pop()
            groups = groups or [0]
            groups[-1] += last
        elif text not in "*+?|^$":
            last = _set_us(text)
            groups[-1] += last
    return sum(groups)


def _set_us(text: str) -> int:
    if text[:2] in (r"\p", r"\P"):
        return CLASS_US
    if len(text) == 1 and text != "." and text.isascii():
        return CHAR_US
    classes = len(re.findall(r"\\[pP]", text))
    return SET_US + len(text) // 4 + SET_US * (not text.isascii()) + CLASS_US * classes
