"""One face for the two worlds that the contract suite runs in: memory, and a real nats-server."""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.waiting import PATIENCE_S
from wpa.adapters import memory
from wpa.adapters.nats import open_ports
from wpa.client.connecting import flush
from wpa.ports import Ports
from wpa.ports.tasks import Lease

ACK_WAIT_S = 0.6
LONG_S = 60.0
"""A lease that outlasts its test, however slow the machine is."""


class Heard(NamedTuple):
    subject: str
    data: bytes
    headers: dict[str, str]


class World(ABC):
    """A server, any number of connections to it, and its time."""

    def __init__(self) -> None:
        self._opened: list[Ports] = []

    async def connect(self, ack_wait_s: float = ACK_WAIT_S) -> Ports:
        """One more connection, as one more worker makes it; its leases last for ``ack_wait_s``."""
        ports = await self._connect(ack_wait_s)
        self._opened.append(ports)
        return ports

    async def close(self) -> None:
        for ports in self._opened:
            await ports.aclose()

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let time pass until the condition, or what it awaits, is true."""
        for _ in range(int(PATIENCE_S / 0.01)):
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            await self.pass_time(0.01)
        raise AssertionError(f"waited {PATIENCE_S:g} s in vain")

    @abstractmethod
    async def _connect(self, ack_wait_s: float) -> Ports: ...

    @abstractmethod
    async def listen(self, pattern: str) -> list[Heard]:
        """What is published on matching subjects from now on, as any client hears it."""

    @abstractmethod
    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        """As any client publishes; it is stored, where a stream captures the subject."""

    @abstractmethod
    async def add_stream(self, name: str, *subjects: str) -> None:
        """As its owner makes a stream."""

    @abstractmethod
    async def delete_stream(self, name: str) -> None: ...

    @abstractmethod
    async def pass_time(self, seconds: float) -> None: ...


class MemoryWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self.clock = memory.VirtualClock()
        self.server = memory.MemoryServer(self.clock)

    async def _connect(self, ack_wait_s: float) -> Ports:
        return await memory.open_ports(self.server, ack_wait_s=ack_wait_s)

    async def listen(self, pattern: str) -> list[Heard]:
        heard: list[Heard] = []
        self.server.subscribe(pattern, lambda *message: heard.append(Heard(*message)))
        return heard

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.server.publish(subject, data, headers)

    async def add_stream(self, name: str, *subjects: str) -> None:
        self.server.add_stream(name, *subjects)

    async def delete_stream(self, name: str) -> None:
        self.server.delete_stream(name)

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)


class NatsWorld(World):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._clients: list[Client] = []

    async def _connect(self, ack_wait_s: float) -> Ports:
        return await open_ports(self._url, worker="contract", ack_wait_s=ack_wait_s)

    async def close(self) -> None:
        await super().close()
        for client in self._clients:
            await client.close()

    async def listen(self, pattern: str) -> list[Heard]:
        heard: list[Heard] = []

        async def take(message: Msg) -> None:
            heard.append(Heard(message.subject, message.data, dict(message.headers or {})))

        client = await self._client()
        await client.subscribe(pattern, cb=take)
        await flush(client)
        return heard

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        await (await self._client()).jetstream().publish(subject, data, headers=headers)

    async def add_stream(self, name: str, *subjects: str) -> None:
        await (await self._client()).jetstream().add_stream(name=name, subjects=list(subjects))

    async def delete_stream(self, name: str) -> None:
        await (await self._client()).jetstream().delete_stream(name)

    async def _client(self) -> Client:
        if not self._clients:
            self._clients.append(await nats.connect(self._url))
        return self._clients[0]

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Hands:
    """A feed's consumer that keeps what it is given."""

    def __init__(self) -> None:
        self.leases: list[Lease] = []

    def __call__(self, lease: Lease) -> None:
        self.leases.append(lease)

    @property
    def data(self) -> list[bytes]:
        return [lease.data for lease in self.leases]

    @property
    def delivered(self) -> list[int]:
        """The how-manieth delivery of its task each lease is."""
        return [lease.delivered for lease in self.leases]
