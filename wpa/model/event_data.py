"""What each event carries in ``data``, and what live events say: the shapes that the schemas publish.

The kernel writes these as plain dictionaries and reads them back leniently, so that old journals fold
for ever; these models are the promise made to everybody else. ``tests/unit/test_schemas.py`` holds
the events of the golden dialogues to them, key by key.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wpa.model import events as ev
from wpa.model.events import Failure

__all__ = ["EVENT_DATA", "LIVE_EVENTS", "Moment"]

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


class WorkflowStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The execution exists. Always the first event, and the only one with that ``seq``, 1."""

    version: Annotated[str, Meta(description="the definition's version; the execution stays on it")]
    definition_hash: Annotated[str, Meta(description="hash of the definition's content")]
    start_hash: Annotated[str, Meta(description="hash of what was asked: tells a duplicate from a conflict")]
    lease: Annotated[str, Meta(description="identity of the task that drives the execution")] = ""
    input: Payload
    variables: dict[str, Any] | UnsetType = UNSET
    metadata: Annotated[dict[str, Any], Meta(description="who asked, from the task")] | UnsetType = UNSET
    context: Annotated[dict[str, Any], Meta(description="the task's execution_context")] | UnsetType = UNSET
    next: Next
    progress_percentage: Percentage


class WorkflowStepCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt succeeded; the step never runs again."""

    step: StepId
    slot: SlotId
    uses: Annotated[str, Meta(description="the step type")]
    attempt: Attempt
    output: Payload
    started_at: Moment
    finished_at: Moment
    duration_ms: DurationMs
    next: Next
    progress_percentage: Percentage


class WorkflowStepFailed(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt failed: to be retried at ``retry_at``, or for good where ``final``."""

    step: StepId
    slot: SlotId
    uses: Annotated[str, Meta(description="the step type")]
    attempt: Attempt
    error: Failure
    final: Annotated[bool, Meta(description="there will be no further attempt")]
    retry_at: (
        Annotated[Moment, Meta(description="when it is tried again; absent where final")] | UnsetType
    ) = UNSET
    compensation: (
        Annotated[bool, Meta(description="it was an undo that gave up; only where final")] | UnsetType
    ) = UNSET
    on_error: (
        Annotated[
            Literal["fail", "continue", "compensate"], Meta(description="what follows; only where final")
        ]
        | UnsetType
    ) = UNSET
    started_at: Annotated[Moment, Meta(description="absent where there was no attempt")] | UnsetType = UNSET
    finished_at: Moment | UnsetType = UNSET
    duration_ms: DurationMs | UnsetType = UNSET
    next: Next
    progress_percentage: Percentage


class WorkflowDecisionPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A switch, or a step's ``if``, was decided."""

    step: StepId
    slot: SlotId
    decision: Annotated[
        dict[str, Any],
        Meta(
            description="what was decided, and which steps are skipped for it",
            examples=[{"kind": "switch", "taken": ["review"], "skipped": ["approve"]}],
        ),
    ]
    next: Next
    progress_percentage: Percentage


class WorkflowRecovered(msgspec.Struct, frozen=True, kw_only=True):
    """Another worker has taken over, under the next ``epoch``; the one before has stopped or must."""

    previous_worker: str
    reason: str
    lost: Annotated[list[str], Meta(description="slots whose attempt nobody will report; they run again")]


class WorkflowCompensating(msgspec.Struct, frozen=True, kw_only=True):
    """The execution can't succeed: what was completed is undone, last first."""

    failed_step: Annotated[str, Meta(description="the step that gave up; empty where it was no step")]
    error: Failure
    undo: Annotated[list[str], Meta(description="the undo slots, in the order in which they run")]
    next: Next


class WorkflowStepCompensated(msgspec.Struct, frozen=True, kw_only=True):
    """A completed step's work is undone."""

    step: StepId
    slot: SlotId
    uses: Annotated[str, Meta(description="the step type that undid it")]
    attempt: Attempt
    output: Payload
    started_at: Moment
    finished_at: Moment
    duration_ms: DurationMs
    undone: StepNames
    next: Next


class WorkflowCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """The end: every step is settled, and this is the output."""

    output: Payload
    duration_ms: DurationMs
    progress_percentage: Percentage


class WorkflowFailed(msgspec.Struct, frozen=True, kw_only=True):
    """The end: failed, with ``undone`` undone and the work of ``not_undone`` still standing."""

    error: Failure
    failed_step: Annotated[str, Meta(description="empty where it was no step")]
    undone: StepNames
    not_undone: StepNames
    duration_ms: DurationMs


class WorkflowRolledBack(msgspec.Struct, frozen=True, kw_only=True):
    """The end: failed, and everything that could be compensated is."""

    error: Failure
    failed_step: Annotated[str, Meta(description="empty where it was no step")]
    undone: StepNames
    duration_ms: DurationMs


EVENT_DATA: Final[dict[str, type[msgspec.Struct]]] = {
    ev.STARTED: WorkflowStarted,
    ev.STEP_COMPLETED: WorkflowStepCompleted,
    ev.STEP_FAILED: WorkflowStepFailed,
    ev.DECIDED: WorkflowDecisionPoint,
    ev.RECOVERED: WorkflowRecovered,
    ev.COMPENSATING: WorkflowCompensating,
    ev.STEP_COMPENSATED: WorkflowStepCompensated,
    ev.COMPLETED: WorkflowCompleted,
    ev.FAILED: WorkflowFailed,
    ev.ROLLED_BACK: WorkflowRolledBack,
}
"""Every event of the journal, by name."""


class _Live(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: str
    workflow_id: str
    execution_id: str
    step: StepId
    slot: SlotId
    attempt: Attempt
    timestamp: Moment
    worker: str


class StepStarted(_Live, frozen=True, kw_only=True):
    """An attempt begins. Live only: at most once, stored nowhere."""

    event: Literal["step_started"]


class StepProgress(_Live, frozen=True, kw_only=True):
    """A step reports how far it is. Live only: at most once, stored nowhere."""

    event: Literal["step_progress"]
    percentage: Annotated[float, Meta(ge=0, le=100)]
    message: str
    data: Annotated[dict[str, Any], Meta(description="whatever else the step reports")] | UnsetType = UNSET


class StepHeartbeat(_Live, frozen=True, kw_only=True):
    """A long step says that it is alive. Live only: at most once, stored nowhere."""

    event: Literal["step_heartbeat"]


LIVE_EVENTS: Final[dict[str, type[msgspec.Struct]]] = {
    ev.LIVE_STARTED: StepStarted,
    ev.LIVE_PROGRESS: StepProgress,
    "step_heartbeat": StepHeartbeat,
}
"""Every live event, by name. Flat: they have no ``data`` envelope and no ``seq``."""
