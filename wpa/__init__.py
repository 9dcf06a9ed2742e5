"""wpa: durable workflows on NATS JetStream. See ``docs/ARCHITECTURE.md`` for the words and the house.

What the author of a flow or of a step imports is here, too::

    from wpa import call, flow, step

The names are found when they are first used: a worker without flows doesn't pay for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wpa.flows import (
        Record,
        Retry,
        StepFailed,
        approval,
        call,
        child,
        continue_as_new,
        escalate,
        flow,
        info,
        log,
        now,
        patched,
        saga,
        side_effect,
        signal,
    )
    from wpa.sdk import StepContext, hookimpl, step

__all__ = [
    "Record",
    "Retry",
    "StepContext",
    "StepFailed",
    "approval",
    "call",
    "child",
    "continue_as_new",
    "escalate",
    "flow",
    "hookimpl",
    "info",
    "log",
    "now",
    "patched",
    "saga",
    "side_effect",
    "signal",
    "step",
]

_OF_STEPS = frozenset({"StepContext", "hookimpl", "step"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module("wpa.sdk" if name in _OF_STEPS else "wpa.flows"), name)
    return found
