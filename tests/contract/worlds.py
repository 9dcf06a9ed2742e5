"""One face for the two worlds that the contract suite runs in: memory, and a real nats-server."""

from __future__ import annotations

import asyncio
import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.waiting import PATIENCE_S
from wpa.adapters import memory
from wpa.adapters.nats import NatsPorts, open_ports
from wpa.adapters.nats.api import api
from wpa.adapters.nats.consumers import consumer_name, stream_of
from wpa.client.connecting import flush
from wpa.ports import Ports
from wpa.ports.tasks import Lease, Source

ACK_WAIT_S = 0.6
LONG_S = 60.0
"""A lease that outlasts its test, however slow the machine is."""
LOOKED_S = 0.2
"""By then a server has looked for leases that are over, after their length was changed."""
LATE_S = 0.03
"""A server that is later than that is on a busy machine."""
LOOKS_MAX = 5
NOTHING = Source("nobody-asks-anything")
"""A source that stays empty."""
NEVER = 2**63 - 1
"""A sequence that no message has."""


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
    async def overwrite(self, bucket: str, key: str, value: bytes) -> None:
        """Write to one of the engine's buckets as nobody should."""

    @abstractmethod
    async def add_stream(self, name: str, *subjects: str) -> None:
        """As its owner makes a stream."""

    @abstractmethod
    async def delete_stream(self, name: str) -> None: ...

    @abstractmethod
    async def pass_time(self, seconds: float) -> None: ...

    @abstractmethod
    async def obeyed(self, ports: Ports, source: Source) -> None:
        """Wait until all is done that leases of ``source`` were answered on this connection.

        Answers are sent, not awaited. The source must have been opened.
        """

    @abstractmethod
    async def held(self, source: Source) -> int:
        """How many messages there are in a source, those that somebody holds included."""


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

    async def overwrite(self, bucket: str, key: str, value: bytes) -> None:
        getattr(self.server, bucket).put(key, value)

    async def add_stream(self, name: str, *subjects: str) -> None:
        self.server.add_stream(name, *subjects)

    async def delete_stream(self, name: str) -> None:
        self.server.delete_stream(name)

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    async def obeyed(self, ports: Ports, source: Source) -> None:
        await self.clock.settle()

    async def held(self, source: Source) -> int:
        stream = self.server.due if source.kind == "due" else self.server.tasks
        return len(stream.read(source.subject))


class NatsWorld(World):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._clients: list[Client] = []
        self._spares: list[NatsPorts] = []

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

    async def overwrite(self, bucket: str, key: str, value: bytes) -> None:
        await (await self._client()).jetstream().publish(f"$KV.wpa_{bucket}.{key}", value)

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

    async def obeyed(self, ports: Ports, source: Source) -> None:
        assert isinstance(ports, NatsPorts)
        # The server works a consumer's answers off one by one, and confirms those that ask for it: here, an
        # extension of a lease that never was. What is read from this connection before it comes before it.
        await flush(ports.transport.nc)
        ack = f"$JS.ACK.{stream_of(source)}.{consumer_name(source)}.1.{NEVER}.1.0.0"
        await ports.transport.request(ack, b"+WPI")

    async def end_leases(self, sources: Iterable[Source], *ages_s: float) -> None:
        """End the leases that are so old, then those of the next age, as if their time were over.

        The server reckons a lease from its beginning, by the length that is in force: that is cut for a
        moment. Nobody may have credit meanwhile.
        """
        transport = (await self._spare()).transport
        consumers = [
            await api(transport, f"CONSUMER.INFO.{stream_of(source)}.{consumer_name(source)}")
            for source in sources
        ]
        for age_s in ages_s:
            for consumer in consumers:
                await self._update(consumer, {**consumer["config"], "ack_wait": int(age_s * 1e9)})
            await self._looked()
        for consumer in consumers:
            await self._update(consumer, consumer["config"])

    async def _looked(self) -> None:
        """Wait until the server has looked for leases that are over: a tenth of a second after a change.

        It is the server that tells when twice that time is over. One that is late with that may be late with
        the other, too: it is given more time.
        """
        transport = (await self._spare()).transport
        pull = f"$JS.API.CONSUMER.MSG.NEXT.{stream_of(NOTHING)}.{consumer_name(NOTHING)}"
        for _ in range(LOOKS_MAX):
            began = time.monotonic()
            await transport.request(pull, b'{"batch": 1, "expires": %d}' % int(LOOKED_S * 1e9))
            if time.monotonic() - began < LOOKED_S + LATE_S:
                return

    async def _update(self, consumer: dict[str, Any], config: dict[str, Any]) -> None:
        stream, name = consumer["stream_name"], consumer["name"]
        verb = f"CONSUMER.CREATE.{stream}.{name}.{config['filter_subject']}"
        await api((await self._spare()).transport, verb, {"stream_name": stream, "config": config})

    async def held(self, source: Source) -> int:
        transport = (await self._spare()).transport
        subject = source.subject
        info = await api(transport, f"STREAM.INFO.{stream_of(source)}", {"subjects_filter": subject})
        return int((info["state"].get("subjects") or {}).get(subject, 0))

    async def _spare(self) -> NatsPorts:
        """A connection of the world's own."""
        if not self._spares:
            ports = await self.connect(LONG_S)
            assert isinstance(ports, NatsPorts)
            await (await ports.tasks.open(NOTHING, ignore)).close()
            self._spares.append(ports)
        return self._spares[0]


def ignore(lease: Lease) -> None:
    """Never called: for a feed without credit."""
    raise AssertionError(f"{lease.data!r} was delivered without having been asked for")


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
