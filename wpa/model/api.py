"""Requests and replies of ``workflow.api.<tenant>.<verb>``: the shapes that the AsyncAPI document publishes.

Every reply has ``ok``. Where it is false, the reply is a :class:`Refusal`, whatever the verb.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wpa.model.event_data import Moment, Payload
from wpa.model.events import Event, Failure
from wpa.model.tasks import StartPayload, TaskMetadata

__all__ = ["VERBS", "Refusal", "Verb"]

Ok = Annotated[Literal[True], Meta(description="the request was carried out")]
Sequence = Annotated[int, Meta(ge=1, description="the dead letter's sequence")]


class ApiProblem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a document: where, what, and what to do about it."""

    path: Annotated[str, Meta(description="a JSON path", examples=["$.steps[2].with.amount"])]
    message: str
    hint: str = ""


class ApiError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused."""

    code: Annotated[
        str,
        Meta(
            description="stable, machine-readable; `unavailable`: nothing is wrong, try again",
            examples=[
                "not_json",
                "invalid_name",
                "over_limit",
                "unknown_workflow",
                "conflict",
                "unavailable",
            ],
        ),
    ]
    message: str
    problems: list[ApiProblem] | UnsetType = UNSET


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request that was not carried out."""

    ok: Literal[False]
    error: ApiError


class StartRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The task envelope without what the request already says. Accepted means stored: it will run."""

    workflow_id: str
    version: Annotated[str, Meta(description="a deployed version; the latest where empty")] = ""
    execution_id: Annotated[
        str, Meta(description="the idempotency key; one is made where empty, and a retry then starts another")
    ] = ""
    payload: StartPayload = msgspec.field(default_factory=StartPayload)
    priority: Annotated[int, Meta(ge=0, le=9)] = 5
    metadata: TaskMetadata = msgspec.field(default_factory=TaskMetadata)


class StartReply(msgspec.Struct, frozen=True, kw_only=True):
    """What was queued, or is there already."""

    ok: Ok
    execution_id: str
    workflow_id: str
    version: str
    duplicate: Annotated[bool, Meta(description="the same start was made before; nothing new runs")]


class ExecutionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Names an execution."""

    execution_id: str


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


class StepStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One step or decision."""

    step: str
    uses: str
    kind: Literal["step", "decision"]
    status: Literal["pending", "running", "retrying", "completed", "failed", "skipped", "decided"]
    attempt: int
    started_at: Moment | None
    finished_at: Moment | None
    duration_ms: int | None
    retry_at: Moment | None
    input: Payload
    output: Payload
    error: Failure | None
    compensation: CompensationStatus | None


class ExecutionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An execution as its journal says it is."""

    execution_id: str
    workflow_id: str
    version: str
    tenant_id: str
    status: Annotated[
        Literal["RUNNING", "COMPENSATING", "COMPLETED", "FAILED", "ROLLED_BACK"],
        Meta(description="COMPLETED, FAILED and ROLLED_BACK are final"),
    ]
    created_at: Moment
    started_at: Moment
    finished_at: Moment | None
    duration_ms: int | None
    epoch: Annotated[int, Meta(description="1, and one more for each worker that took over")]
    worker: str
    current_steps: list[str]
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


class StatusReply(msgspec.Struct, frozen=True, kw_only=True):
    ok: Ok
    execution: ExecutionStatus


class HistoryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A page of an execution's journal."""

    execution_id: str
    after: Annotated[int, Meta(ge=0, description="events past this `seq`")] = 0
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 1_000


class HistoryReply(msgspec.Struct, frozen=True, kw_only=True):
    ok: Ok
    events: list[Event]
    more: Annotated[bool, Meta(description="there are further events: ask again, after the last one's `seq`")]


class ListRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The most recently active executions."""

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 20
    status: Annotated[str, Meta(description="only executions in this status")] = ""
    workflow_id: Annotated[str, Meta(description="only executions of this workflow")] = ""


class ExecutionRow(msgspec.Struct, frozen=True, kw_only=True):
    execution_id: str
    workflow_id: str
    status: str
    last_event: str
    timestamp: Moment
    events: int


class ListReply(msgspec.Struct, frozen=True, kw_only=True):
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


class ValidateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A document to check; nothing is kept."""

    document: Any


class ValidateReply(msgspec.Struct, frozen=True, kw_only=True):
    ok: Ok
    problems: list[ApiProblem]


class DefinitionsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the tenant has deployed."""


class DefinitionRow(msgspec.Struct, frozen=True, kw_only=True):
    workflow_id: str
    version: str
    hash: str
    deployed_at: Moment
    deployed_by: str
    latest: bool


class DefinitionsReply(msgspec.Struct, frozen=True, kw_only=True):
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
    document: Annotated[dict[str, Any], Meta(description="a definition")]


class DeadLettersRequest(msgspec.Struct, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 50


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was rejected."""

    sequence: Sequence
    code: str
    message: str
    timestamp: str
    subject: Annotated[str, Meta(description="where it was published")]
    size: Annotated[int, Meta(ge=0, description="bytes")]
    problems: list[ApiProblem] | UnsetType = UNSET


class DeadLettersReply(msgspec.Struct, frozen=True, kw_only=True):
    ok: Ok
    letters: Annotated[list[DeadLetter], Meta(description="the newest first")]


class DeadLetterRequest(msgspec.Struct, frozen=True, kw_only=True):
    sequence: Sequence


class DeadLetterInFull(DeadLetter, frozen=True, kw_only=True):
    """A rejected task with its original bytes."""

    headers: dict[str, str]
    text: Annotated[str, Meta(description="the original as UTF-8, what isn't replaced by U+FFFD")]
    base64: Annotated[str, Meta(description="the original", extra_json_schema={"contentEncoding": "base64"})]


class DeadLetterReply(msgspec.Struct, frozen=True, kw_only=True):
    ok: Ok
    letter: DeadLetterInFull


class RetryReply(msgspec.Struct, frozen=True, kw_only=True):
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
    "list": Verb("the most recently active executions", ListRequest, ListReply),
    "deploy": Verb("check and keep a definition", DeployRequest, DeployReply),
    "validate": Verb("check a definition", ValidateRequest, ValidateReply),
    "definitions": Verb("what is deployed", DefinitionsRequest, DefinitionsReply),
    "definition": Verb("one deployed definition", DefinitionRequest, DefinitionReply),
    "dlq_list": Verb("the newest rejected tasks", DeadLettersRequest, DeadLettersReply),
    "dlq_show": Verb("one rejected task with its original bytes", DeadLetterRequest, DeadLetterReply),
    "dlq_retry": Verb("queue a rejected task again", DeadLetterRequest, RetryReply),
}
