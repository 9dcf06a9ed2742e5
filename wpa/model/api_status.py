"""The status document: what an execution looks like from outside."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wpa.model.api_common import Cut
from wpa.model.event_parts import Moment, Payload, WaitName
from wpa.model.events import Failure
from wpa.model.state import Cancel, Parent, Status

__all__ = ["ApprovalView", "ChildView", "ExecutionStatus", "StepStatus", "WaitingView"]


class ProgressCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of steps; decisions are not counted."""

    total: int
    completed: int
    failed: int
    skipped: int
    percentage: Annotated[int, Meta(ge=0, le=100)]


class CompensationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far the undoing of a step is."""

    uses: str
    status: Literal["pending", "running", "completed", "failed"]
    attempt: int
    started_at: Moment | None
    finished_at: Moment | None
    error: Failure | None


class TurnsView(msgspec.Struct, frozen=True, kw_only=True):
    """How far a step is that runs more than once."""

    done: Annotated[int, Meta(ge=0, description="turns that have ended, the failed ones too")]
    failed: Annotated[int, Meta(ge=0)]
    total: Annotated[int, Meta(ge=0)] | None


class StepStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One step or decision."""

    step: str
    slot: Annotated[str, Meta(description="the step, and which occurrence of it from the second on")]
    uses: str
    kind: Annotated[
        Literal["step", "decision", "timer", "signal", "approval", "child", "remote"],
        Meta(description="`remote`: run by a worker that serves a queue"),
    ]
    status: Annotated[
        Literal[
            "pending",
            "running",
            "retrying",
            "waiting",
            "completed",
            "failed",
            "skipped",
            "decided",
            "cancelled",
        ],
        Meta(description="`waiting`: for its moment, a signal, an answer, a child, or a queue's worker"),
    ]
    attempt: int
    started_at: Moment | None
    finished_at: Moment | None
    duration_ms: int | None
    retry_at: Moment | None
    until: Annotated[Moment, Meta(description="its moment, or its time-out")] | None
    name: Annotated[str, Meta(description="the signal, the child's execution id, or the step's queue")] | None
    input: Payload
    output: Payload
    error: Failure | None
    compensation: CompensationStatus | None
    turns: Annotated[TurnsView, Meta(description="of `foreach` and `repeat` only")] | UnsetType = UNSET


class AnswerView(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody said to an approval."""

    by: dict[str, Any]
    decision: Literal["approved", "rejected"]
    comment: str
    at: Moment


class ApprovalView(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asked, what, and what was answered. Nobody named: anybody may answer."""

    message: str
    users: Annotated[list[str], Meta(description="who may answer now, past escalations included")]
    roles: list[str]
    count: Annotated[int, Meta(ge=1, description="so many different people have to approve")]
    answers: list[AnswerView]
    unknown: (
        Annotated[
            Literal[True],
            Meta(
                description="the worker that answers can't run the workflow's code: it tells who has "
                "answered, but not who is asked, how many, and what; ask again, for another worker may know"
            ),
        ]
        | UnsetType
    ) = UNSET


class WaitingView(msgspec.Struct, frozen=True, kw_only=True):
    """One of the slots for which an execution waits."""

    slot: str
    step: str
    kind: Literal["timer", "signal", "approval", "child", "remote", "retry"]
    since: Moment
    until: Annotated[Moment, Meta(description="its moment, or its time-out")] | UnsetType = UNSET
    name: WaitName | UnsetType = UNSET
    approval: Annotated[ApprovalView, Meta(description="of kind `approval` only")] | UnsetType = UNSET


class ChildView(msgspec.Struct, frozen=True, kw_only=True):
    """An execution that this one has started."""

    slot: str
    execution_id: str
    status: Annotated[
        Literal["waiting", "completed", "failed", "cancelled"],
        Meta(description="of the slot: `completed`, for one that is not waited for, means started"),
    ]


class SignalsView(msgspec.Struct, frozen=True, kw_only=True):
    """What was told to the execution and no step has taken yet."""

    count: int
    names: Annotated[list[str], Meta(description="each once, the oldest first, 20 at most")]


class ExecutionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An execution as its journal says it is."""

    execution_id: str
    workflow_id: str
    version: str
    tenant_id: str
    status: Annotated[
        Status,
        Meta(description="COMPLETED, FAILED, ROLLED_BACK and CANCELLED are ends; a retry may follow FAILED"),
    ]
    created_at: Moment
    started_at: Moment
    start_at: Annotated[Moment, Meta(description="nothing begins before")] | None
    deadline_at: Annotated[Moment, Meta(description="it ends then at the latest")] | None
    finished_at: Moment | None
    duration_ms: int | None
    run: Annotated[int, Meta(ge=1, description="one more for each time that it started over")]
    epoch: Annotated[int, Meta(description="1, and one more for each worker that drove it")]
    worker: Annotated[str, Meta(description="the last one that drove it")]
    at_rest: Annotated[bool, Meta(description="nobody drives it at the moment")]
    current_steps: list[str]
    waiting_for: Annotated[list[WaitingView], Meta(description="the first 20 slots that wait")]
    wake_at: Annotated[Moment, Meta(description="its alarm while it is at rest")] | None
    blocked: (
        Annotated[
            Failure,
            Meta(description="why its definition can't go on with what is recorded; it is tried again"),
        ]
        | None
    )
    cancel: Annotated[Cancel, Meta(description="a cancel that was asked for, and by whom")] | None
    cleans_up_until: Annotated[Moment, Meta(description="a flow that ends early has so long")] | None
    parent: Annotated[Parent, Meta(description="the execution, and its slot, that waits for it")] | None
    children: Annotated[list[ChildView], Meta(description="the first 100 executions that it started")]
    signals: SignalsView
    forked_from: Annotated[str, Meta(description="the execution that this one is a rerun of")] | None
    progress: ProgressCounts
    steps: list[StepStatus]
    input: Payload
    output: Payload
    error: Failure | None
    failed_step: str | None
    undone: list[str]
    not_undone: list[str]
    metadata: dict[str, Any]
    events: Annotated[int, Meta(description="how many its journal holds")]
    traceparent: str
    cut: Cut | UnsetType = UNSET
