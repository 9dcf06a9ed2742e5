"""Tasks: the messages that ask. See ``schemas/task.schema.json``, generated from here."""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = ["START", "StartPayload", "Task", "TaskMetadata"]

START: Final = "workflow_start"


class TaskMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked, as the publisher says it. Recorded, never interpreted."""

    agent_id: str = ""
    session_id: str = ""
    user_id: str = ""
    source: str = ""


class StartPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What a ``workflow_start`` carries."""

    input_data: Any = msgspec.field(default_factory=dict)
    variables: dict[str, Any] = msgspec.field(default_factory=dict)
    execution_context: dict[str, Any] = msgspec.field(default_factory=dict)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """The task envelope. Only ``type``, and what that type needs, is required.

    ``tenant_id`` may be left out: the subject names the tenant. If present, it must agree.
    ``execution_id`` is the idempotency key; without one, one is made from the message.
    ``version`` picks a deployed version; without one, the one deployed last is taken.
    """

    type: str
    task_id: str = ""
    tenant_id: str = ""
    workflow_id: str = ""
    version: str = ""
    execution_id: str = ""
    global_task_id: str = ""
    created_at: str = ""
    priority: int = 5
    metadata: TaskMetadata = msgspec.field(default_factory=TaskMetadata)
    payload: StartPayload = msgspec.field(default_factory=StartPayload)
