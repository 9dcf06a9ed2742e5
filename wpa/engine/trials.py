"""Trials: what may be what ends its workers is tried in a process that may end.

A task that is delivered again and again has ended its workers, or was only in hand when another one did:
nothing tells which. So before a worker takes it in hand once more, it is tried: a child does with it all
that a worker would do (it decodes, validates, compiles, evaluates, replays, decides) up to the next step, or
until the execution rests. What a child asks of the server is read for it by the worker; what it would write,
publish or run stays in the child. One that comes through says so, whatever came of it. One that dies, or
computes for longer than a worker's event loop may stand still, or takes half of the memory there is, condemns
what it tried; but only if a second one fares alike, for a child may die of something else.

A child is kept for the next trial, and ended when there was none for a while. One at a time is tried of each
tenant. Frames go over its standard input and output: four bytes of length, then JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import struct
import sys
import weakref
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from wpa.engine.processes import Child, end_child, end_of
from wpa.errors import TaskRejected
from wpa.model.events import Failure
from wpa.ports import Ports
from wpa.ports.tasks import Lease, SourceKind

__all__ = [
    "FRAME",
    "READS",
    "Admitted",
    "Answer",
    "Ask",
    "Death",
    "Passed",
    "Ready",
    "Result",
    "Suspect",
    "Trials",
]

FRAME: Final = struct.Struct(">I")
AT_A_TIME: Final = 2
"""So many are tried at a time, each of another tenant."""
IDLE_S: Final = 10.0
START_WITHIN_S: Final = 60.0
"""A child imports all that the worker has imported."""
PATIENCE: Final = 4
"""A child that does not compute may stand still for so many times as long as one that does."""
ENDS_ITSELF_S: Final = 2.0
"""A child that is over its time is ended by its own alarm; where that fails, so long after."""
LOOK_EVERY_S: Final = 0.1
MEMORY_SHARE: Final = 0.5
"""Of the memory that there is, a child may take so much beside what it has imported."""
READS: Final[Mapping[str, frozenset[str]]] = {
    "journal": frozenset({"read", "latest"}),
    "snapshots": frozenset({"get"}),
    "definitions": frozenset({"get", "latest", "list", "tenants", "workflows"}),
    "records": frozenset({"get", "list"}),
    "blobs": frozenset({"get"}),
}
"""What a child may ask of the worker's ports. None of it changes anything."""

log = logging.getLogger("wpa.engine")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt at a step has ended, which is not recorded yet."""

    output: Any = None
    error: Failure | None = None


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be tried: a lease, and the results of steps that its worker has in hand, by slot."""

    tenant: str
    kind: SourceKind
    data: bytes
    headers: dict[str, str]
    sequence: int
    identity: str
    delivered: int
    stored_ms: int
    results: dict[str, Result] = msgspec.field(default_factory=dict)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a port has answered, or refused."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    code: str = ""
    message: str = ""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The child can begin."""


class Admitted(msgspec.Struct, frozen=True, tag=True):
    """The task can be read, or be refused: it is not reading it that ends anybody."""


class Passed(msgspec.Struct, frozen=True, tag=True):
    """The child has come through."""


class Ask(msgspec.Struct, frozen=True, tag=True):
    """The child wants to know something: see ``READS``."""

    port: str
    method: str
    arguments: list[Any]


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the children in which something was tried."""

    how: str
    admitted: bool
    """Whether the task could be read."""


_SAID: Final = msgspec.json.Decoder(Ready | Admitted | Passed | Ask)


class _Condemned(Exception):
    """The child has ended, or is ended for what it does."""


