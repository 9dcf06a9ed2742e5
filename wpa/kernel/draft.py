"""A draft: an event that is decided and not yet recorded."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from wpa.kernel.transitions import status_after
from wpa.model import events as ev
from wpa.model.events import Event
from wpa.model.state import State
from wpa.model.times import parse_ms, rfc3339

__all__ = ["Draft", "plain_value", "seal", "with_duration"]

_PLAIN: Final = {ev.COMPLETED: "output", ev.CONTINUED: "input"}


class Draft(msgspec.Struct, frozen=True):
    """What the kernel wants recorded, at ``at_ms`` (milliseconds since the Unix epoch)."""

    event: str
    data: dict[str, Any]
    at_ms: int


def seal(draft: Draft, state: State, *, id: str, worker: str, epoch: int) -> Event:
    """The draft as the event that follows ``state``.

    Raises IllegalTransition for one that may not: once it was stored, nobody could load the execution again.
    """
    event = Event(
        id=id,
        seq=state.seq + 1,
        event=draft.event,
        tenant_id=state.tenant,
        workflow_id=state.workflow,
        execution_id=state.execution,
        timestamp=rfc3339(draft.at_ms),
        task_id=state.task_id,
        global_task_id=state.global_task_id,
        worker=worker,
        epoch=epoch,
        traceparent=state.traceparent,
        data=draft.data,
    )
    status_after(state, event)
    return event


def plain_value(draft: Draft) -> str:
    """The name of what ``draft`` holds as a value, and not as the journal keeps it; empty where all is."""
    if draft.event == ev.STEP_COMPLETED:
        return "output" if draft.data.get("timed_out") else ""  # the default of a wait
    return _PLAIN.get(draft.event, "")


def with_duration(state: State, data: dict[str, Any], now_ms: int) -> dict[str, Any]:
    """``data`` with how long the execution has taken, in milliseconds."""
    data["duration_ms"] = max(0, now_ms - parse_ms(state.created_at))
    return data
