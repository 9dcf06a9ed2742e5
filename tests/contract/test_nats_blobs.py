"""What a reader of the object store does with an object that is not as it was written; and how it is written,
so that none ever is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import nats
import pytest
from nats.js import JetStreamContext

from tests.chaos.proxy import Proxy
from tests.servers import NatsServer
from wpa.adapters.nats import NatsPorts, open_ports
from wpa.adapters.nats.streams import PAYLOADS_BUCKET
from wpa.client import Client
from wpa.errors import NotFound, Unavailable

STREAM = f"OBJ_{PAYLOADS_BUCKET}"


@pytest.fixture
async def ports(nats_server: NatsServer) -> AsyncIterator[NatsPorts]:
    ports = await open_ports(nats_server.url, worker="blobs")
    yield ports
    await ports.aclose()


@pytest.fixture
async def jetstream(nats_server: NatsServer) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(nats_server.url)
    yield client.jetstream()
    await client.close()


async def chunks_of(jetstream: JetStreamContext, key: str) -> str:
    """The subject of an object's chunks."""
    info = await (await jetstream.object_store(PAYLOADS_BUCKET)).get_info(key)
    return f"$O.{PAYLOADS_BUCKET}.C.{info.nuid}"


async def test_what_any_client_has_written_is_read(
    ports: NatsPorts, jetstream: JetStreamContext, tenant: str
) -> None:
    store = await jetstream.object_store(PAYLOADS_BUCKET)
    await store.put(tenant, b"x" * 300_000)
    assert await ports.blobs.get(tenant) == b"x" * 300_000
    await ports.blobs.put(tenant, b"y" * 300_000)
    assert (await store.get(tenant)).data == b"y" * 300_000


async def test_an_object_without_its_content_is_given_up(
    ports: NatsPorts, jetstream: JetStreamContext, tenant: str
) -> None:
    await ports.blobs.put(tenant, b"x" * 300_000)
    await jetstream.purge_stream(STREAM, subject=await chunks_of(jetstream, tenant))
    with pytest.raises(Unavailable, match="0 of 300000 bytes are there"):
        await ports.blobs.get(tenant)


