"""The door: what comes in as bytes leaves as a request to drive, or as a dead letter with a reason."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Literal

import msgspec

from wpa.errors import PoisonMessage, TaskRejected
from wpa.model.codec import decode_task, start_hash
from wpa.model.events import Failure
from wpa.model.ids import check_execution, check_version, check_workflow
from wpa.model.limits import Limits
from wpa.model.state import Parent, State
from wpa.model.subjects import may_be_answered
from wpa.model.tasks import (
    CHILD_ENDED,
    SCHEDULE_DUE,
    ChildEndedPayload,
    ChildEndedTask,
    Envelope,
    ScheduleDue,
    Task,
    TaskMetadata,
    TimerDue,
)
from wpa.model.times import rfc3339
from wpa.ports.live import Live
from wpa.ports.tasks import Lease

__all__ = [
    "ONCE_HEADER",
    "REPLY_HEADER",
    "TRIGGER_HEADER",
    "VERSION_HEADER",
    "Heard",
    "Origin",
    "Request",
    "admit",
    "answer",
    "conflict",
    "dead_letter_headers",
    "letter_headers",
    "refusal",
]

REPLY_HEADER = "Wpa-Reply"
"""A task may name a subject here (an inbox): it gets the engine's answer, or the error."""

ONCE_HEADER = "Wpa-Idempotency-Key"
"""On a start: two starts of an execution under the same key are the same, whatever they carry."""
VERSION_HEADER = "Wpa-Version"
"""On a start that names no version: the one that it was checked against when it was accepted. It runs on that
one, whatever is deployed before it is taken. No part of what was asked: the same start may be accepted again
with a later one."""
TRIGGER_HEADER = "Trigger"
"""On what is no task, but a message for a workflow's triggers: a dead letter of theirs that is tried again.
It holds an :class:`Origin` as JSON."""
NAME_HEADER = "Task-Name"
"""On a dead letter, and on the task that is made of it again: what the rejected one was called. However often
that is queued, and rejected again, the same follows from it."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_DUE = msgspec.json.Decoder(TimerDue)
_NOBODY = TaskMetadata()


def conflict(state: State) -> TaskRejected:
    """The execution id is taken by a start with other content."""
    return TaskRejected(
        "conflict",
        f"execution {state.execution} exists already, started with other content{_by(state)} "
        f"({state.workflow} {state.version}, status {state.status}); use another execution_id",
    )


def _by(state: State) -> str:
    """Who has started it, as far as that is known."""
    if state.parent is not None:
        return f" by step {state.parent.slot} of execution {state.parent.execution_id}"
    who = state.metadata.get("user_id") or state.metadata.get("source")
    return f" by {who}" if who else ""


class Request(msgspec.Struct, kw_only=True):
    """A task that may be driven, with its lease."""

    lease: Lease
    task: Envelope
    tenant: str
    execution: str
    workflow: str = ""
    version: str = ""
    """Of a start: the version that it runs on; empty for the one deployed last."""
    start_hash: str = ""
    traceparent: str = ""
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    live: Live

    @property
    def name(self) -> str:
        """Names what is asked, over redeliveries and over retries as a dead letter. A subject token."""
        return _name(self.lease)

    def answer(self, body: dict[str, Any]) -> None:
        """Answer the requester, if the task named one."""
        answer(self.live, self.lease, body)


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a message for a workflow's triggers comes from."""

    workflow: str
    subject: str
    """The one that it was published on."""
    pattern: str
    """What it was heard on: the ``subject`` of triggers."""
    stream: str = ""
    """What kept it: the ``stream`` of triggers; empty for what was only heard."""
    message: str
    """Names the message, so that the same follows from it at every try."""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    """The publisher's."""


class Heard(Envelope, frozen=True, kw_only=True):
    """A message for the triggers of a workflow: the lease's own bytes."""

    origin: Origin


_ORIGIN = msgspec.json.Decoder(Origin)


def admit(lease: Lease, limits: Limits, live: Live) -> Request:
    """Decode and check a task. Raises TaskRejected with all that a publisher needs to mend it."""
    if lease.source.kind == "due":
        return _admit_due(lease, live)
    headers = lease.headers
    if TRIGGER_HEADER in headers:
        return _request(lease, _heard(lease), "", live, headers)
    task = decode_task(lease.data, lease.tenant, limits)
    if not isinstance(task, Task):
        return _request(lease, task, task.execution_id, live, headers)
    execution = task.execution_id or f"{task.workflow_id[:64]}-{_name(lease)}"
    request = _request(lease, task, execution, live, headers)
    request.workflow = task.workflow_id
    request.version = task.version
    if not task.version and VERSION_HEADER in headers:
        request.version = check_version(headers[VERSION_HEADER])
    once = headers.get(ONCE_HEADER)
    request.start_hash = _key_hash(task.workflow_id, once) if once else start_hash(task)
    return request


def _name(lease: Lease) -> str:
    given = lease.headers.get(NAME_HEADER, "")
    return given if _NAME.fullmatch(given) else lease.identity


