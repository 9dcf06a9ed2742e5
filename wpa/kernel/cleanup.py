"""The clean-up of a program, as it is recorded: in the event that begins it, and in the state."""

from __future__ import annotations

from typing import Any, Final

from wpa.kernel.program import CleansUp
from wpa.model.events import Event, Failure
from wpa.model.state import CLEANUP_FORMAT, Cleanup, State
from wpa.model.times import rfc3339

__all__ = ["REASON", "fold_into", "told"]

REASON: Final = "clean up"
"""Why the event that begins a clean-up says that the execution goes on."""


def told(state: State, cleaner: CleansUp, because: Failure, now_ms: int) -> dict[str, Any]:
    """What the event that begins a clean-up says of it."""
    return {
        "because": because.type,
        "until": rfc3339(now_ms + cleaner.cleanup_ms),
        "compensate": state.cancel is None or state.cancel.compensate,
    }


def fold_into(state: State, event: Event) -> None:
    """The program is told with this event, after all that it was told before."""
    about = event.data["cleanup"]
    state.format = CLEANUP_FORMAT
    state.cleanup = Cleanup(
        after=len(state.order),
        began_at=event.timestamp,
        until=about["until"],
        compensate=about["compensate"],
    )
