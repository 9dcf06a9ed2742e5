"""What a regular expression takes, counted from its text: to be compiled, and to be matched."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

__all__ = ["PER_STEP_US", "price"]

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
KEPT_CHARS: Final = 4_096
"""The price of a longer pattern is not kept."""


def price(pattern: str, chars: int) -> int:
    """What matching takes at most, for a text of so many characters, in steps of about ten microseconds.

    A pattern is compiled each time, and as long as it is written out: ``(a{30}){30}`` is 900 characters. The
    text is gone over once, in the worst case at a price that grows with the pattern.
    """
    us_of = _compiling_us if len(pattern) <= KEPT_CHARS else _compiling_us.__wrapped__
    compiling_us = us_of(pattern)
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
