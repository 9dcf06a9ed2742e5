"""What the tests of schedules and triggers share: services over memory, and a clock that the test owns."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from wpa import plan
from wpa.adapters.memory import MemoryServer, VirtualClock, open_ports
from wpa.engine.runner import StepRunner
from wpa.engine.services import Services
from wpa.model.limits import Limits
from wpa.model.state import State, encode_state
from wpa.model.times import parse_ms
from wpa.plan import Plan
from wpa.ports.definitions import StoredDefinition
from wpa.ports.steps import StepType
from wpa.ports.tasks import Lease, Source
from wpa.settings import Settings

TENANT = "acme"


class NoSteps:
    def get(self, name: str) -> StepType | None:
        return None

    def names(self) -> list[str]:
        return []


class World:
    def __init__(self, server: MemoryServer, clock: VirtualClock, services: Services) -> None:
        self.server, self.clock, self.services, self.ports = server, clock, services, services.ports
        self.leases: list[Lease] = []

    @classmethod
    async def open(cls, now: str = "2026-11-20T00:30:00Z") -> World:
        clock = VirtualClock(parse_ms(now))
        server = MemoryServer(clock)
        ports = await open_ports(server, ack_wait_s=1e6)  # nothing is delivered again by itself
        runner = StepRunner(NoSteps(), ports.live, ports.clock, "w1", threads=1, processes=1)
        return cls(server, clock, Services(ports, runner, Settings(), Limits(), "w1"))

    async def deploy(self, version: str = "1", workflow: str = "nightly", **more: Any) -> Plan:
        document = {"id": workflow, "version": version, "steps": [{"id": "a", "uses": "core.noop"}], **more}
        stored = StoredDefinition(
            workflow=workflow, version=version, hash=plan.content_hash(document), kind="plan",
            document=msgspec.Raw(msgspec.json.encode(document)), deployed_at="2026-11-20T00:00:00.000Z",
        )  # fmt: skip
        await self.ports.definitions.put(TENANT, stored)
        return plan.load(document)

    async def execution(self, name: str, status: str) -> None:
        """An execution that is there, as its snapshot says."""
        found = await self.ports.snapshots.get(TENANT, name)
        state = State(
            tenant=TENANT, workflow="nightly", version="1", execution=name, definition_hash="", start_hash="",
            status=status,  # type: ignore[arg-type]
        )  # fmt: skip
        await self.ports.snapshots.put(TENANT, name, encode_state(state), found[1] if found else 0)

    async def listen(self, see_to: Callable[[Lease], None] | None = None) -> None:
        def take(lease: Lease) -> None:
            self.leases.append(lease)
            if see_to is not None:
                see_to(lease)

        (await self.ports.tasks.open(Source(TENANT, "due"), take)).request(10_000)

    @property
    def tasks(self) -> list[dict[str, Any]]:
        """All that was asked of the tenant's workers."""
        return [json.loads(message.data) for message in self.server.tasks.read(f"workflow.tasks.{TENANT}")]

    @property
    def task_headers(self) -> list[dict[str, str]]:
        return [message.headers for message in self.server.tasks.read(f"workflow.tasks.{TENANT}")]

    @property
    def started(self) -> list[str]:
        return [task["execution_id"] for task in self.tasks if task["type"] == "workflow_start"]

    @property
    def letters(self) -> list[tuple[bytes, dict[str, str]]]:
        return [
            (message.data, message.headers) for message in self.server.dead.read(f"workflow.dlq.{TENANT}")
        ]
