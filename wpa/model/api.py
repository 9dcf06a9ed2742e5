"""Requests and replies of ``workflow.api.<tenant>.<verb>``: the shapes that the AsyncAPI document publishes.

Every reply has ``ok``. Where it is false, the reply is a :class:`Refusal`, whatever the verb.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wpa.model import api_asks as asks
from wpa.model.api_common import (
    After,
    ApiProblem,
    Before,
    Cut,
    ExecutionRequest,
    LookedBack,
    Ok,
    PageReply,
    Refusal,
)
from wpa.model.api_status import ExecutionStatus
from wpa.model.event_data import WaitingFor
from wpa.model.event_parts import Moment
from wpa.model.events import Event, Failure
from wpa.model.tasks import StartPayload, TaskMetadata

__all__ = ["VERBS", "Refusal", "Verb"]

Sequence = Annotated[int, Meta(ge=1, description="the dead letter's sequence")]


class StartRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The task envelope without what the request already says. Accepted means stored: it will run."""

    workflow_id: str
    version: Annotated[str, Meta(description="a deployed version; the latest where empty")] = ""
    execution_id: Annotated[
        str, Meta(description="the idempotency key; one is made where empty, and a retry then starts another")
    ] = ""
    payload: StartPayload = msgspec.field(default_factory=StartPayload)
    start_at: Annotated[str, Meta(description="nothing begins before, RFC 3339; past: at once")] = ""
    priority: Annotated[int, Meta(ge=0, le=9)] = 5
    metadata: TaskMetadata = msgspec.field(default_factory=TaskMetadata)


class StartReply(msgspec.Struct, frozen=True, kw_only=True):
    """What was queued, or is there already."""

    ok: Ok
    execution_id: str
    workflow_id: str
    version: Annotated[str, Meta(description="it begins on this one, whatever is deployed meanwhile")]
    duplicate: Annotated[
        bool, Meta(description="the same start was made before, and has begun; nothing new runs")
    ]


class StatusReply(msgspec.Struct, frozen=True, kw_only=True):
    ok: Ok
    execution: ExecutionStatus


class HistoryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A page of an execution's journal. It may end before ``limit``: where an answer is full."""

    execution_id: str
    after: Annotated[int, Meta(ge=0, description="events past this `seq`")] = 0
    position: Annotated[int, Meta(ge=0, description="`next` of the page before: found faster")] = 0
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 1_000


class HistoryEvent(Event, frozen=True, kw_only=True):
    """An event as it is in the journal, unless it is ``cut``."""

    cut: Cut | UnsetType = UNSET


class HistoryReply(msgspec.Struct, frozen=True, kw_only=True):
    ok: Ok
    events: list[HistoryEvent]
    more: Annotated[bool, Meta(description="there are further events: ask again, after the last one's `seq`")]
    next: Annotated[int, Meta(description="where in the stream the next page begins: its `position`")] = 0


class EventsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The events of all executions, as they were stored: for who listens, and has missed some."""

    after: (
        Annotated[int, Meta(ge=0, description="events past this position: `next`, or a `Nats-Sequence`")]
        | UnsetType
    ) = UNSET


class EventsReply(msgspec.Struct, frozen=True, kw_only=True):
    ok: Ok
    events: Annotated[list[HistoryEvent], Meta(description="none where no `after` was given")]
    more: Annotated[
        bool,
        Meta(description="there are further events: ask again, `after` the `next`; where none came, soon"),
    ]
    next: Annotated[int, Meta(description="the position up to which the events are told")]


class ListRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The most recently active executions."""

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 20
    status: Annotated[
        str, Meta(description="only those in this status; or in these, with commas between")
    ] = ""
    workflow_id: Annotated[str, Meta(description="only executions of this workflow")] = ""
    before: Before = 0


class ExecutionRow(msgspec.Struct, frozen=True, kw_only=True):
    execution_id: str
    workflow_id: str
    status: str
    last_event: str
    timestamp: Moment
    events: int
    waiting_for: (
        Annotated[list[WaitingFor], Meta(description="where it is at rest: the first 20 open slots")]
        | UnsetType
    ) = UNSET
    until: Annotated[Moment, Meta(description="its alarm while it is at rest")] | UnsetType = UNSET
    blocked: Failure | UnsetType = UNSET
    cut: Cut | UnsetType = UNSET


class ListReply(LookedBack, frozen=True, kw_only=True):
    ok: Ok
    executions: list[ExecutionRow]


class DeployRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A definition to keep. The same id and version with other content is refused."""

    document: Annotated[dict[str, Any], Meta(description="a definition")]
    deployed_by: str = ""


class DeployReply(msgspec.Struct, frozen=True, kw_only=True):
    ok: Ok
    workflow_id: str
    version: str
    hash: str
    created: Annotated[bool, Meta(description="false: the same definition was deployed before")]
    hides_flow: Annotated[
        bool, Meta(description="a flow has this name, too; starts are the plan's as long as it is deployed")
    ] = False


class ValidateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A document to check; nothing is kept."""

    document: Any


class ValidateReply(msgspec.Struct, frozen=True, kw_only=True):
    ok: Ok
    problems: list[ApiProblem]
    cut: Cut | UnsetType = UNSET


class DefinitionsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the tenant has deployed, by workflow, and by when it was."""

    after: After = ""


class DefinitionRow(msgspec.Struct, frozen=True, kw_only=True):
    workflow_id: str
    version: str
    hash: str
    deployed_at: Moment
    deployed_by: Annotated[str, Meta(description="of a flow: the worker that has it")]
    latest: Annotated[bool, Meta(description="what a start without a version takes")]
    kind: Annotated[Literal["plan", "flow"], Meta(description="`flow`: code that workers have installed")]
    cut: Cut | UnsetType = UNSET


class DefinitionsReply(PageReply, frozen=True, kw_only=True):
    ok: Ok
    definitions: list[DefinitionRow]


class DefinitionRequest(msgspec.Struct, frozen=True, kw_only=True):
    workflow_id: str
    version: Annotated[str, Meta(description="the latest where empty")] = ""


class DefinitionReply(msgspec.Struct, frozen=True, kw_only=True):
    ok: Ok
    workflow_id: str
    version: str
    hash: str
    kind: Literal["plan", "flow"]
    document: Annotated[dict[str, Any], Meta(description="a definition")]


class DeadLettersRequest(msgspec.Struct, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 50
    before: Annotated[int, Meta(ge=0, description="`next` of the last answer: only older ones; 0: all")] = 0


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was rejected."""

    sequence: Sequence
    code: str
    message: str
    timestamp: str
    subject: Annotated[str, Meta(description="where it was published")]
    size: Annotated[int, Meta(ge=0, description="bytes")]
    problems: list[ApiProblem] | UnsetType = UNSET
    cut: Cut | UnsetType = UNSET


class DeadLettersReply(msgspec.Struct, frozen=True, kw_only=True):
    ok: Ok
    letters: Annotated[list[DeadLetter], Meta(description="the newest first")]
    more: Annotated[bool, Meta(description="there are older ones: ask again, `before` the `next`")]
    next: Annotated[int, Meta(description="where the next page goes on; 0: there is none")]


class DeadLetterRequest(msgspec.Struct, frozen=True, kw_only=True):
    sequence: Sequence


class DeadLetterInFull(DeadLetter, frozen=True, kw_only=True):
    """A rejected task with its original bytes."""

    headers: dict[str, str]
    text: Annotated[str, Meta(description="the original as UTF-8, what isn't replaced by U+FFFD")]
    base64: Annotated[
        str | None,
        Meta(
            description="the original; null where an answer has no room for it",
            extra_json_schema={"contentEncoding": "base64"},
        ),
    ]


class DeadLetterReply(msgspec.Struct, frozen=True, kw_only=True):
    ok: Ok
    letter: DeadLetterInFull


class LetterRetryReply(msgspec.Struct, frozen=True, kw_only=True):
    ok: Ok
    task_sequence: int


class Verb(NamedTuple):
    """One verb of the API: what it does, what it takes, what it answers."""

    summary: str
    request: type[msgspec.Struct]
    reply: type[msgspec.Struct]


VERBS: Final[dict[str, Verb]] = {
    "start": Verb("start an execution", StartRequest, StartReply),
    "status": Verb("the state of an execution, step by step", ExecutionRequest, StatusReply),
    "history": Verb("the events of an execution", HistoryRequest, HistoryReply),
    "events": Verb("the events of all executions", EventsRequest, EventsReply),
    "list": Verb("the most recently active executions", ListRequest, ListReply),
    "approvals": Verb("what waits for somebody's approval", asks.ApprovalsRequest, asks.ApprovalsReply),
    "signal": Verb("tell an execution something", asks.SignalRequest, asks.AskReply),
    "answer": Verb("approve or reject", asks.AnswerRequest, asks.AskReply),
    "pause": Verb("begin nothing new until it is resumed", asks.ReasonRequest, asks.AskReply),
    "resume": Verb("end a pause", asks.ReasonRequest, asks.AskReply),
    "cancel": Verb("stop an execution, and undo what it did", asks.CancelRequest, asks.AskReply),
    "terminate": Verb("end an execution as it is", asks.ReasonRequest, asks.AskReply),
    "retry": Verb("try a failed execution again, in place", asks.ReasonRequest, asks.AskReply),
    "migrate": Verb("go on with another version", asks.MigrateRequest, asks.AskReply),
    "rerun": Verb("start a new execution from an old one", asks.RerunRequest, asks.RerunReply),
    "schedule_list": Verb("every schedule", asks.SchedulesRequest, asks.SchedulesReply),
    "schedule_pause": Verb("start nothing by itself until resumed", asks.ScheduleRequest, asks.ScheduleReply),
    "schedule_resume": Verb("end a schedule's pause", asks.ScheduleRequest, asks.ScheduleReply),
    "schedule_trigger": Verb("start what is scheduled now", asks.TriggerRequest, asks.TriggerReply),
    "schedule_delete": Verb("forget a schedule", asks.ScheduleRequest, asks.ScheduleReply),
    "workers": Verb("the workers that are there", asks.WorkersRequest, asks.WorkersReply),
    "deploy": Verb("check and keep a definition", DeployRequest, DeployReply),
    "validate": Verb("check a definition", ValidateRequest, ValidateReply),
    "definitions": Verb("what is deployed", DefinitionsRequest, DefinitionsReply),
    "definition": Verb("one deployed definition", DefinitionRequest, DefinitionReply),
    "dlq_list": Verb("the newest rejected tasks", DeadLettersRequest, DeadLettersReply),
    "dlq_show": Verb("one rejected task with its original bytes", DeadLetterRequest, DeadLetterReply),
    "dlq_retry": Verb("queue a rejected task again", DeadLetterRequest, LetterRetryReply),
}
