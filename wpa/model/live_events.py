"""What live events say: sent while a step runs, at most once, and stored nowhere.

Flat: they have no ``data`` envelope and no ``seq``.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wpa.model import events as ev
from wpa.model.event_parts import Attempt, Moment, SlotId, StepId

__all__ = ["LIVE_EVENTS"]


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
"""Every live event, by name."""
