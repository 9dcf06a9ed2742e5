"""The inside of a child in which suspects are tried: a worker without hands. See :mod:`wpa.engine.trials`.

It runs the engine's own code, driver and all, on ports of its own: they read through the worker, and keep to
themselves what is written. No step is run. The kernel of the operating system ends a child that computes, or
stands still, for too long, also where C code keeps the interpreter's lock, and where its worker is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import math
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, TypeVar, cast

import msgspec

from wpa.engine.door import Heard, admit
from wpa.engine.driver import Driver
from wpa.engine.runner import StepCall, StepResult, StepRunner
from wpa.engine.schedules import Schedules
from wpa.engine.services import Services
from wpa.engine.trials import FRAME, PATIENCE, Admitted, Answer, Ask, Passed, Ready, Result, Suspect
from wpa.engine.triggers import Triggers
from wpa.errors import NotFound
from wpa.kernel.program import Program
from wpa.model.codec import decode_event, encode_event
from wpa.model.events import Event
from wpa.model.limits import Limits
from wpa.model.tasks import ScheduleDue
from wpa.ports import Ports
from wpa.ports.definitions import StoredDefinition
from wpa.ports.inlets import Inlets
from wpa.ports.journal import Journal, Stored
from wpa.ports.live import Live
from wpa.ports.tasks import Lease, Source, TaskQueue
from wpa.settings import Settings

__all__ = ["Told", "serve"]

T = TypeVar("T")

BUDGET_S: Final = 1.0
"""What is recorded after so long is progress enough: the next trial goes on from there."""
END_WITHIN_S: Final = 1.0
RESULTS_WITHIN_S: Final = 1.0
SETTLED_AFTER_S: Final = 0.1


class Told(msgspec.Struct, kw_only=True):
    """What a child is told when it is started."""

    settings: dict[str, Any]
    limits: Limits
    within_s: float
    """How long it may compute between two questions, in seconds."""


class _Worker:
    """What the child says to its worker, and asks it. Computing time is counted between the questions."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._source, self._out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)  # what a flow prints, it prints where it is run in earnest
        os.close(nothing)

    def say(self, what: Ready | Admitted | Passed | Ask) -> None:
        _send(self._out, msgspec.json.encode(what))

    def hear(self) -> bytes:
        """The next frame; the process ends with its worker."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        head = self._source.read(FRAME.size)
        if len(head) < FRAME.size:
            os._exit(0)
        data = self._source.read(FRAME.unpack(head)[0])
        self.count_anew()
        return data

    def ask(self, kind: type[T] | Any, port: str, method: str, *arguments: Any) -> T:
        """What a port of the worker's answers. Raises NotFound where it does."""
        self.say(Ask(port, method, list(arguments)))
        answer = msgspec.json.decode(self.hear(), type=Answer)
        if answer.code:
            raise NotFound(answer.code, answer.message)
        found: T = msgspec.json.decode(answer.value, type=kind)
        return found

    def count_anew(self) -> None:
        """The time for the next stretch begins."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = math.ceil(used.ru_utime + used.ru_stime + self._within_s)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))
        signal.setitimer(signal.ITIMER_REAL, self._within_s * PATIENCE)


def _send(out: BinaryIO, data: bytes) -> None:
    try:
        out.write(FRAME.pack(len(data)) + data)
        out.flush()
    except BrokenPipeError:
        os._exit(0)  # its worker is gone


class _Reads:
    """A port of which only what reads is there; what is read is the worker's."""

    def __init__(self, worker: _Worker) -> None:
        self._ask = worker.ask


class _Snapshots(_Reads):
    async def get(self, tenant: str, execution: str) -> tuple[bytes, int] | None:
        return self._ask(tuple[bytes, int] | None, "snapshots", "get", tenant, execution)

    async def put(self, tenant: str, execution: str, data: bytes, revision: int) -> int:
        return revision + 1


