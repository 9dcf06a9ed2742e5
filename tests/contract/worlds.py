"""One face for the two worlds that the contract suite runs in: memory, and a real nats-server."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from wpa.adapters import memory
from wpa.adapters.nats import open_ports
from wpa.ports import Ports
from wpa.ports.tasks import Lease

ACK_WAIT_S = 0.6
PATIENCE_S = 5.0


class Heard(NamedTuple):
    subject: str
    data: bytes
    headers: dict[str, str]


class World(ABC):
    """A server, any number of connections to it, and its time."""

    def __init__(self) -> None:
        self._opened: list[Ports] = []

    async def connect(self) -> Ports:
        """One more connection, as one more worker makes it."""
        ports = await self._connect()
        self._opened.append(ports)
        return ports

    async def close(self) -> None:
        for ports in self._opened:
            await ports.aclose()

    async def until(self, condition: Callable[[], object]) -> None:
        """Let time pass until the condition holds."""
        for _ in range(int(PATIENCE_S / 0.01)):
            if condition():
                return
            await self.pass_time(0.01)
        raise AssertionError(f"waited {PATIENCE_S} s in vain")

    @abstractmethod
    async def _connect(self) -> Ports: ...

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

    async def _connect(self) -> Ports:
        return await memory.open_ports(self.server, ack_wait_s=ACK_WAIT_S)

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

    async def _connect(self) -> Ports:
        return await open_ports(self._url, worker="contract", ack_wait_s=ACK_WAIT_S)

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
        await client.flush()
        # What a stream republishes within the first millisecond may miss a new subscription (docs/adr/0003).
        await asyncio.sleep(0.02)
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
