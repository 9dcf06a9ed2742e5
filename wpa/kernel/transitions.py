"""The whole state machine as one table: status and event in, status out.

What is not in it is illegal, whoever asks: it can't be folded, and so it may not be recorded either. What
else an event changes, :mod:`wpa.kernel.fold` says.
"""

from __future__ import annotations

from typing import Final

from wpa.errors import WpaError
from wpa.model import events as ev
from wpa.model.events import Event
from wpa.model.state import State, Status

__all__ = ["LEGAL", "IllegalTransition", "status_after"]

LEGAL: Final[dict[tuple[str, str], Status]] = {
    ("", ev.STARTED): "RUNNING",
    ("RUNNING", ev.STEP_COMPLETED): "RUNNING",
    ("RUNNING", ev.STEP_FAILED): "RUNNING",
    ("RUNNING", ev.DECIDED): "RUNNING",
    ("RUNNING", ev.ESCALATED): "RUNNING",
    ("RUNNING", ev.RECOVERED): "RUNNING",
    ("RUNNING", ev.SIGNALLED): "RUNNING",
    ("RUNNING", ev.RESUMED): "RUNNING",
    ("RUNNING", ev.CANCEL_REQUESTED): "RUNNING",
    ("RUNNING", ev.CONTINUED): "RUNNING",
    ("RUNNING", ev.WAITING): "WAITING",
    ("RUNNING", ev.PAUSED): "PAUSED",
    ("RUNNING", ev.COMPENSATING): "COMPENSATING",
    ("RUNNING", ev.COMPLETED): "COMPLETED",
    ("RUNNING", ev.FAILED): "FAILED",
    ("RUNNING", ev.CANCELLED): "CANCELLED",
    ("WAITING", ev.SIGNALLED): "RUNNING",
    ("WAITING", ev.RESUMED): "RUNNING",
    ("WAITING", ev.MIGRATED): "RUNNING",
    ("WAITING", ev.CANCEL_REQUESTED): "RUNNING",
    ("WAITING", ev.PAUSED): "PAUSED",
    ("WAITING", ev.WAITING): "WAITING",
    ("WAITING", ev.CANCELLED): "CANCELLED",
    ("PAUSED", ev.STEP_COMPLETED): "PAUSED",
    ("PAUSED", ev.STEP_FAILED): "PAUSED",
    ("PAUSED", ev.DECIDED): "PAUSED",
    ("PAUSED", ev.RECOVERED): "PAUSED",
    ("PAUSED", ev.SIGNALLED): "PAUSED",
    ("PAUSED", ev.WAITING): "PAUSED",
    ("PAUSED", ev.MIGRATED): "PAUSED",
    ("PAUSED", ev.RESUMED): "RUNNING",
    ("PAUSED", ev.CANCEL_REQUESTED): "RUNNING",
    ("PAUSED", ev.CANCELLED): "CANCELLED",
    ("COMPENSATING", ev.STEP_COMPENSATED): "COMPENSATING",
    ("COMPENSATING", ev.STEP_FAILED): "COMPENSATING",
    ("COMPENSATING", ev.RECOVERED): "COMPENSATING",
    ("COMPENSATING", ev.SIGNALLED): "COMPENSATING",
    ("COMPENSATING", ev.WAITING): "COMPENSATING",
    ("COMPENSATING", ev.RESUMED): "COMPENSATING",
    ("COMPENSATING", ev.ROLLED_BACK): "ROLLED_BACK",
    ("COMPENSATING", ev.FAILED): "FAILED",
    ("COMPENSATING", ev.CANCELLED): "CANCELLED",
    ("FAILED", ev.RESUMED): "RUNNING",
}

_SETTLING: Final = frozenset({ev.STEP_COMPLETED, ev.STEP_FAILED, ev.DECIDED, ev.STEP_COMPENSATED})
"""The events that say how an attempt at a slot has ended. Until then the slot is open."""


class IllegalTransition(WpaError):
    """An event that may not follow. The journal, or this code, is broken: stop, don't guess."""


def status_after(state: State | None, event: Event) -> Status:
    """The status after ``event``. Raises IllegalTransition for an event that may not follow ``state``."""
    before = state.status if state is not None else ""
    after = LEGAL.get((before, event.event))
    if after is None:
        raise IllegalTransition(
            f"{event.tenant_id}.{event.execution_id}: {event.event} (seq {event.seq}) can't follow "
            f"status {before or 'none'}"
        )
    if state is None:
        return after
    if event.seq != state.seq + 1:
        raise IllegalTransition(
            f"{event.tenant_id}.{event.execution_id}: event seq {event.seq} follows seq {state.seq}"
        )
    slot = state.slots.get(event.data["slot"]) if event.event in _SETTLING else None
    if slot is not None and slot.status != "open":
        raise IllegalTransition(f"{event.execution_id}: slot {slot.id} is settled already ({slot.status})")
    return after
