"""What every driver of a worker shares."""

from __future__ import annotations

from typing import Any

from wpa.engine.library import Library
from wpa.engine.payloads import Payloads
from wpa.engine.runner import StepCall, StepRunner
from wpa.model import events as ev
from wpa.model.limits import Limits
from wpa.model.times import rfc3339
from wpa.ports import Ports
from wpa.ports.clock import Clock
from wpa.settings import Settings

__all__ = ["Services"]


class Services:
    """The ports, the step runner, the definitions, and the limits, under one worker's name."""

    def __init__(
        self, ports: Ports, runner: StepRunner, settings: Settings, limits: Limits, worker: str
    ) -> None:
        self.ports = ports
        self.runner = runner
        self.settings = settings
        self.limits = limits
        self.worker = worker
        self.clock: Clock = ports.clock
        self.library = Library(ports.definitions, ports.clock)
        self.payloads = Payloads(ports.blobs, limits)
        self._count = 0

    def next_id(self) -> str:
        """An event id that no other try, of this worker or another, will ever have."""
        self._count += 1
        return f"{self.worker}-{self._count:x}"

    def announce(self, call: StepCall, at_ms: int) -> None:
        """Publish the ``step_started`` live event of an attempt (best effort, not stored)."""
        body: dict[str, Any] = {
            "event": ev.LIVE_STARTED,
            "tenant_id": call.tenant,
            "workflow_id": call.workflow,
            "execution_id": call.execution,
            "step": call.step,
            "slot": call.slot,
            "attempt": call.attempt,
            "timestamp": rfc3339(at_ms),
            "worker": self.worker,
        }
        self.ports.live.publish_event(call.tenant, call.execution, body)
