"""What each event of the journal carries in ``data``: the shapes that the schemas publish.

The kernel writes these as plain dictionaries and reads them back leniently, so that old journals fold
for ever; these models are the promise made to everybody else. ``tests/unit/test_schemas.py`` holds
the events of the golden dialogues to them, key by key.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wpa.model import events as ev
from wpa.model.event_parts import (
    Ask,
    Attempt,
    By,
    Dropped,
    DurationMs,
    Lease,
    Moment,
    Next,
    Opens,
    Payload,
    Percentage,
    SignalIds,
    SlotId,
    StepId,
    StepNames,
    TimedOut,
    Undoes,
    WaitName,
    Worker,
)
from wpa.model.events import Failure
from wpa.model.state import Parent, Seed, Signal, SlotKind

__all__ = ["EVENT_DATA", "WaitingFor"]


class SettledBefore(msgspec.Struct, frozen=True, kw_only=True):
    """A slot that a rerun takes over from the execution it is a rerun of."""

    id: SlotId
    kind: SlotKind = "step"
    status: Literal["completed", "failed", "decided"]
    uses: str = ""
    attempt: Attempt = 1
    failures: int = 0
    lost: int = 0
    opened_at: str = ""
    started_at: str = ""
    finished_at: str = ""
    name: str = ""
    abandon: bool = False
    undoes: str = ""
    output: Payload = None
    error: Failure | None = None


class WorkflowStarted(Opens, frozen=True, kw_only=True):
    """The execution exists. Always the first event, and the only one with that ``seq``, 1."""

    version: Annotated[str, Meta(description="the definition's version; the execution stays on it")]
    definition_hash: Annotated[str, Meta(description="hash of the definition's content")]
    start_hash: Annotated[str, Meta(description="hash of what was asked: tells a duplicate from a conflict")]
    lease: Annotated[str, Meta(description="identity of the task that drives the execution")] = ""
    input: Payload
    variables: dict[str, Any] | UnsetType = UNSET
    metadata: Annotated[dict[str, Any], Meta(description="who asked, from the task")] | UnsetType = UNSET
    context: Annotated[dict[str, Any], Meta(description="the task's execution_context")] | UnsetType = UNSET
    start_at: Annotated[Moment, Meta(description="nothing begins before")] | UnsetType = UNSET
    deadline_at: Annotated[Moment, Meta(description="when it ends at the latest")] | UnsetType = UNSET
    parent: (
        Annotated[Parent, Meta(description="the execution, and its slot, that waits for this one")]
        | UnsetType
    ) = UNSET
    forked_from: Annotated[str, Meta(description="the execution that this one is a rerun of")] | UnsetType = (
        UNSET
    )
    settled: (
        Annotated[list[SettledBefore], Meta(description="what a rerun takes over, in order")] | UnsetType
    ) = UNSET
    seed: Annotated[str, Meta(description="a flow's randomness, hexadecimal")] | UnsetType = UNSET
    taken_seeds: (
        Annotated[list[Seed], Meta(description="the randomness of what a rerun takes over, in order")]
        | UnsetType
    ) = UNSET
    next: Next
    progress_percentage: Percentage


class WorkflowStepCompleted(Opens, frozen=True, kw_only=True):
    """An attempt succeeded, or a wait is over; the step never runs again."""

    step: StepId
    slot: SlotId
    uses: Annotated[str, Meta(description="the step type")]
    attempt: Attempt
    output: Payload
    started_at: Moment
    finished_at: Moment
    duration_ms: DurationMs
    signals: SignalIds | UnsetType = UNSET
    signal: Annotated[str, Meta(description="the signal that was waited for")] | UnsetType = UNSET
    by: By | UnsetType = UNSET
    timed_out: TimedOut | UnsetType = UNSET
    worker: Worker | UnsetType = UNSET
    undoes: Undoes | UnsetType = UNSET
    next: Next
    progress_percentage: Percentage


class WorkflowStepFailed(Opens, frozen=True, kw_only=True):
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
    signals: SignalIds | UnsetType = UNSET
    timed_out: TimedOut | UnsetType = UNSET
    worker: Worker | UnsetType = UNSET
    undoes: Undoes | UnsetType = UNSET
    next: Next
    progress_percentage: Percentage


class WorkflowDecisionPoint(Opens, frozen=True, kw_only=True):
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
    uses: (
        Annotated[dict[str, str], Meta(description="the step types of the lost ones that no event names yet")]
        | UnsetType
    ) = UNSET


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
    undone: Annotated[list[str], Meta(description="ids of the steps that are undone by now: the last 100")]
    next: Next


class WorkflowCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """The end: every step is settled, and this is the output."""

    output: Payload
    dropped: Dropped | UnsetType = UNSET
    duration_ms: DurationMs
    progress_percentage: Percentage


class WorkflowFailed(msgspec.Struct, frozen=True, kw_only=True):
    """The end, until it is retried: failed, with ``undone`` undone and ``not_undone`` still standing."""

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


# -- what waits, and what others ask ----------------------------------------------------------


class WaitingFor(msgspec.Struct, frozen=True, kw_only=True):
    """One of the slots for which an execution at rest waits."""

    slot: SlotId
    step: StepId
    kind: Annotated[
        Literal["timer", "signal", "approval", "child", "remote", "retry", "step"],
        Meta(description="`remote`: a worker that serves a queue; `retry`: the next attempt's moment"),
    ]
    until: Annotated[Moment, Meta(description="its moment, or its time-out")] | UnsetType = UNSET
    name: WaitName | UnsetType = UNSET


class WorkflowWaiting(msgspec.Struct, frozen=True, kw_only=True):
    """The execution is at rest: nobody drives it until something comes, or its alarm rings."""

    waiting_for: Annotated[list[WaitingFor], Meta(description="the first 20 open slots")]
    until: Annotated[Moment, Meta(description="the alarm; absent: none is set")] | UnsetType = UNSET
    status: (
        Annotated[
            Literal["PAUSED", "COMPENSATING"],
            Meta(description="the status that it keeps; absent: it is WAITING now"),
        ]
        | UnsetType
    ) = UNSET
    blocked: (
        Annotated[
            Failure,
            Meta(description="why it can't go on; it is tried again when its alarm rings, or somebody asks"),
        ]
        | UnsetType
    ) = UNSET


class CleanupBegun(msgspec.Struct, frozen=True, kw_only=True):
    """A flow was told that its execution is to end: its code cleans up before."""

    because: Annotated[str, Meta(examples=["Cancelled", "DeadlineExceeded"])]
    until: Annotated[Moment, Meta(description="it is not waited for any longer")]
    compensate: Annotated[bool, Meta(description="whether it is to undo what it did")]


class WorkflowResumed(Opens, frozen=True, kw_only=True):
    """The execution goes on: its alarm rang, a pause ended, a failed one is tried again, or a flow that was
    cancelled cleans up."""

    reason: Annotated[str, Meta(examples=["timer", "go on", "retry", "asked", "clean up"])]
    by: By | UnsetType = UNSET
    lease: Lease | UnsetType = UNSET
    next: Next | UnsetType = UNSET
    retry: (
        Annotated[list[str], Meta(description="open slots of which the next attempt begins")] | UnsetType
    ) = UNSET
    reopen: (
        Annotated[list[str], Meta(description="slots of a failed execution that are open once more")]
        | UnsetType
    ) = UNSET
    kept: (
        Annotated[
            list[str],
            Meta(description="those of them that wait for the child that they had, not for a new one"),
        ]
        | UnsetType
    ) = UNSET
    deadline_at: (
        Annotated[str, Meta(description="when the time of one that is tried again is over; empty: never")]
        | UnsetType
    ) = UNSET
    cleanup: CleanupBegun | UnsetType = UNSET
    ask: Ask | UnsetType = UNSET


class WorkflowPaused(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing new begins until the execution is resumed; steps that run may end."""

    by: By
    reason: str
    ask: Ask | UnsetType = UNSET


