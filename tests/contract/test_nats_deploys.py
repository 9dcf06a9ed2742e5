"""A deploy whose worker died, or had no answer, in the middle: deployed once more, it is deployed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock

import msgspec
import pytest

from tests.servers import NatsServer
from wpa.adapters.nats import NatsPorts, open_ports
from wpa.errors import Unavailable
from wpa.ports.definitions import StoredDefinition

VERSION, LATEST = "{}.order.2", "{}.order"


@pytest.fixture
async def ports(server: NatsServer) -> AsyncIterator[NatsPorts]:
    ports = await open_ports(server.url, worker="w1")
    yield ports
    await ports.aclose()


def definition(version: str) -> StoredDefinition:
    return StoredDefinition(
        workflow="order",
        version=version,
        hash=f"h{version}",
        kind="plan",
        document=msgspec.Raw(b"{}"),
        deployed_at="",
    )


async def unanswered(ports: NatsPorts, tenant: str, key: str, *, stored: bool) -> None:
    """Deploy version 2; what is written under ``key`` is not answered, and stored or not."""
    bucket = ports.definitions._bucket  # type: ignore[attr-defined]
    put = bucket.put

    async def lose(name: str, value: bytes, revision: int) -> Any:
        if name == key.format(tenant):
            if stored:
                await put(name, value, revision)
            raise Unavailable("no answer")
        return await put(name, value, revision)

    with mock.patch.object(bucket, "put", lose), pytest.raises(Unavailable):
        await ports.definitions.put(tenant, definition("2"))


@pytest.mark.parametrize(("key", "stored"), [(VERSION, True), (LATEST, False), (LATEST, True)])
async def test_the_version_deployed_once_more_is_the_latest(
    ports: NatsPorts, tenant: str, key: str, stored: bool
) -> None:
    await ports.definitions.put(tenant, definition("1"))
    await unanswered(ports, tenant, key, stored=stored)
    await ports.definitions.put(tenant, definition("2"))
    assert await ports.definitions.latest(tenant, "order") == "2"
    # What was deployed before is not deployed anew by that.
    assert await ports.definitions.put(tenant, definition("1")) is False
    assert await ports.definitions.latest(tenant, "order") == "2"


async def test_one_that_another_was_deployed_after_is_not(ports: NatsPorts, tenant: str) -> None:
    await ports.definitions.put(tenant, definition("1"))
    await unanswered(ports, tenant, VERSION, stored=True)
    await ports.definitions.put(tenant, definition("3"))
    assert await ports.definitions.put(tenant, definition("2")) is False
    assert await ports.definitions.latest(tenant, "order") == "3"


async def test_a_version_that_was_written_again_is_not_the_latest_for_it(
    ports: NatsPorts, tenant: str
) -> None:
    """What can't be read is replaced by the document that is deployed once more."""
    for version in ("1", "2"):
        await ports.definitions.put(tenant, definition(version))
    await ports.transport.publish_acked(f"$KV.wpa_definitions.{tenant}.order.1", b"junk")
    async with asyncio.timeout(20):
        for _ in range(2):
            assert await ports.definitions.put(tenant, definition("1")) is False
            assert await ports.definitions.latest(tenant, "order") == "2"
