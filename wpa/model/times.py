"""Time as the journal writes it: RFC 3339, UTC, milliseconds. Time is passed in, never read here."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["parse_ms", "rfc3339"]


def rfc3339(ms: int) -> str:
    """Milliseconds since the Unix epoch, as ``2026-11-20T10:00:00.000Z``."""
    seconds, rest = divmod(ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def parse_ms(text: str) -> int:
    """The inverse of :func:`rfc3339`; any RFC 3339 time will do. Raises ValueError otherwise."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it as 2026-11-20T10:00:00Z")
    return round(moment.timestamp() * 1000)
