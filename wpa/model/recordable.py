"""What may be recorded: data as JSON, and failures, whatever user code hands over.

What is recorded must be readable for ever, by every worker and in every language. So data is JSON without
NaN (an encoder would write null, and data that changes on its way is worse than an error), in valid Unicode,
and nested no deeper than any reader can follow; and a failure holds nothing that could not be recorded.
Integers of more than 64 bits are refused by :func:`check_integers`, apart: journals from before it was asked
hold some, and what a replay makes of them has to be what it was.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from wpa.model.events import Failure
from wpa.model.integers import complaint, may_hold_too_long, too_long

__all__ = [
    "NESTING_MAX",
    "TYPE_CHARS_MAX",
    "check_integers",
    "encode_data",
    "safe_details",
    "safe_failure",
    "safe_text",
]

MESSAGE_CHARS_MAX: Final = 2_000
TYPE_CHARS_MAX: Final = 200
DETAILS_BYTES_MAX: Final = 16 * 1024
NESTING_MAX: Final = 200
"""Levels of data. Readers recurse: what is written near their limit would stop every later load."""

_ENCODER: Final = msgspec.json.Encoder()


def encode_data(data: Any) -> bytes:
    """``data`` as JSON. Raises TypeError, ValueError or RecursionError for what JSON can't hold."""
    raw = _ENCODER.encode(data)
    if b"null" in raw and not _finite(data):
        raise ValueError("NaN or Infinity")
    # The cheapest question first: most data is too short to be nested so deep.
    if len(raw) > 2 * NESTING_MAX and _is_deep(raw):
        raise ValueError(f"it is nested more than {NESTING_MAX} levels deep")
    return raw


def check_integers(raw: bytes) -> None:
    """Raise ValueError, with its path, for an integer of more than 64 bits in what was encoded as JSON.

    Inputs may hold none, and what one step puts out is input of the next. ``raw`` is not nested too deeply.
    """
    if raw.startswith(b'"'):
        return  # a text, however long
    if may_hold_too_long(raw) and (found := too_long(msgspec.json.decode(raw))) is not None:
        raise ValueError(complaint(f"${found}"))


def _finite(data: Any) -> bool:
    if type(data) is float:
        return math.isfinite(data)
    # Structs and dataclasses within become plain, so that a walk finds every number.
    waiting = [msgspec.to_builtins(data, str_keys=True)]
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind is float:
            if not math.isfinite(value):
                return False
        elif kind is dict:
            waiting.extend(value.values())
        elif kind is list or kind is tuple:
            waiting.extend(value)
    return True


def _is_deep(raw: bytes) -> bool:
    if raw.count(b"[") + raw.count(b"{") <= NESTING_MAX:
        return False
    # Level by level, so that the walk itself can't run too deep.
    items, depth = [msgspec.json.decode(raw)], 0
    while containers := [item for item in items if type(item) in (dict, list)]:
        depth += 1
        if depth > NESTING_MAX:
            return True
        items = [
            inner for value in containers for inner in (value.values() if type(value) is dict else value)
        ]
    return False


# -- failures --------------------------------------------------------------------------------


def safe_text(value: object, most: int = MESSAGE_CHARS_MAX) -> str:
    """``str(value)``, no longer than ``most`` and in valid Unicode. Never raises."""
    try:
        text = str(value)
    except (Exception, SystemExit):  # a hostile __str__
        text = "(its message can't be shown)"
    # File names that are no UTF-8 come as lone surrogates, which JSON can't hold.
    return text[:most].encode("utf-8", "backslashreplace").decode()


def safe_failure(failure: Failure) -> Failure:
    """The failure that somebody else tells of, no longer than our own are."""
    return Failure(
        type=safe_text(failure.type, TYPE_CHARS_MAX),
        message=safe_text(failure.message),
        retryable=failure.retryable,
        details=safe_details(failure.details),
    )


def safe_details(details: Any) -> dict[str, Any]:
    """A failure's details as JSON data, shortened where they are long. Never raises."""
    if not details:
        return {}
    try:
        raw = _ENCODER.encode(details)
        if len(raw) <= DETAILS_BYTES_MAX and raw.count(b"[") + raw.count(b"{") <= NESTING_MAX:
            plain = msgspec.json.decode(raw)
            return plain if type(plain) is dict else {"value": plain}
        return {"shortened": safe_text(raw.decode())}
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return {"repr": safe_text(repr(details))}
    except Exception:
        return {"repr": "(the details can't be shown)"}
