"""What an attempt came to: its output as JSON, or its failure. Whatever user code returns or raises.

See :mod:`wpa.model.recordable` for what may be recorded.
"""

from __future__ import annotations

from typing import Any

import msgspec

from wpa.errors import StepFailed
from wpa.model.events import Failure
from wpa.model.recordable import (
    NESTING_MAX,
    TYPE_CHARS_MAX,
    check_integers,
    encode_data,
    safe_details,
    safe_text,
)
from wpa.ports.steps import StepType

__all__ = ["NESTING_MAX", "decode", "encode", "failure_of", "settle", "taken"]

_SCALARS = (str, int, float, bool, type(None))


def taken(found: StepType, trim: bool, inputs: Any) -> Any:
    """``inputs``, with ``trim`` only those that the step takes."""
    if not trim or type(inputs) is not dict:
        return inputs
    properties = found.signature.input_schema.get("properties")
    if not isinstance(properties, dict):
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
    """``output`` as JSON. Raises StepFailed, type InvalidOutput, for what JSON, or an input, can't hold."""
    try:
        raw = encode_data(output)
        check_integers(raw)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"the step returned what can't be recorded as JSON: {error}"
        raise StepFailed(message, type="InvalidOutput", retryable=False) from None
    return raw


def decode(raw: bytes) -> Any:
    """The inverse of :func:`encode`."""
    return msgspec.json.decode(raw)


# -- failures --------------------------------------------------------------------------------


def failure_of(error: BaseException) -> Failure:
    """How an exception is recorded. Anything that is no StepFailed is retried by policy. Never raises."""
    if not isinstance(error, StepFailed):
        return Failure(type=safe_text(type(error).__name__, TYPE_CHARS_MAX), message=safe_text(error))
    # By getattr: a subclass need not have called the base class's __init__.
    return Failure(
        type=safe_text(getattr(error, "type", None) or type(error).__name__, TYPE_CHARS_MAX),
        message=safe_text(getattr(error, "message", error)),
        retryable=bool(getattr(error, "retryable", True)),
        details=safe_details(getattr(error, "details", None)),
    )
