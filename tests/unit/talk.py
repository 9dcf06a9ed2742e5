"""A worker over the ports in memory, and its API, for tests that ask and look."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from wpa.adapters.memory import MemoryServer, open_ports
from wpa.engine.api import Api
from wpa.engine.runner import StepRunner
from wpa.engine.services import Services
from wpa.engine.worker import Worker
from wpa.errors import TaskRejected
from wpa.hooks import core
from wpa.hooks.host import PluginHost
from wpa.model.limits import Limits
from wpa.settings import Settings

Body = dict[str, Any]
TENANT = "acme"


class Talk:
    """``await talk(verb, ...)`` is the reply; ``seen`` holds every event that was published."""

    def __init__(self, api: Api, services: Services, server: MemoryServer) -> None:
        self.api, self.services = api, services
        self.seen: list[tuple[str, Body]] = []
        server.subscribe(
            "workflow.events.>", lambda subject, data, _: self.seen.append((subject, json.loads(data)))
        )

    async def __call__(self, verb: str, **request: Any) -> Body:
        reply: Body = json.loads(await self.api.handle(TENANT, verb, msgspec.json.encode(request)))
        return reply

    async def ok(self, verb: str, **request: Any) -> Body:
        """The reply to what is not refused."""
        reply = await self(verb, **request)
        assert reply["ok"], reply
        return reply

    async def refused(self, verb: str, **request: Any) -> TaskRejected:
        """Why it is refused."""
        reply = await self(verb, **request)
        assert not reply["ok"], reply
        return TaskRejected(reply["error"]["code"], reply["error"]["message"])

    async def send(self, kind: str, execution: str, **payload: Any) -> None:
        """Publish a task."""
        task = {"type": f"workflow_{kind}", "execution_id": execution, "payload": payload}
        await self.services.ports.tasks.publish(TENANT, msgspec.json.encode(task), {})

    async def comes_to(self, execution: str, status: str) -> Body:
        """The status document once the execution has come to ``status``."""
        reply: Body = {}
        async with asyncio.timeout(10):
            while not reply.get("ok") or reply["execution"]["status"] != status:
                await asyncio.sleep(0.005)
                reply = await self("status", execution_id=execution)
        found: Body = reply["execution"]
        return found

    async def run(self, execution: str, workflow: str = "order", **data: Any) -> Body:
        """Start an execution and wait for its end; its status."""
        await self.start(execution, workflow, **data)
        async with asyncio.timeout(20):
            while True:
                reply = await self("status", execution_id=execution)
                if reply["ok"] and reply["execution"]["finished_at"]:
                    found: Body = reply["execution"]
                    return found
                await asyncio.sleep(0.01)

    async def start(self, execution: str, workflow: str = "order", **data: Any) -> None:
        """Start an execution."""
        await self.ok("start", workflow_id=workflow, execution_id=execution, payload={"input_data": data})


@asynccontextmanager
async def talking(kind: type[Talk] = Talk, limits: Limits | None = None, **given: Any) -> AsyncIterator[Any]:
    """A worker at work; ``given`` goes to its API."""
    server = MemoryServer()
    ports = await open_ports(server)
    host = PluginHost.discover()
    if host.get("core.echo") is None:  # not installed, only on the path
        host = PluginHost.discover(extra=[("core", core)])
    runner = StepRunner(host, ports.live, ports.clock, "w1", threads=1, processes=1)
    services = Services(ports, runner, Settings.model_validate({}), limits or Limits(), "w1")
    numbers = iter(range(1_000))
    api = Api(services, host.signatures(), lambda: f"made-{next(numbers)}", **given)
    stop = asyncio.Event()
    worker = asyncio.create_task(Worker(services).run(stop))
    try:
        yield kind(api, services, server)
    finally:
        stop.set()
        await worker
        await runner.aclose()
        await ports.aclose()