class _Definitions(_Reads):
    async def get(self, tenant: str, workflow: str, version: str) -> StoredDefinition | None:
        return self._ask(StoredDefinition | None, "definitions", "get", tenant, workflow, version)

    async def latest(self, tenant: str, workflow: str) -> str | None:
        return self._ask(str | None, "definitions", "latest", tenant, workflow)

    async def list(self, tenant: str) -> list[StoredDefinition]:
        return self._ask(list[StoredDefinition], "definitions", "list", tenant)

    async def tenants(self) -> set[str]:
        return self._ask(set[str], "definitions", "tenants")

    async def workflows(self) -> set[tuple[str, str]]:
        return self._ask(set[tuple[str, str]], "definitions", "workflows")

    async def put(self, tenant: str, definition: StoredDefinition) -> bool:
        return False

    def on_change(self, callback: Callable[[str, str], None]) -> None:
        """Nothing changes during a trial."""


class _Records(_Reads):
    async def get(self, tenant: str, kind: str, name: str) -> tuple[bytes, int] | None:
        return self._ask(tuple[bytes, int] | None, "records", "get", tenant, kind, name)

    async def put(self, tenant: str, kind: str, name: str, data: bytes, revision: int) -> int:
        return revision + 1

    async def list(self, tenant: str, kind: str) -> list[tuple[str, bytes]]:
        return self._ask(list[tuple[str, bytes]], "records", "list", tenant, kind)


class _Blobs(_Reads):
    def __init__(self, worker: _Worker) -> None:
        super().__init__(worker)
        self._stored: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes:
        stored = self._stored.get(key)
        return self._ask(bytes, "blobs", "get", key) if stored is None else stored

    async def put(self, key: str, data: bytes) -> None:
        self._stored[key] = data


class _Stage:
    """The end of a trial: it has come to where the world would have its say.

    Args:
        results: what the world has said already, by slot; whoever hears it takes it out.
    """

    def __init__(self, results: dict[str, Result]) -> None:
        self.over = asyncio.Event()
        self._results = results
        self._settles = bool(results)
        self._heard = asyncio.Event()
        self._until_s = time.monotonic() + BUDGET_S

    @property
    def is_late(self) -> bool:
        """Whether what was decided so far is progress enough."""
        return time.monotonic() > self._until_s

    def take_result(self, slot: str) -> Result | None:
        """What is known of an attempt; once."""
        result = self._results.pop(slot, None)
        if not self._results:
            self._heard.set()
        return result

    async def come_through(self) -> NoReturn:
        """Never returns: the trial is over, once what follows from the results is decided."""
        if self._settles:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESULTS_WITHIN_S):
                    await self._heard.wait()
            await asyncio.sleep(SETTLED_AFTER_S)
        self.over.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable: nobody completes it")


class _Clock:
    def __init__(self, stage: _Stage) -> None:
        self._stage = stage

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._stage.come_through()


class _Journal(_Reads):
    def __init__(self, worker: _Worker, stage: _Stage) -> None:
        super().__init__(worker)
        self._count_anew, self._stage = worker.count_anew, stage
        self._events: list[Stored] = []

    async def append(self, event: Event, after: int) -> int:
        if self._stage.is_late:
            await self._stage.come_through()
        self._count_anew()
        self._events.append((after + 1, decode_event(encode_event(event))))
        return after + 1

    async def read(
        self, tenant: str, execution: str, after: int = 0, most: int | None = None
    ) -> list[Stored]:
        found: list[Stored] = self._ask(list[Stored], "journal", "read", tenant, execution, after)
        mine = [
            (position, event)
            for position, event in self._events
            if position > after and (event.tenant_id, event.execution_id) == (tenant, execution)
        ]
        return [*found, *mine][:most]

    async def latest(self, tenant: str, execution: str) -> int:
        return max((position for position, _ in await self.read(tenant, execution)), default=0)


