"""Tasks: the messages that ask. See ``schemas/task.schema.json``, generated from here."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from wpa.model.events import Failure
from wpa.model.state import Parent

__all__ = [
    "ANSWER",
    "ASKS",
    "CANCEL",
    "CHILD_ENDED",
    "MIGRATE",
    "PAUSE",
    "RESUME",
    "RETRY",
    "SCHEDULE_DUE",
    "SIGNAL",
    "START",
    "STEP_RESULT",
    "TERMINATE",
    "TIMER_DUE",
    "AnswerTask",
    "CancelTask",
    "ChildEndedPayload",
    "ChildEndedTask",
    "Envelope",
    "Fork",
    "MigrateTask",
    "ReasonTask",
    "ScheduleDue",
    "SignalPayload",
    "SignalTask",
    "StartPayload",
    "StepResultPayload",
    "StepResultTask",
    "StepTask",
    "TimerDue",
    "Task",
    "TaskMetadata",
    "schedule_due",
    "timer_due",
]

START: Final = "workflow_start"
SIGNAL: Final = "workflow_signal"
ANSWER: Final = "workflow_answer"
PAUSE: Final = "workflow_pause"
RESUME: Final = "workflow_resume"
CANCEL: Final = "workflow_cancel"
TERMINATE: Final = "workflow_terminate"
RETRY: Final = "workflow_retry"
MIGRATE: Final = "workflow_migrate"
CHILD_ENDED: Final = "workflow_child_ended"
STEP_RESULT: Final = "workflow_step_result"
TIMER_DUE: Final = "timer_due"
SCHEDULE_DUE: Final = "schedule_due"


class TaskMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked, as the publisher says it. Recorded; only approvals look at ``user_id`` and ``roles``."""

    agent_id: str = ""
    session_id: str = ""
    user_id: str = ""
    source: str = ""
    roles: list[str] = msgspec.field(default_factory=list)


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What all tasks have. Only ``type``, and what that type needs, is required.

    ``tenant_id`` may be left out: the subject names the tenant. If present, it must agree.
    """

    type: str
    task_id: str = ""
    tenant_id: str = ""
    workflow_id: str = ""
    execution_id: str = ""
    global_task_id: str = ""
    created_at: str = ""
    priority: int = 5
    metadata: TaskMetadata = msgspec.field(default_factory=TaskMetadata)


class StartPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What a ``workflow_start`` carries."""

    input_data: Any = msgspec.field(default_factory=dict)
    variables: dict[str, Any] = msgspec.field(default_factory=dict)
    execution_context: dict[str, Any] = msgspec.field(default_factory=dict)


class Fork(msgspec.Struct, frozen=True, kw_only=True):
    """A rerun: begin with what another execution had settled before ``step``."""

    execution_id: str
    step: str = ""


class Task(Envelope, frozen=True, kw_only=True):
    """``workflow_start``: start an execution.

    ``execution_id`` is the idempotency key; without one, one is made from the message.
    ``version`` picks a deployed version; without one, the one deployed last is taken.
    ``start_at`` (RFC 3339) delays the beginning: until then, the execution waits.
    """

    version: str = ""
    start_at: str = ""
    parent: Parent | None = None
    """Set by the engine: the execution that waits for this one."""
    fork: Fork | None = None
    payload: StartPayload = msgspec.field(default_factory=StartPayload)


class SignalPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What a ``workflow_signal`` carries. The same ``id`` twice counts once."""

    signal: str
    payload: Any = None
    id: str = ""


class SignalTask(Envelope, frozen=True, kw_only=True):
    """``workflow_signal``: tell an execution something. Kept until a step waits for it."""

    payload: SignalPayload


class AnswerPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What a ``workflow_answer`` carries: the approval's step, and the verdict."""

    step: str
    approved: bool
    comment: str = ""


class AnswerTask(Envelope, frozen=True, kw_only=True):
    """``workflow_answer``: approve or reject. ``metadata.user_id`` and ``metadata.roles`` say who answers."""

    payload: AnswerPayload


class ReasonPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Why something is asked; recorded."""

    reason: str = ""


class ReasonTask(Envelope, frozen=True, kw_only=True):
    """``workflow_pause``, ``workflow_resume``, ``workflow_terminate`` and ``workflow_retry``."""

    payload: ReasonPayload = msgspec.field(default_factory=ReasonPayload)


class CancelPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What a ``workflow_cancel`` carries."""

    reason: str = ""
    compensate: bool = True
    """Whether completed steps are undone."""
    parent: Parent | None = None
    """Set by the engine: only the child of this slot is meant, not another execution of its id."""


class CancelTask(Envelope, frozen=True, kw_only=True):
    """``workflow_cancel``: stop what runs, undo what was done, end."""

    payload: CancelPayload = msgspec.field(default_factory=CancelPayload)


class MigratePayload(msgspec.Struct, frozen=True, kw_only=True):
    """What a ``workflow_migrate`` carries."""

    version: str


class MigrateTask(Envelope, frozen=True, kw_only=True):
    """``workflow_migrate``: go on with another version of the definition."""

    payload: MigratePayload


class ChildEndedPayload(msgspec.Struct, frozen=True, kw_only=True):
    """How a child execution ended, for the slot that waits for it."""

    slot: str
    child: str
    status: str
    output: Any = None
    error: Failure | None = None


class ChildEndedTask(Envelope, frozen=True, kw_only=True):
    """``workflow_child_ended``: published by the child's driver."""

    payload: ChildEndedPayload


class StepResultPayload(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt in another worker ended."""

    slot: str
    attempt: int
    key: str = ""
    """The step's idempotency key: tells a result of this run of the execution from an earlier run's."""
    worker: str = ""
    started_at: str = ""
    output: Any = None
    error: Failure | None = None
    seq: int = 0
    """The step's."""


class StepResultTask(Envelope, frozen=True, kw_only=True):
    """``workflow_step_result``: published by the worker that ran a step of a queue."""

    payload: StepResultPayload


ASKS: Final[dict[str, type[Envelope]]] = {
    SIGNAL: SignalTask,
    ANSWER: AnswerTask,
    PAUSE: ReasonTask,
    RESUME: ReasonTask,
    CANCEL: CancelTask,
    TERMINATE: ReasonTask,
    RETRY: ReasonTask,
    MIGRATE: MigrateTask,
    CHILD_ENDED: ChildEndedTask,
    STEP_RESULT: StepResultTask,
}
"""Every type of task that asks something of an execution that exists."""


class TimerDue(Envelope, frozen=True, kw_only=True):
    """An execution's alarm. On the due feed only: whoever may ask for things can't ring it."""

    rest: int = 0
    """The epoch of the rest that it was set for; 0 in alarms of before, which don't say."""

    def ends(self, rest: int) -> bool:
        """Whether it may end the rest of that epoch. Another's may be acked by now, by whoever was given it
        before: nobody would be told if the one that it wakes is lost."""
        return self.rest in (0, rest)


def timer_due(execution: str, rest: int) -> bytes:
    """The body of an execution's alarm."""
    return b'{"type":"%s","execution_id":"%s","rest":%d}' % (TIMER_DUE.encode(), execution.encode(), rest)


class ScheduleDue(Envelope, frozen=True, kw_only=True):
    """A workflow's schedule fires. On the due feed only, as :class:`TimerDue`."""


def schedule_due(workflow: str) -> bytes:
    """The body of a schedule's firings."""
    return b'{"type":"%s","workflow_id":"%s"}' % (SCHEDULE_DUE.encode(), workflow.encode())


class StepTask(msgspec.Struct, frozen=True, kw_only=True):
    """A step for another worker group, on ``workflow.steps.<tenant>.<queue>``."""

    tenant_id: str
    workflow_id: str
    execution_id: str
    step: str
    slot: str
    uses: str
    inputs: Any = None
    attempt: int = 1
    idempotency_key: str = ""
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    timeout_ms: int | None = None
    deadline_at: str = ""
    at_most_once: bool = False
    trim: bool = False
    traceparent: str = ""
    seq: int = 0
    """How many events the execution had when the step was sent."""
