"""Requests and replies of the verbs that ask something of an execution, a schedule, or the workers."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wpa.model.api_common import After, Before, Cut, LookedBack, Ok, PageReply
from wpa.model.api_status import WaitingView
from wpa.model.event_parts import Moment
from wpa.model.tasks import TaskMetadata

__all__ = [
    "AnswerRequest",
    "ApprovalsReply",
    "ApprovalsRequest",
    "AskReply",
    "CancelRequest",
    "MigrateRequest",
    "ReasonRequest",
    "RerunReply",
    "RerunRequest",
    "ScheduleReply",
    "ScheduleRequest",
    "SchedulesReply",
    "SchedulesRequest",
    "SignalRequest",
    "TriggerReply",
    "TriggerRequest",
    "WorkersReply",
    "WorkersRequest",
]

Reason = Annotated[str, Meta(description="why; recorded")]


class _OfExecution(msgspec.Struct, frozen=True, kw_only=True):
    execution_id: str
    metadata: Annotated[TaskMetadata, Meta(description="who asks; recorded")] = msgspec.field(
        default_factory=TaskMetadata
    )


class _Ask(_OfExecution, frozen=True, kw_only=True):
    task_id: Annotated[
        str,
        Meta(description="the same verb twice under the same id is one ask; where empty, each is its own"),
    ] = ""


class SignalRequest(_Ask, frozen=True, kw_only=True):
    """Tell an execution something: the next step that waits for ``signal`` gets ``payload``."""

    signal: Annotated[str, Meta(description="its name")]
    payload: Any = None
    id: Annotated[
        str, Meta(description="the same id twice counts once; where empty, the task_id, or else one is made")
    ] = ""


class AnswerRequest(_Ask, frozen=True, kw_only=True):
    """Approve or reject, as the one whom ``metadata.user_id`` and ``metadata.roles`` name."""

    step: Annotated[str, Meta(description="the approval's step, or slot")]
    approved: bool
    comment: str = ""


class ReasonRequest(_Ask, frozen=True, kw_only=True):
    """Names an execution, and why it is asked."""

    reason: Reason = ""


class CancelRequest(_Ask, frozen=True, kw_only=True):
    """Stop an execution."""

    reason: Reason = ""
    compensate: Annotated[bool, Meta(description="whether completed steps are undone")] = True


class MigrateRequest(_Ask, frozen=True, kw_only=True):
    """Go on with another version, where what is settled fits it. The execution must wait or be paused."""

    version: Annotated[str, Meta(description="a deployed version of the same workflow")]


class AskReply(msgspec.Struct, frozen=True, kw_only=True):
    """It may be done, and will be."""

    ok: Ok
    execution_id: str
    duplicate: Annotated[bool, Meta(description="it was asked before: nothing new happens")]
    queued: Annotated[bool, Meta(description="true: stored as a task; false: recorded in the journal")]


class RerunRequest(_OfExecution, frozen=True, kw_only=True):
    """A new execution of the same version, with what the old one had settled before ``from_step``."""

    from_step: Annotated[str, Meta(description="the first step to run again; all of them where empty")] = ""
    input: Annotated[Any, Meta(description="the old execution's where absent")] | UnsetType = UNSET
    new_execution_id: Annotated[str, Meta(description="the idempotency key; one is made where empty")] = ""


class RerunReply(msgspec.Struct, frozen=True, kw_only=True):
    """What was queued, or is there already."""

    ok: Ok
    execution_id: str
    workflow_id: str
    version: str
    forked_from: str
    duplicate: Annotated[bool, Meta(description="the same rerun was asked for before; nothing new runs")]


class ApprovalsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The open approvals, those of the most recently active executions first; or those of one execution."""

    limit: Annotated[int, Meta(ge=1, le=1_000, description="no more executions are asked from then on")] = 100
    before: Before = 0
    execution_id: (
        Annotated[str, Meta(description="only this execution's: all of them, whatever `limit` says")]
        | UnsetType
    ) = UNSET
    after: Annotated[str, Meta(description="beside it: only those opened after this slot")] = ""


class OpenApproval(WaitingView, frozen=True, kw_only=True):
    """An approval that waits for answers."""

    execution_id: str
    workflow_id: str
    status: str
    cut: Cut | UnsetType = UNSET


class RestOfApprovals(msgspec.Struct, frozen=True, kw_only=True):
    """The request for those approvals of an execution that an answer had no room for."""

    execution_id: str
    after: str


class ApprovalsReply(LookedBack, frozen=True, kw_only=True):
    ok: Ok
    approvals: Annotated[
        list[OpenApproval], Meta(description="of those found, the one that has waited longest first")
    ]
    rest: (
        Annotated[
            RestOfApprovals,
            Meta(description="there was no room for all of one execution: send this for the rest"),
        ]
        | UnsetType
    ) = UNSET


class SchedulesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Every schedule of the tenant, by workflow."""

    after: After = ""


class SchedulesReply(PageReply, frozen=True, kw_only=True):
    ok: Ok
    schedules: list[dict[str, Any]]


class ScheduleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Names a schedule: by the workflow that it starts."""

    workflow_id: str


class ScheduleReply(msgspec.Struct, frozen=True, kw_only=True):
    """It is done."""

    ok: Ok
    schedule: Annotated[dict[str, Any], Meta(description="as it is now")]


class TriggerRequest(ScheduleRequest, frozen=True, kw_only=True):
    """Names a schedule, and what is started of it."""

    new_execution_id: Annotated[
        str, Meta(description="the idempotency key; where empty, made of the workflow and this second")
    ] = ""


class TriggerReply(msgspec.Struct, frozen=True, kw_only=True):
    """What was started."""

    ok: Ok
    workflow_id: str
    execution_id: str


class WorkersRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The workers of all tenants: they are shared."""

    after: After = ""


class WorkerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that was heard of within the last 30 seconds."""

    worker: str
    host: str
    pid: int
    version: str
    started_at: Moment
    step_types: list[str]
    queues: Annotated[list[str], Meta(description="the queues whose steps it runs")] = msgspec.field(
        default_factory=list
    )
    flows: Annotated[list[str], Meta(description="the flows that it has")] = msgspec.field(
        default_factory=list
    )
    codes: Annotated[dict[str, str], Meta(description="the hash of each flow's code")] = msgspec.field(
        default_factory=dict
    )
    cut: Cut | UnsetType = UNSET


class WorkersReply(PageReply, frozen=True, kw_only=True):
    ok: Ok
    workers: list[WorkerRow]
