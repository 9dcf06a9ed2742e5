"""One worker of a test's world: the real one, over the ports in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress

from wpa.adapters.memory import MemoryServer, open_ports
from wpa.engine.runner import StepRunner
from wpa.engine.services import Services
from wpa.engine.worker import Worker
from wpa.kernel.program import Program
from wpa.model.limits import Limits
from wpa.ports.steps import StepCatalog
from wpa.settings import Settings
from wpa.testing.faults import Faults, mortal

__all__ = ["Node"]


class _Services(Services):
    """The same seed for the same execution: what differs between two runs is then never a flow's dice."""

    def new_seed(self, execution: str) -> str:
        return hashlib.blake2b(execution.encode(), digest_size=16).hexdigest()

    def worked_s(self) -> float:
        """None: what is allowed to run side by side must not depend on the machine."""
        return 0.0


class Node:
    """A worker that can die at once. Made by :meth:`start`."""

    def __init__(self, close: Callable[[], None], task: asyncio.Task[None], runner: StepRunner) -> None:
        self.task = task
        """Ends when the worker has; only an error of the engine's own ends it by itself."""
        self.dead = False
        self._close = close
        self._runner = runner

    @classmethod
    async def start(
        cls,
        name: str,
        server: MemoryServer,
        catalog: StepCatalog,
        settings: Settings,
        flows: Mapping[str, Program],
        faults: Faults | None = None,
    ) -> Node:
        """A worker that takes tasks from now on."""
        ports = await open_ports(server, ack_wait_s=settings.ack_wait_s)
        closing = ports.close

        def close() -> None:
            # In memory, closing waits for nothing; a dying worker has no time to wait for it, either.
            with suppress(StopIteration):
                closing().__await__().__next__()

        if faults is not None:
            ports = mortal(ports, faults)
        runner = StepRunner(catalog, ports.live, ports.clock, name, threads=1, processes=1)
        services = _Services(ports, runner, settings, Limits(), name, flows=flows)
        task = asyncio.create_task(Worker(services).run(asyncio.Event()), name=name)
        return cls(close, task, runner)

    def die(self) -> None:
        """Gone, now: what it still tries reaches nobody, and at the loop's next turn it tries nothing."""
        self.dead = True
        self._close()
        self.task.cancel()

    async def aclose(self) -> None:
        """Let go of what outlives a dead worker in this process."""
        await self._runner.aclose()
