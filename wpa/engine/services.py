"""What every driver of a worker shares."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from wpa.engine.crew import Crew, Roster
from wpa.engine.library import Library
from wpa.engine.payloads import Payloads
from wpa.engine.runner import StepCall, StepRunner
from wpa.engine.trials import Trials
from wpa.engine.turns import Turns
from wpa.kernel.program import Program
from wpa.model import events as ev
from wpa.model.events import Failure
from wpa.model.limits import Limits
from wpa.model.times import rfc3339
from wpa.ports import Ports
from wpa.ports.clock import Clock
from wpa.ports.tracing import Tracer
from wpa.settings import Settings

__all__ = ["Services"]


class Services:
    """The ports, the step runner, the definitions, and the limits, under one worker's name."""

    def __init__(
        self,
        ports: Ports,
        runner: StepRunner,
        settings: Settings,
        limits: Limits,
        worker: str,
        tracer: Tracer | None = None,
        flows: Mapping[str, Program] | None = None,
        roster: Roster | None = None,
        trials: Trials | None = None,
    ) -> None:
        self.ports = ports
        self.runner = runner
        self.settings = settings
        self.limits = limits
        self.worker = worker
        self.clock: Clock = ports.clock
        self.library = Library(ports.definitions, ports.clock, flows)
        self.crew = Crew(worker, runner.has, ports.clock, roster)
        self.payloads = Payloads(ports.blobs, limits)
        self.turns = Turns()
        self.trials = trials
        """Where suspects are tried; None: nothing is suspected."""
        self._tracer = tracer
        self._count = 0

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The worker's event loop. To ask asyncio for it is a system call in Python 3.11."""
        return asyncio.get_running_loop()

    def next_id(self) -> str:
        """An event id that no other try, of this worker or another, will ever have."""
        self._count += 1
        return f"{self.worker}-{self._count:x}"

    def new_seed(self, execution: str) -> str:
        """Randomness for a new execution's program, hexadecimal. A test may want the same each time."""
        return secrets.token_hex(16)

    def worked_s(self) -> float:
        """The CPU time of this thread, in seconds. A simulation takes none."""
        return time.thread_time()

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

    def trace(self, call: StepCall, traceparent: str, started_ms: int, error: Failure | None) -> None:
        """Record an attempt that has ended as a span, where tracing is on."""
        if self._tracer is None:
            return
        attributes: dict[str, str | int] = {
            "wpa.tenant": call.tenant,
            "wpa.workflow": call.workflow,
            "wpa.execution": call.execution,
            "wpa.slot": call.slot,
            "wpa.step_type": call.uses,
            "wpa.attempt": call.attempt,
        }
        now = self.clock.now_ms()
        self._tracer.attempt(traceparent, f"{call.workflow}.{call.step}", started_ms, now, attributes, error)
