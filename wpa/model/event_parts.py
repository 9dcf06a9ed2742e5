"""What the data of several events, and the documents of the API, have in common."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wpa.model.state import SlotKind

__all__ = [
    "Ask",
    "Attempt",
    "By",
    "Dropped",
    "DurationMs",
    "Lease",
    "Moment",
    "Next",
    "OpenedWait",
    "Opens",
    "Payload",
    "Percentage",
    "SignalIds",
    "SlotId",
    "StepId",
    "StepNames",
    "TimedOut",
    "Undoes",
    "WaitName",
    "Worker",
]

Moment = Annotated[
    str, Meta(description="RFC 3339, UTC, milliseconds", extra_json_schema={"format": "date-time"})
]
StepId = Annotated[str, Meta(description="the step's id in the definition")]
SlotId = Annotated[
    str,
    Meta(description="`<step>`, `<step>:<n>` from its second occurrence on, `<step>:undo` for its undoing"),
]
Next = Annotated[list[str], Meta(description="the slots that are open from this event on")]
Percentage = Annotated[int, Meta(ge=0, le=100, description="what share of the steps is settled")]
Attempt = Annotated[int, Meta(ge=1, description="counts the starts of this slot, from 1")]
DurationMs = Annotated[int, Meta(ge=0, description="milliseconds")]
StepNames = Annotated[list[str], Meta(description="step ids")]
Payload = Annotated[
    Any,
    Meta(
        description='any JSON; `{"$blob": {"key", "size", "sha256"}}` stands for a payload in the object '
        "store `wpa_payloads`"
    ),
]


Dropped = Annotated[list[str], Meta(description="slots that are not wanted any more: cancelled")]
WaitName = Annotated[str, Meta(description="the signal, the child's execution id, or the step's queue")]
By = Annotated[dict[str, Any], Meta(description="who asked: the `metadata` of the task")]
Ask = Annotated[str, Meta(description="names the task that asked for it: the same task again is nothing new")]
Lease = Annotated[
    str,
    Meta(description="identity of the task that drives the execution on; its author is now the driver"),
]
SignalIds = Annotated[list[str], Meta(description="ids of the signals that are used up by it")]
TimedOut = Annotated[bool, Meta(description="nothing came in time")]
Undoes = Annotated[str, Meta(description="the slot that a flow has undone with it, or tried to")]
Worker = Annotated[str, Meta(description="the worker that ran it for a queue")]


class OpenedWait(msgspec.Struct, frozen=True, kw_only=True):
    """What a slot that is open from now on waits for, or undoes."""

    kind: SlotKind
    uses: Annotated[str, Meta(description="the step type")] = ""
    until: Annotated[Moment, Meta(description="its moment, or its time-out")] | UnsetType = UNSET
    name: WaitName | UnsetType = UNSET
    abandon: (
        Annotated[bool, Meta(description="a child that goes on when nobody waits for it any more")]
        | UnsetType
    ) = UNSET
    undoes: Undoes | UnsetType = UNSET


class Opens(msgspec.Struct, frozen=True, kw_only=True):
    """What any event may say of the slots beside the one that it is about."""

    waits: (
        Annotated[dict[str, OpenedWait], Meta(description="of the slots in `next` those that wait, or undo")]
        | UnsetType
    ) = UNSET
    dropped: Dropped | UnsetType = UNSET
    recorded: (
        Annotated[list[Any], Meta(description="values that a flow came by, for its replay")] | UnsetType
    ) = UNSET