class Trials:
    """Tries suspects. Close it with :meth:`aclose`.

    Args:
        ports: where children have their questions answered.
        start: Python code that makes a process such a child: see :mod:`wpa.engine.trial_child`.
        told: what it is told, as its only argument.
        within_s: how long a child may compute between two of its questions, in seconds.
    """

    def __init__(self, ports: Ports, start: str, told: str, within_s: float) -> None:
        self._ports = ports
        self._start = start
        self._told = told
        self._within_s = within_s
        self._bytes_max = int(_memory_bytes() * MEMORY_SHARE)
        self._room = asyncio.Semaphore(AT_A_TIME)
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._began_with: weakref.WeakKeyDictionary[Child, int] = weakref.WeakKeyDictionary()
        """The memory that a child takes when it is ready: what it has imported is no fault of a task's."""
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._retiring: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False

    async def attend(self, lease: Lease, results: Mapping[str, Result] | None = None) -> Death | None:
        """Try what a worker would do with a task, up to the first step of which there is no result.

        None where a child came through, or none can be started: that is no fault of the task's. Raises
        PlatformError where the server can't be asked. A trial that is cancelled leaves no process behind.
        """
        return await self.try_out(_suspect(lease, results or {}))

    async def try_out(self, suspect: Suspect) -> Death | None:
        """The same for what has no lease of ours."""
        data = msgspec.json.encode(suspect)
        turn = self._turns.setdefault(suspect.tenant, asyncio.Lock())
        async with turn, self._room:
            first = await self._try(data, fresh=False)
            return first and await self._try(data, fresh=True)

    async def aclose(self) -> None:
        """End every child."""
        self._closed = True
        self._retire()
        await asyncio.gather(*(end_child(child) for child in self._busy), *self._background)

    # -- children ----------------------------------------------------------------------------

    async def _try(self, suspect: bytes, *, fresh: bool) -> Death | None:
        admitted = False
        try:
            async with self._child(fresh=fresh) as child:
                await _send(child, suspect)
                while not isinstance(said := await self._hear(child), Passed):
                    if isinstance(said, Ask):
                        await _send(child, msgspec.json.encode(await self._answer(said)))
                    else:
                        admitted = True
        except _Condemned as condemned:
            return Death(how=str(condemned), admitted=admitted)
        except OSError as error:
            log.warning("what may end its workers can't be tried, and is taken all the same: %s", error)
        return None

    @contextlib.asynccontextmanager
    async def _child(self, *, fresh: bool) -> AsyncIterator[Child]:
        """A child that is ready. It is kept if all goes well, and ended if not. Raises OSError."""
        child = None if fresh or not self._idle else self._idle.pop()
        if child is None or child.returncode is not None:
            child = await self._begin()
        self._busy.add(child)
        passed = False
        try:
            yield child
            passed = True
        except (asyncio.IncompleteReadError, BrokenPipeError, ConnectionResetError):
            raise _Condemned(await end_of(child)) from None
        finally:
            self._busy.discard(child)
            if passed and not self._closed:
                self._keep(child)
            else:
                await end_child(child)

    async def _begin(self) -> Child:
        # Modules are found where this process finds them, whatever folder it was started in.
        path = [str(entry) for entry in sys.path]
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-c",
            f"import sys; sys.path[:] = {path!r}; {self._start}",
            self._told,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # A group of its own: Ctrl-C is for the worker.
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(START_WITHIN_S):
                await _receive(child)
            self._began_with[child] = _resident_bytes(child.pid)
        except (asyncio.IncompleteReadError, TimeoutError):
            await end_child(child)
            raise OSError("a child did not come to its beginning") from None
        except BaseException:
            await end_child(child)
            raise
        return child

    def _keep(self, child: Child) -> None:
        self._idle.append(child)
        if self._retiring is not None:
            self._retiring.cancel()
        self._retiring = asyncio.get_running_loop().call_later(IDLE_S, self._retire)

    def _retire(self) -> None:
        """Nothing was tried for a while."""
        if self._retiring is not None:
            self._retiring.cancel()
        for child in self._idle:
            task = asyncio.get_running_loop().create_task(end_child(child))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        self._idle.clear()

    # -- what a child says -------------------------------------------------------------------

    async def _hear(self, child: Child) -> Ready | Admitted | Passed | Ask:
        """What it says next. Raises _Condemned where it takes too long, or too much."""
        hearing = asyncio.ensure_future(_receive(child))
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._within_s * PATIENCE + ENDS_ITSELF_S
        try:
            while not hearing.done():
                await asyncio.wait((hearing,), timeout=LOOK_EVERY_S)
                if _resident_bytes(child.pid) - self._began_with[child] > self._bytes_max:
                    raise _Condemned(f"more than {self._bytes_max // 2**20} MB of memory taken")
                if loop.time() > until_s:
                    raise _Condemned(f"it did not end within {self._within_s * PATIENCE:g} s")
            return hearing.result()
        finally:
            hearing.cancel()

    async def _answer(self, ask: Ask) -> Answer:
        if ask.method not in READS.get(ask.port, ()):
            raise _Condemned(f"it asks for {ask.port}.{ask.method}")
        try:
            value = await getattr(getattr(self._ports, ask.port), ask.method)(*ask.arguments)
        except TaskRejected as error:
            return Answer(code=error.code, message=error.message)
        return Answer(value=msgspec.Raw(msgspec.json.encode(value)))


def _suspect(lease: Lease, results: Mapping[str, Result]) -> Suspect:
    return Suspect(
        tenant=lease.tenant,
        kind=lease.source.kind,
        data=lease.data,
        headers=lease.headers,
        sequence=lease.sequence,
        identity=lease.identity,
        delivered=lease.delivered,
        stored_ms=lease.stored_ms,
        results=dict(results),
    )


async def _send(child: Child, data: bytes) -> None:
    assert child.stdin is not None  # noqa: S101  a pipe, see Trials._begin
    child.stdin.write(FRAME.pack(len(data)) + data)
    await child.stdin.drain()


async def _receive(child: Child) -> Ready | Admitted | Passed | Ask:
    assert child.stdout is not None  # noqa: S101
    (size,) = FRAME.unpack(await child.stdout.readexactly(FRAME.size))
    said: Ready | Admitted | Passed | Ask = _SAID.decode(await child.stdout.readexactly(size))
    return said


def _memory_bytes() -> int:
    """What this process, and its children, may have: the machine's memory, or its container's."""
    most: int = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        most = min(most, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return most


def _resident_bytes(pid: int) -> int:
    """What a process takes, where that can be known; else 0."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
