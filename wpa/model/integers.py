"""Integers that other languages, and the expressions, can't hold: those of more than 64 bits."""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["INT_MAX", "INT_MIN", "complaint", "may_hold_too_long", "shown_text", "too_long"]

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
PIECE_BYTES: Final = 64 * 1024
PATH_CHARS_MAX: Final = 400
TEXT_CHARS_MAX: Final = 80

# A run of 19 digits is the least that can be more than 64 bits. Mapping all digits to one byte and
# searching for the run is nine times faster than the regular expression \d{19}.
_DIGITS_TO_ZERO: Final = bytes(ord("0") if 48 <= byte <= 57 else byte for byte in range(256))
_LONG_RUN: Final = b"0" * 19
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)


def may_hold_too_long(data: bytes) -> bool:
    """Whether it is worth looking through this JSON with :func:`too_long`; it seldom is."""
    if len(data) <= PIECE_BYTES:
        return _LONG_RUN in data.translate(_DIGITS_TO_ZERO)
    # Piece by piece, overlapping: a copy of many megabytes takes twice the time, and the memory.
    size = PIECE_BYTES + len(_LONG_RUN) - 1
    return any(
        _LONG_RUN in data[at : at + size].translate(_DIGITS_TO_ZERO)
        for at in range(0, len(data), PIECE_BYTES)
    )


def too_long(value: Any) -> str | None:
    """Where, below ``value``, the first integer outside int64 stands; None where none does.

    Recursive: depth is to be bounded by then.
    """
    if type(value) is int:
        return None if INT_MIN <= value <= INT_MAX else ""
    if type(value) is list:
        for index, item in enumerate(value):
            if (found := too_long(item)) is not None:
                return f"[{index}]{found}"
    elif type(value) is dict:
        for key, item in value.items():
            if (found := too_long(item)) is not None:
                return (f".{key}" if _PLAIN_KEY.fullmatch(key) else f"[{shown_text(key)}]") + found
    return None


def complaint(path: str) -> str:
    """What is said of the integer at ``path``."""
    return f"{path[:PATH_CHARS_MAX]} is an integer of more than 64 bits; send it as a string"


def shown_text(value: str) -> str:
    """``value`` in quotes and ASCII, shortened where it is long."""
    shown = ascii(value[: TEXT_CHARS_MAX + 1])
    return shown if len(shown) <= TEXT_CHARS_MAX else f"{shown[: TEXT_CHARS_MAX - 3]}..."