async def test_a_client_gives_it_up_too(
    ports: NatsPorts,
    jetstream: JetStreamContext,
    nats_server: NatsServer,
    tenant: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wpa.client.client.STALLED_S", 0.5, raising=False)
    key = f"{tenant}/x/0123"
    await ports.blobs.put(key, b"x" * 300_000)
    async with await Client.connect(nats_server.url, tenant) as client:
        assert len(await client.payload(key)) == 300_000
        await jetstream.purge_stream(STREAM, subject=await chunks_of(jetstream, key))
        async with asyncio.timeout(20):
            with pytest.raises(Unavailable, match="0 bytes have come"):
                await client.payload(key)


async def test_content_with_another_digest_is_not_handed_over(
    ports: NatsPorts, jetstream: JetStreamContext, tenant: str
) -> None:
    await ports.blobs.put(tenant, b"x" * 1_000)
    subject = await chunks_of(jetstream, tenant)
    await jetstream.purge_stream(STREAM, subject=subject)
    await jetstream.publish(subject, b"y" * 1_000)
    with pytest.raises(Unavailable, match="not what was stored"):
        await ports.blobs.get(tenant)


async def test_metadata_that_are_none_are_told(
    ports: NatsPorts, jetstream: JetStreamContext, tenant: str
) -> None:
    await ports.blobs.put(tenant, b"x")
    last = await jetstream.get_last_msg(STREAM, f"$O.{PAYLOADS_BUCKET}.M.>")
    assert msgspec.json.decode(last.data or b"")["name"] == tenant
    await jetstream.publish(last.subject or "", b"{")
    with pytest.raises(Unavailable, match="its metadata"):
        await ports.blobs.get(tenant)


# -- written ---------------------------------------------------------------------------------


class LosingAnswers(Proxy):
    """From when an object's metadata have passed it, no answer does, and the connection is lost."""

    async def _forward(self, way: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        if way == "up":
            source = _Tapped(source, self)
        await super()._forward(way, source, sink)

    async def lose(self) -> None:
        self.drop_replies()
        await asyncio.sleep(0.3)
        self.cut()
        self.heal()


class _Tapped(asyncio.StreamReader):
    """Reads from another, and looks at what comes."""

    def __init__(self, source: asyncio.StreamReader, proxy: LosingAnswers) -> None:
        super().__init__()
        self._source, self._proxy = source, proxy
        self._losing: asyncio.Task[None] | None = None

    async def read(self, n: int = -1) -> bytes:
        data = await self._source.read(n)
        if b"PUB $O.wpa_payloads.M." in data and self._losing is None:
            self._losing = asyncio.create_task(self._proxy.lose())
            await asyncio.sleep(0)
        return data


async def puts_and_is_not_told(server: NatsServer, key: str, data: bytes) -> None:
    """A worker's put whose last answer is lost."""
    async with LosingAnswers(server.port) as proxy:
        ports = await open_ports(proxy.url, worker="cut-off")
        try:
            with contextlib.suppress(Unavailable):
                await ports.blobs.put(key, data)
        finally:
            await ports.aclose()


async def test_what_was_stored_before_outlives_another_put_whose_answer_is_lost(
    ports: NatsPorts, nats_server: NatsServer, tenant: str
) -> None:
    data = b"x" * 300_000
    await ports.blobs.put(tenant, data)
    await puts_and_is_not_told(nats_server, tenant, data)
    assert await ports.blobs.get(tenant) == data


async def test_what_is_put_and_not_answered_is_there_or_not(
    ports: NatsPorts, nats_server: NatsServer, tenant: str
) -> None:
    data = b"x" * 300_000
    await puts_and_is_not_told(nats_server, tenant, data)
    with contextlib.suppress(NotFound):
        assert await ports.blobs.get(tenant) == data
    await ports.blobs.put(tenant, data)
    assert await ports.blobs.get(tenant) == data


async def test_what_is_whole_is_not_written_again(
    ports: NatsPorts, jetstream: JetStreamContext, tenant: str
) -> None:
    await ports.blobs.put(tenant, b"x" * 300_000)
    before = await chunks_of(jetstream, tenant)
    await ports.blobs.put(tenant, b"x" * 300_000)
    assert await chunks_of(jetstream, tenant) == before


@pytest.mark.parametrize("damage", ["no chunks", "half the chunks", "no metadata"])
async def test_what_is_not_whole_is_written_again(
    ports: NatsPorts, jetstream: JetStreamContext, tenant: str, damage: str
) -> None:
    data = b"x" * 300_000
    await ports.blobs.put(tenant, data)
    subject = await chunks_of(jetstream, tenant)
    if damage == "no metadata":
        last = await jetstream.get_last_msg(STREAM, f"$O.{PAYLOADS_BUCKET}.M.>")
        await jetstream.publish(last.subject or "", b"{")
    else:
        await jetstream.purge_stream(STREAM, subject=subject, keep=1 if damage == "half the chunks" else 0)
    await ports.blobs.put(tenant, data)
    assert await ports.blobs.get(tenant) == data
    assert (await (await jetstream.object_store(PAYLOADS_BUCKET)).get(tenant)).data == data
    if damage != "no metadata":
        info = await jetstream.stream_info(STREAM, subjects_filter=subject)
        assert not info.state.subjects


async def test_without_room_nothing_stays_of_what_could_not_be_stored(
    ports: NatsPorts, jetstream: JetStreamContext, tenant: str
) -> None:
    config = (await jetstream.stream_info(STREAM)).config
    used = (await jetstream.stream_info(STREAM)).state.bytes
    await jetstream.update_stream(config.evolve(max_bytes=used + 200_000))
    try:
        with pytest.raises(Unavailable, match="can't be stored"):
            await ports.blobs.put(tenant, b"x" * 300_000)
        assert (await jetstream.stream_info(STREAM)).state.bytes == used
    finally:
        await jetstream.update_stream(config)
    await ports.blobs.put(tenant, b"x" * 300_000)
    assert await ports.blobs.get(tenant) == b"x" * 300_000
