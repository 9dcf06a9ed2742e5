"""What an attempt came to: its output as JSON, or its failure. Whatever user code returns or raises.

What is recorded must be readable for ever, by every worker and in every language. So an output is JSON
without NaN (the encoder would write null, and data that changes on its way is worse than an error), and
nested no deeper than any reader can follow; and a failure holds nothing that could not be recorded.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from wpa.errors import StepFailed
from wpa.model.events import Failure
from wpa.ports.steps import StepType

__all__ = ["NESTING_MAX", "decode", "encode", "failure_of", "settle", "taken"]

MESSAGE_CHARS_MAX = 2_000
TYPE_CHARS_MAX = 200
DETAILS_BYTES_MAX = 16 * 1024
NESTING_MAX = 200
"""Levels of an output. Readers recurse: what is written near their limit would stop every later load."""

_ENCODER = msgspec.json.Encoder()
_SCALARS = (str, int, float, bool, type(None))


def taken(found: StepType, trim: bool, inputs: Any) -> Any:
    """``inputs``, with ``trim`` only those that the step takes."""
    properties = found.signature.input_schema.get("properties")
    if not trim or type(inputs) is not dict or not isinstance(properties, dict):
        return inputs
    if found.signature.input_schema.get("additionalProperties") is not False:
        return inputs
    return {key: value for key, value in inputs.items() if key in properties}


def settle(found: StepType, returned: Any) -> tuple[Any, bytes]:
    """What a step returned, as later steps will see it, and as JSON.

    Raises StepFailed, type InvalidOutput, where it can't be recorded.
    """
    output = found.dump(returned)
    if output is None:
        return None, b"null"
    raw = encode(output)
    if type(output) not in _SCALARS:
        # What later steps see is what the journal will say: keys are strings, tuples are lists.
        output = decode(raw)
    return output, raw


def encode(output: Any) -> bytes:
    """``output`` as JSON. Raises StepFailed, type InvalidOutput, for what JSON can't hold."""
    try:
        raw = _ENCODER.encode(output)
        if b"null" in raw and not _finite(output):
            raise ValueError("NaN or Infinity")
        # The cheapest question first: most outputs are too short to be nested so deep.
        if len(raw) > 2 * NESTING_MAX and _is_deep(raw):
            raise ValueError(f"it is nested more than {NESTING_MAX} levels deep")
    except (TypeError, ValueError, RecursionError) as error:
        message = f"the step returned what can't be recorded as JSON: {error}"
        raise StepFailed(message, type="InvalidOutput", retryable=False) from None
    return raw


def decode(raw: bytes) -> Any:
    """The inverse of :func:`encode`."""
    return msgspec.json.decode(raw)


def _finite(output: Any) -> bool:
    if type(output) is float:
        return math.isfinite(output)
    # Structs and dataclasses within become plain, so that a walk finds every number.
    waiting = [msgspec.to_builtins(output, str_keys=True)]
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
    items, depth = [decode(raw)], 0
    while containers := [item for item in items if type(item) in (dict, list)]:
        depth += 1
        if depth > NESTING_MAX:
            return True
        items = [
            inner for value in containers for inner in (value.values() if type(value) is dict else value)
        ]
    return False


# -- failures --------------------------------------------------------------------------------


def failure_of(error: BaseException) -> Failure:
    """How an exception is recorded. Anything that is no StepFailed is retried by policy. Never raises."""
    if not isinstance(error, StepFailed):
        return Failure(type=_text(type(error).__name__, TYPE_CHARS_MAX), message=_text(error))
    # By getattr: a subclass need not have called the base class's __init__.
    return Failure(
        type=_text(getattr(error, "type", None) or type(error).__name__, TYPE_CHARS_MAX),
        message=_text(getattr(error, "message", error)),
        retryable=bool(getattr(error, "retryable", True)),
        details=_details(getattr(error, "details", None)),
    )


def _text(value: object, most: int = MESSAGE_CHARS_MAX) -> str:
    try:
        text = str(value)
    except Exception:  # a hostile __str__
        text = "(its message can't be shown)"
    # File names that are no UTF-8 come as lone surrogates, which JSON can't hold.
    return text[:most].encode("utf-8", "backslashreplace").decode()


def _details(details: Any) -> dict[str, Any]:
    if not details:
        return {}
    try:
        raw = _ENCODER.encode(details)
        if len(raw) <= DETAILS_BYTES_MAX and raw.count(b"[") + raw.count(b"{") <= NESTING_MAX:
            plain = decode(raw)
            return plain if type(plain) is dict else {"value": plain}
        return {"shortened": _text(raw.decode())}
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return {"repr": _text(repr(details))}
    except Exception:
        return {"repr": "(the details can't be shown)"}