class WorkflowSignalled(msgspec.Struct, frozen=True, kw_only=True):
    """The execution was told something: a signal, an answer to an approval, how a child or a step of
    another worker ended. Kept until a slot takes it."""

    signal: Signal
    lease: Lease | UnsetType = UNSET
    ask: Ask | UnsetType = UNSET


class WorkflowEscalated(msgspec.Struct, frozen=True, kw_only=True):
    """An approval has waited long enough: from now on, these may answer, too."""

    step: StepId
    slot: SlotId
    users: list[str]
    roles: list[str]


class WorkflowCancelRequested(msgspec.Struct, frozen=True, kw_only=True):
    """The execution is to be stopped: what runs is cancelled, and undone where ``compensate``."""

    by: By
    reason: str
    compensate: Annotated[bool, Meta(description="whether completed steps are undone")]
    lease: Lease | UnsetType = UNSET
    ask: Ask | UnsetType = UNSET


class WorkflowCancelled(msgspec.Struct, frozen=True, kw_only=True):
    """The end: somebody wanted it stopped."""

    by: By
    reason: str
    terminated: Annotated[bool, Meta(description="ended as it was: nothing was undone for it")]
    undone: StepNames
    not_undone: StepNames
    error: Annotated[Failure, Meta(description="what went wrong on the way there")] | UnsetType = UNSET
    duration_ms: DurationMs
    ask: Ask | UnsetType = UNSET


class WorkflowContinued(Opens, frozen=True, kw_only=True):
    """The execution starts over with other input, under the same id: its slots are forgotten."""

    input: Payload
    run: Annotated[int, Meta(ge=2, description="counts the runs of this execution")]
    seed: (
        Annotated[str, Meta(description="the run's randomness; absent: that of the run before")] | UnsetType
    ) = UNSET
    next: Next


class WorkflowMigrated(msgspec.Struct, frozen=True, kw_only=True):
    """The execution goes on with another version of its definition."""

    version: str
    definition_hash: Annotated[str, Meta(description="hash of the definition's content")]
    previous_version: str
    by: By
    lease: Lease | UnsetType = UNSET
    ask: Ask | UnsetType = UNSET


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
    ev.WAITING: WorkflowWaiting,
    ev.RESUMED: WorkflowResumed,
    ev.PAUSED: WorkflowPaused,
    ev.SIGNALLED: WorkflowSignalled,
    ev.ESCALATED: WorkflowEscalated,
    ev.CANCEL_REQUESTED: WorkflowCancelRequested,
    ev.CANCELLED: WorkflowCancelled,
    ev.CONTINUED: WorkflowContinued,
    ev.MIGRATED: WorkflowMigrated,
}
"""Every event of the journal, by name."""
