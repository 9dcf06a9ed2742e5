"""Events: past-tense facts about one execution. The journal is nothing but these, in order."""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = ["COMPLETED", "WORKER_LOST", "Event", "Failure"]

STARTED: Final = "workflow_started"
STEP_COMPLETED: Final = "workflow_step_completed"
STEP_FAILED: Final = "workflow_step_failed"
DECIDED: Final = "workflow_decision_point"
RECOVERED: Final = "workflow_recovered"
COMPENSATING: Final = "workflow_compensating"
STEP_COMPENSATED: Final = "workflow_step_compensated"
COMPLETED: Final = "workflow_completed"
FAILED: Final = "workflow_failed"
ROLLED_BACK: Final = "workflow_rolled_back"
WAITING: Final = "workflow_waiting"
RESUMED: Final = "workflow_resumed"
PAUSED: Final = "workflow_paused"
SIGNALLED: Final = "workflow_signalled"
ESCALATED: Final = "workflow_escalated"
CANCEL_REQUESTED: Final = "workflow_cancel_requested"
CANCELLED: Final = "workflow_cancelled"
CONTINUED: Final = "workflow_continued"
MIGRATED: Final = "workflow_migrated"

TERMINAL: Final = frozenset({COMPLETED, FAILED, ROLLED_BACK, CANCELLED})
ASKED: Final = frozenset({SIGNALLED, PAUSED, RESUMED, CANCEL_REQUESTED, CANCELLED, MIGRATED})
"""What others than the driver may append. Only with a ``lease`` does its author become the driver."""

LIVE_STARTED: Final = "step_started"
LIVE_PROGRESS: Final = "step_progress"

WORKER_LOST: Final = "WorkerLost"
"""The type of failure of what is given up since workers ended at it."""


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something failed, as recorded and shown."""

    type: str
    message: str
    retryable: bool = True
    details: dict[str, Any] = msgspec.field(default_factory=dict)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The event envelope. ``seq`` counts the execution's own events from 1.

    ``id`` is unique to the one try of the one worker that wrote it: comparing it is how an append
    whose answer was lost is told from somebody else's.
    """

    id: str
    seq: int
    event: str
    tenant_id: str
    workflow_id: str
    execution_id: str
    timestamp: str
    service: str = "wpa"
    task_id: str = ""
    global_task_id: str = ""
    worker: str = ""
    epoch: int = 1
    traceparent: str = ""
    """W3C trace context; one trace for the whole execution."""
    data: dict[str, Any] = msgspec.field(default_factory=dict)
