"""Time as the journal writes it: RFC 3339, UTC, milliseconds. Time is passed in, never read here."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

__all__ = ["parse_ms", "rfc3339"]

FIRST_MS: Final = -62_135_596_800_000
LAST_MS: Final = 253_402_300_799_999
"""What RFC 3339 can write: the years 1 to 9999."""


@lru_cache(maxsize=256)
def rfc3339(ms: int) -> str:
    """Milliseconds since the Unix epoch, as ``2026-11-20T10:00:00.000Z``.

    Of what is outside of the years 1 to 9999, the first or the last moment of these: a time-out may lead past
    the end of all calendars.

    Kept for a while: an event names the same moment several times, and so do those of its neighbours.
    """
    seconds, rest = divmod(min(max(ms, FIRST_MS), LAST_MS), 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]  # strftime would not fill up early years


@lru_cache(maxsize=256)
def parse_ms(text: str) -> int:
    """The inverse of :func:`rfc3339`; any RFC 3339 time will do. Raises ValueError otherwise."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it as 2026-11-20T10:00:00Z")
    return round(moment.timestamp() * 1000)
