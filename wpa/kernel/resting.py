"""Rest: an execution that only waits has no driver. When it is looked at again, and what it says of that."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from wpa.kernel import waits
from wpa.kernel.draft import Draft
from wpa.model import events as ev
from wpa.model.state import State
from wpa.model.times import parse_ms, rfc3339

__all__ = ["begin", "wake_ms"]


def wake_ms(
    state: State, retrying: Collection[str], due_ms: int | None, taken: Collection[str], *, ends: bool
) -> int | None:
    """When the execution has to be looked at again though nobody says anything; None: never.

    Args:
        state: as it is now.
        retrying: the open slots among which any are that wait for their next attempt.
        due_ms: when the first of the open waits that still count is over by itself.
        taken: the slots that somebody takes care of already.
        ends: whether it would end because its time is over: what has failed already would not.
    """
    if state.status == "PAUSED":
        return None
    moments = []
    for slot_id in retrying:
        retry_at = state.slots[slot_id].retry_at
        if retry_at and slot_id not in taken:
            moments.append(parse_ms(retry_at))
    if state.start_at:
        moments.append(parse_ms(state.start_at))
    ends_at = state.cleanup.until if state.cleanup is not None else state.deadline_at
    if ends_at and ends and state.status != "COMPENSATING":
        moments.append(parse_ms(ends_at))
    if due_ms is not None:
        moments.append(due_ms)
    return min(moments) if moments else None


def begin(state: State, wake_at_ms: int | None, now_ms: int) -> Draft:
    """Come to rest: nobody drives the execution until something comes, or its alarm rings."""
    data: dict[str, Any] = {"waiting_for": waits.waiting_for(state)}
    if state.status != "RUNNING":
        data["status"] = state.status
    if wake_at_ms is not None:
        data["until"] = rfc3339(wake_at_ms)
    return Draft(ev.WAITING, data, now_ms)
