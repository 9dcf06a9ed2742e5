"""Where a worker can die, and how: the ports of a worker that is to die at a given point.

A *point* is a moment between two things that the world outside can tell apart: before and after each
append, each snapshot, alarm, task and ack, and before and after the work of each attempt at a step. At its
point a worker is gone, as a killed process is: it acks nothing, appends nothing, and what it had in hand goes
to another.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from wpa.model.events import Event
from wpa.ports import Ports
from wpa.ports.journal import Journal, Stored
from wpa.ports.snapshots import Snapshots
from wpa.ports.tasks import Feed, Lease, Source, TaskQueue
from wpa.ports.timers import Timers

__all__ = ["Faults", "mortal"]

T = TypeVar("T")


class Faults:
    """The points that were passed, in order, and the one at which to die.

    Args:
        at: the number of the point, from 0; None: only take note of them.
    """

    def __init__(self, at: int | None = None) -> None:
        self.passed: list[str] = []
        self.died_at = ""
        """The point at which a worker died; empty while none has."""
        self.leases: dict[str, Lease] = {}
        """What the worker has in hand, by identity."""
        self._at = at
        self._die: Callable[[], None] | None = None

    def watch(self, die: Callable[[], None]) -> None:
        """From now on, it is this worker that dies."""
        self._die = die

    def hit(self, point: str) -> bool:
        """Pass a point. Whether the worker has just died there."""
        self.passed.append(point)
        if self._die is None or self._at != len(self.passed) - 1:
            return False
        self.died_at = point
        # The server finds out at once. Later, whatever depends on the time would differ from run to run.
        for lease in self.leases.values():
            lease.nak()
        self.leases.clear()
        self._die()
        return True

    async def reach(self, point: str) -> None:
        """Pass a point, or die there: then this never returns; it is cancelled with the worker's tasks."""
        if self.hit(point):
            await asyncio.get_running_loop().create_future()

    async def around(self, what: str, action: Callable[[], Awaitable[T]]) -> T:
        """A point before, and one after ``action``."""
        await self.reach(f"before {what}")
        result = await action()
        await self.reach(f"after {what}")
        return result


def mortal(ports: Ports, faults: Faults) -> Ports:
    """``ports``, with a point before and after everything that changes what is stored."""
    return dataclasses.replace(
        ports,
        journal=_Journal(ports.journal, faults),
        snapshots=_Snapshots(ports.snapshots, faults),
        timers=_Timers(ports.timers, faults),
        tasks=_Tasks(ports.tasks, faults),
    )


class _Journal:
    def __init__(self, inner: Journal, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def append(self, event: Event, after: int) -> int:
        slot = event.data.get("slot")
        what = f"{event.event} of {event.execution_id}" + (f" ({slot})" if slot else "")
        return await self._faults.around(f"the append of {what}", lambda: self._inner.append(event, after))

    async def read(
        self, tenant: str, execution: str, after: int = 0, most: int | None = None
    ) -> list[Stored]:
        return await self._inner.read(tenant, execution, after, most)

    async def latest(self, tenant: str, execution: str) -> int:
        return await self._inner.latest(tenant, execution)

    async def recent(self, tenant: str, most: int, before: int = 0) -> tuple[list[Stored], int]:
        return await self._inner.recent(tenant, most, before)


class _Snapshots:
    def __init__(self, inner: Snapshots, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def get(self, tenant: str, execution: str) -> tuple[bytes, int] | None:
        return await self._inner.get(tenant, execution)

    async def put(self, tenant: str, execution: str, data: bytes, revision: int) -> int:
        return await self._faults.around(
            f"the snapshot of {execution}", lambda: self._inner.put(tenant, execution, data, revision)
        )


class _Timers:
    def __init__(self, inner: Timers, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def set(
        self, tenant: str, name: str, at_ms: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        await self._faults.around(
            f"setting the alarm {name}", lambda: self._inner.set(tenant, name, at_ms, body, headers)
        )

    async def clear(self, tenant: str, name: str) -> None:
        await self._faults.around(f"clearing the alarm {name}", lambda: self._inner.clear(tenant, name))


class _Tasks:
    def __init__(self, inner: TaskQueue, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def publish(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        what = f"publishing {_named(data)}"
        return await self._faults.around(what, lambda: self._inner.publish(tenant, data, headers))

    async def publish_step(self, tenant: str, queue: str, data: bytes, headers: dict[str, str]) -> int:
        what = f"publishing a step for queue {queue}"
        return await self._faults.around(what, lambda: self._inner.publish_step(tenant, queue, data, headers))

    async def bury(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        what = f"burying {_named(data)}"
        return await self._faults.around(what, lambda: self._inner.bury(tenant, data, headers))

    async def open(self, source: Source | str, deliver: Callable[[Lease], None]) -> Feed:
        def take(lease: Lease) -> None:
            self._faults.leases[lease.identity] = lease
            deliver(_Lease(lease, self._faults))

        return await self._inner.open(source, take)

    async def tenants(self) -> set[str]:
        return await self._inner.tenants()

    async def queues(self) -> set[tuple[str, str]]:
        return await self._inner.queues()

    async def buried(
        self, tenant: str, limit: int, before: int = 0
    ) -> list[tuple[int, bytes, dict[str, str]]]:
        return await self._inner.buried(tenant, limit, before)

    async def exhume(self, tenant: str, sequence: int) -> tuple[bytes, dict[str, str]] | None:
        return await self._inner.exhume(tenant, sequence)

    async def discard(self, tenant: str, sequence: int) -> None:
        await self._inner.discard(tenant, sequence)


class _Lease:
    """A lease whose ack can be the last thing that a worker did, or the first that it didn't."""

    def __init__(self, inner: Lease, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults
        self.source = inner.source
        self.tenant = inner.tenant
        self.data = inner.data
        self.headers = inner.headers
        self.sequence = inner.sequence
        self.identity = inner.identity
        self.delivered = inner.delivered
        self.stored_ms = inner.stored_ms

    def ack(self) -> None:
        what = f"the ack of {_named(self.data)}"
        if not self._faults.hit(f"before {what}"):
            self._faults.leases.pop(self.identity, None)
            self._inner.ack()
            self._faults.hit(f"after {what}")

    def nak(self, delay_s: float = 0.0) -> None:
        self._faults.leases.pop(self.identity, None)
        self._inner.nak(delay_s)

    def extend(self) -> None:
        self._inner.extend()


class _Named(msgspec.Struct):
    """As much of a task as its name needs."""

    type: str = "a step"
    execution_id: str = ""
    slot: str = ""


def _named(data: bytes) -> str:
    try:
        task = msgspec.json.decode(data, type=_Named)
    except msgspec.DecodeError:
        return "what is no task"
    return f"{task.type} of {task.execution_id}" + (f" ({task.slot})" if task.slot else "")