class _Tasks:
    async def publish(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        return 0

    async def publish_step(self, tenant: str, queue: str, data: bytes, headers: dict[str, str]) -> int:
        return 0

    async def bury(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        return 0


class _Timers:
    async def set(
        self, tenant: str, name: str, at_ms: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        """Nothing rings."""

    async def clear(self, tenant: str, name: str) -> None:
        """Nothing rings."""


class _Live:
    def publish_event(self, tenant: str, execution: str, body: dict[str, Any]) -> None:
        """Nobody hears of it."""

    def publish(self, subject: str, data: bytes) -> None:
        """Nobody hears of it."""

    def nudge(self, worker: str, tenant: str, execution: str, epoch: int, reason: str = "") -> None:
        """Nobody hears of it."""


class _Runner:
    """Runs no step: how one has ended it is told, or the trial is over."""

    def __init__(self, stage: _Stage) -> None:
        self._stage = stage

    async def run(self, call: StepCall) -> StepResult:
        result = self._stage.take_result(call.slot)
        if result is None:
            await self._stage.come_through()
        return StepResult(output=result.output, raw=msgspec.json.encode(result.output), error=result.error)

    def has(self, name: str) -> bool:
        return True


class _Lease:
    """A suspect as the lease that its worker has. What becomes of it, the worker decides."""

    def __init__(self, suspect: Suspect) -> None:
        self.source = Source(suspect.tenant, suspect.kind)
        self.tenant = suspect.tenant
        self.data, self.headers = suspect.data, suspect.headers
        self.sequence, self.identity = suspect.sequence, suspect.identity
        self.delivered, self.stored_ms = suspect.delivered, suspect.stored_ms

    def ack(self) -> None: ...
    def nak(self, delay_s: float = 0.0) -> None: ...
    def extend(self) -> None: ...


class _Trials:
    """What tries one suspect after the other."""

    def __init__(
        self, worker: _Worker, settings: Settings, limits: Limits, flows: Mapping[str, Program]
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._limits = limits
        self._flows = flows

    async def serve(self) -> NoReturn:
        gc.collect()
        gc.freeze()  # what is imported by now is not looked through after each trial
        self._worker.say(Ready())
        while True:
            await self._try(msgspec.json.decode(self._worker.hear(), type=Suspect))
            # What lets go of a flow has it run once more: its ``finally`` blocks.
            gc.collect()
            self._worker.say(Passed())

    async def _try(self, suspect: Suspect) -> None:
        """Return where the suspect lets this process live, whatever comes of it."""
        stage = _Stage(suspect.results)
        services = self._services(stage)
        working = asyncio.create_task(self._work(services, _Lease(suspect)))
        over = asyncio.create_task(stage.over.wait())
        await asyncio.wait((working, over), return_when=asyncio.FIRST_COMPLETED)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.wait(left | {working}, timeout=END_WITHIN_S)
        if working.done() and not working.cancelled():
            working.exception()  # whatever it is, its worker will see it, too

    def _services(self, stage: _Stage) -> Services:
        worker = self._worker
        ports = Ports(
            journal=cast("Journal", _Journal(worker, stage)),
            snapshots=_Snapshots(worker),
            tasks=cast("TaskQueue", _Tasks()),
            inlets=cast("Inlets", None),
            timers=_Timers(),
            definitions=_Definitions(worker),
            records=_Records(worker),
            blobs=_Blobs(worker),
            live=cast("Live", _Live()),
            clock=_Clock(stage),
            close=_nothing,
        )
        runner = cast("StepRunner", _Runner(stage))
        return Services(ports, runner, self._settings, self._limits, "trial", flows=self._flows)

    async def _work(self, services: Services, lease: Lease) -> None:
        """What a worker does with a task."""
        try:
            request = admit(lease, self._limits, services.ports.live)
        finally:
            self._worker.say(Admitted())
        if isinstance(request.task, ScheduleDue):
            await Schedules(services).fired(lease, request.task.workflow_id)
        elif isinstance(request.task, Heard):
            await Triggers(services).retried(lease, request.task.origin)
        else:
            await Driver(services, request, lambda: None).drive()


async def _nothing() -> None:
    """Nothing is to be closed."""


def serve(told: Told, settings: Settings, flows: Mapping[str, Program]) -> None:
    """Try what the worker sends, until it is gone.

    Args:
        told: by the worker.
        settings: the worker's.
        flows: those that are installed, by id.
    """
    # Where it ends, it says where it was.
    faulthandler.enable()
    for number in (signal.SIGXCPU, signal.SIGALRM):
        faulthandler.register(number, chain=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # if anybody has to go for want of memory, not the worker
        Path("/proc/self/oom_score_adj").write_text("1000")
    logging.disable()
    asyncio.run(_Trials(_Worker(told.within_s), settings, told.limits, flows).serve())
