"""A worker over the ports in memory, for tests that throw things at it: whatever goes wrong is kept.

One event loop, driven by hand: a test tries hundreds of examples on one worker, none of which may harm
the next.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any, Self, TypeVar
from unittest import mock

from wpa.adapters.memory import MemoryServer, open_ports
from wpa.adapters.memory.storage import Message
from wpa.engine import api_asks, driver
from wpa.engine import worker as worker_module
from wpa.engine.api import Api
from wpa.engine.runner import StepRunner
from wpa.engine.schedules import Schedules
from wpa.engine.services import Services
from wpa.engine.worker import Worker
from wpa.hooks import core
from wpa.hooks.host import PluginHost
from wpa.model.limits import Limits
from wpa.settings import Settings

T = TypeVar("T")
Body = dict[str, Any]
TENANT = "acme"
TASKS = f"workflow.tasks.{TENANT}"


class _Complaints(logging.Handler):
    """Keeps what the engine says of its own errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(logging.Formatter().format(record))


class Room:
    """``with Room() as room``: ``room.run(coroutine)`` lets the worker work while it runs."""

    def __init__(self) -> None:
        self._exits = ExitStack()
        self._log = _Complaints()
        self._names = iter(range(1 << 30))
        self._last_task = 0

    def __enter__(self) -> Self:
        self._exits.enter_context(mock.patch.object(driver, "EARLY_TRIES", 1))
        self._exits.enter_context(mock.patch.object(worker_module, "HAND_BACK_S", 0.01))
        self._exits.enter_context(mock.patch.object(api_asks, "STARTING_S", 0.0))
        self._runner = self._exits.enter_context(asyncio.Runner())
        logging.getLogger("wpa").addHandler(self._log)
        self._exits.callback(logging.getLogger("wpa").removeHandler, self._log)
        self.run(self._open())
        self._exits.callback(lambda: self.run(self._close()))
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    async def _open(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._on_exception)
        self.server = MemoryServer()
        ports = await open_ports(self.server)
        host = PluginHost.discover()
        if host.get("core.echo") is None:  # not installed, only on the path
            host = PluginHost.discover(extra=[("core", core)])
        self._step_runner = StepRunner(host, ports.live, ports.clock, "w1", threads=1, processes=1)
        self.services = Services(ports, self._step_runner, Settings(), Limits(), "w1")
        self.api = Api(self.services, host.signatures(), self.name, schedules=Schedules(self.services))
        self._stop = asyncio.Event()
        self._worker = asyncio.create_task(Worker(self.services).run(self._stop))

    async def _close(self) -> None:
        self._stop.set()
        await self._worker
        await self._step_runner.aclose()
        await self.services.ports.aclose()

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: Body) -> None:
        self._log.found.append(f"{context.get('message')}: {context.get('exception')!r}")

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    def name(self) -> str:
        """One that nothing has yet."""
        return f"x{next(self._names)}"

    async def ask(self, verb: str, data: bytes) -> Body:
        """The answer to a request; anything but a proper answer is an error."""
        answer: Body = json.loads(await self.api.handle(TENANT, verb, data))
        if answer["ok"] is not True:
            error = answer["error"]
            assert answer["ok"] is False
            assert error["code"].replace("_", "").isalpha()
            assert error["code"] != "internal", (error, self.complaints())
            assert len(error["message"]) > 5
        return answer

    async def ok(self, verb: str, **body: Any) -> Body:
        answer = await self.ask(verb, json.dumps(body).encode())
        assert answer["ok"], answer
        return answer

    async def publish(self, data: bytes, headers: dict[str, str] | None = None) -> bool:
        """Whether it was stored: what has the id of a task that was stored a moment ago is not."""
        sequence = await self.services.ports.tasks.publish(TENANT, data, headers or {})
        before, self._last_task = self._last_task, max(sequence, self._last_task)
        return sequence > before

    async def settled(self, within_s: float = 20) -> None:
        """Once there is no task left: each is done, or a dead letter."""
        try:
            async with asyncio.timeout(within_s):
                while self.server.tasks.read(TASKS):
                    await asyncio.sleep(0.001)
        except TimeoutError:
            left = [message.data[:300] for message in self.server.tasks.read(TASKS)]
            raise AssertionError(f"never done with: {left}; {self.complaints()}") from None

    async def ended(self, name: str) -> None:
        """It can still be asked about, and ended."""
        await self.ok("history", execution_id=name)
        found = (await self.ok("status", execution_id=name))["execution"]
        if not found["finished_at"]:
            await self.ok("terminate", execution_id=name)
            async with asyncio.timeout(20):
                while not (await self.ok("status", execution_id=name))["execution"]["finished_at"]:
                    await asyncio.sleep(0.001)

    def letters(self) -> list[Message]:
        """The dead letters since the last question."""
        found = self.server.dead.read(f"workflow.dlq.{TENANT}")
        for letter in found:
            self.server.dead.remove(letter.sequence)
        return found

    def complaints(self) -> list[str]:
        """The engine's own errors since the last question."""
        found, self._log.found = self._log.found, []
        return found
