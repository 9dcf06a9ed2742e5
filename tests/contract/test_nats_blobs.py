"""What a reader of the object store does with an object that is not as it was written."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import nats
import pytest
from nats.js import JetStreamContext

from tests.servers import NatsServer
from wpa.adapters.nats import NatsPorts, open_ports
from wpa.adapters.nats.streams import PAYLOADS_BUCKET
from wpa.errors import Unavailable

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
