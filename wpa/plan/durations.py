"""Durations as people write them: ``250ms``, ``30s``, ``5m``, ``24h``, ``7d``, ``1h30m``."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["parse_duration_ms"]

UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_WHOLE = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
YEARS_100_MS: Final = 100 * 366 * 86_400_000


def parse_duration_ms(text: str) -> int:
    """Milliseconds in ``text``. Raises ValueError with what to write instead."""
    if not isinstance(text, str) or not _WHOLE.fullmatch(text):
        shown = repr(text)[:80]
        raise ValueError(f"{shown} is not a duration; write it as '250ms', '30s', '5m', '24h' or '1h30m'")
    total = sum(float(number) * UNITS_MS[unit] for number, unit in _PART.findall(text))
    if total > YEARS_100_MS:  # or infinite
        raise ValueError(f"{text[:80]!r} is longer than a hundred years")
    return round(total)