def _key_hash(workflow: str, key: str) -> str:
    return hashlib.blake2b(f"{workflow}\n{key}".encode(), digest_size=16).hexdigest()


def _heard(lease: Lease) -> Heard:
    try:
        origin = _ORIGIN.decode(lease.headers[TRIGGER_HEADER])
    except msgspec.DecodeError as error:
        raise TaskRejected("not_a_task", f"its header {TRIGGER_HEADER} can't be read: {error}") from None
    return Heard(type="trigger", workflow_id=check_workflow(origin.workflow), origin=origin)


def _request(lease: Lease, task: Envelope, execution: str, live: Live, headers: dict[str, str]) -> Request:
    metadata: dict[str, Any] = {}
    if task.metadata != _NOBODY:
        metadata = {key: value for key, value in msgspec.structs.asdict(task.metadata).items() if value}
    tenant = lease.tenant
    return Request(
        lease=lease,
        task=task,
        tenant=tenant,
        execution=execution,
        traceparent=_traceparent(headers.get("traceparent", ""), tenant, execution),
        metadata=metadata,
        live=live,
    )


def _admit_due(lease: Lease, live: Live) -> Request:
    """What rang: only the engine can set an alarm, so what is odd here is a mistake of its own."""
    try:
        due = _DUE.decode(lease.data)
    except msgspec.DecodeError as error:
        raise TaskRejected("not_a_task", f"the alarm can't be read: {error}") from None
    if due.type == SCHEDULE_DUE:
        fired = ScheduleDue(type=due.type, workflow_id=check_workflow(due.workflow_id))
        return _request(lease, fired, "", live, lease.headers)
    execution = check_execution(due.execution_id)
    rung = TimerDue(type=due.type, execution_id=execution, rest=due.rest)
    return _request(lease, rung, execution, live, lease.headers)


def answer(live: Live, lease: Lease, body: dict[str, Any]) -> None:
    """Send ``body`` to the inbox that the task's header names; other subjects are not answered."""
    subject = lease.headers.get(REPLY_HEADER, "")
    if may_be_answered(subject):
        live.publish(subject, msgspec.json.encode(body))


class _ChildStart(msgspec.Struct):
    """Of a start, whatever else may be wrong with it, what tells who waits for it."""

    type: Literal["workflow_start"]
    execution_id: str
    parent: Parent


_CHILD_START = msgspec.json.Decoder(_ChildStart)


def refusal(lease: Lease, error: TaskRejected) -> ChildEndedTask | None:
    """What is told to the execution that waits for a child whose start is rejected; None: nobody waits."""
    if lease.source.kind != "tasks" or (isinstance(error, PoisonMessage) and not error.readable):
        return None
    try:
        start = _CHILD_START.decode(lease.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    payload = ChildEndedPayload(
        slot=start.parent.slot,
        child=start.execution_id,
        status="REJECTED",
        error=Failure(type=error.code, message=error.message, retryable=False),
    )
    return ChildEndedTask(type=CHILD_ENDED, execution_id=start.parent.execution_id, payload=payload)


def _traceparent(given: str, tenant: str, execution: str) -> str:
    """The publisher's trace, or one derived from the execution: the same at every redelivery."""
    digest = hashlib.blake2b(f"{tenant}.{execution}".encode(), digest_size=24).hexdigest()
    parts = given.split("-") if given else ()
    if len(parts) == 4 and len(parts[1]) == 32 and _is_hex(parts[1]):
        return f"00-{parts[1].lower()}-{digest[:16]}-01"
    return f"00-{digest[:32]}-{digest[32:]}-01"


def _is_hex(text: str) -> bool:
    return not set(text) - set("0123456789abcdefABCDEF")


def dead_letter_headers(lease: Lease, error: TaskRejected, worker: str, at_ms: int) -> dict[str, str]:
    """Why a task was rejected, as headers beside its untouched bytes."""
    headers = letter_headers(lease.source.subject, error, worker, at_ms)
    headers["Wpa-Task-Sequence"] = str(lease.sequence)
    headers[NAME_HEADER] = _name(lease)
    # Without them, what is tried again would be no message for triggers, and another start.
    headers |= {name: lease.headers[name] for name in (TRIGGER_HEADER, ONCE_HEADER) if name in lease.headers}
    return headers


def letter_headers(subject: str, error: TaskRejected, worker: str, at_ms: int) -> dict[str, str]:
    """Why a message that came on ``subject`` is a dead letter."""
    headers = {
        "Wpa-Code": error.code,
        "Wpa-Reason": error.message[:2000].encode("ascii", "backslashreplace").decode(),
        "Wpa-Subject": subject,
        "Wpa-Rejected-At": rfc3339(at_ms),
        "Wpa-Worker": worker,
    }
    if error.problems:
        headers["Wpa-Problems"] = json.dumps([problem.as_dict() for problem in error.problems[:20]])
    return headers
