"""Time as the journal writes it: RFC 3339, UTC, milliseconds. Time is passed in, never read here."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

__all__ = ["parse_ms", "rfc3339"]


@lru_cache(maxsize=256)
def rfc3339(ms: int) -> str:
    """Milliseconds since the Unix epoch, as ``2026-11-20T10:00:00.000Z``.

    Kept for a while: an event names the same moment several times, and so do those of its neighbours.
    """
    seconds, rest = divmod(ms, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


@lru_cache(maxsize=256)
def parse_ms(text: str) -> int:
    """The inverse of :func:`rfc3339`; any RFC 3339 time will do. Raises ValueError otherwise."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it as 2026-11-20T10:00:00Z")
    return round(moment.timestamp() * 1000)
