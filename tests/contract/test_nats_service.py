"""Requests side by side: a worker that is asked more than it can answer keeps up with those who still listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import nats
import pytest
from nats.aio.client import Client

from tests.servers import NatsServer
from wpa.adapters.nats import service as nats_service
from wpa.adapters.nats.service import SIDE_BY_SIDE, serve_api
from wpa.adapters.nats.transport import Transport
from wpa.client.connecting import flush


class Desk:
    """A handler whose requests are answered when they are let go."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.go = asyncio.Event()

    async def handle(self, tenant: str, verb: str, data: bytes) -> bytes:
        self.begun.append(data)
        await self.go.wait()
        return msgspec.json.encode({"ok": True, "said": f"{tenant} {verb} {data.decode()}"})


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    server = NatsServer(tmp_path)
    server.start()
    try:
        client = await nats.connect(server.url)
        yield client
        await client.close()
    finally:
        server.kill()


async def until(desk: Desk, count: int) -> None:
    async with asyncio.timeout(20):
        while len(desk.begun) < count:
            await asyncio.sleep(0.01)


async def test_requests_are_answered_side_by_side_in_the_order_in_which_they_came(client: Client) -> None:
    desk = Desk()
    transport = await Transport.connect(client.connected_url.geturl(), name="w")  # type: ignore[union-attr]
    service = await serve_api(transport, ["status"], desk.handle, "1.0.0")
    await flush(transport.nc)
    asked = [
        asyncio.create_task(client.request("workflow.api.acme.status", b"%d" % number, timeout=30))
        for number in range(SIDE_BY_SIDE + 3)
    ]
    await until(desk, SIDE_BY_SIDE)
    await asyncio.sleep(0.1)
    assert desk.begun == [b"%d" % number for number in range(SIDE_BY_SIDE)]
    desk.go.set()
    answers = [msgspec.json.decode((await each).data) for each in asked]
    assert answers == [{"ok": True, "said": f"acme status {number}"} for number in range(SIDE_BY_SIDE + 3)]
    await service.stop()
    await transport.close()


async def test_what_has_waited_for_longer_than_its_asker_is_refused_unseen(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_service, "PATIENCE_S", 0.2)
    desk = Desk()
    transport = await Transport.connect(client.connected_url.geturl(), name="w")  # type: ignore[union-attr]
    service = await serve_api(transport, ["status"], desk.handle, "1.0.0")
    await flush(transport.nc)
    first = [
        asyncio.create_task(client.request("workflow.api.acme.status", b"first", timeout=30))
        for _ in range(SIDE_BY_SIDE)
    ]
    await until(desk, SIDE_BY_SIDE)
    late = asyncio.create_task(client.request("workflow.api.acme.status", b"late", timeout=30))
    await asyncio.sleep(0.5)
    desk.go.set()
    error = msgspec.json.decode((await late).data)["error"]
    assert error["code"] == "unavailable"
    assert "try again" in error["message"]
    assert b"late" not in desk.begun
    for each in await asyncio.gather(*first):
        assert msgspec.json.decode(each.data)["ok"]
    again = await client.request("workflow.api.acme.status", b"late", timeout=30)
    assert msgspec.json.decode(again.data)["ok"]
    await service.stop()
    await transport.close()


async def test_what_is_under_way_at_the_end_is_answered(client: Client) -> None:
    desk = Desk()
    transport = await Transport.connect(client.connected_url.geturl(), name="w")  # type: ignore[union-attr]
    service = await serve_api(transport, ["status"], desk.handle, "1.0.0")
    await flush(transport.nc)
    asked = asyncio.create_task(client.request("workflow.api.acme.status", b"last", timeout=30))
    await until(desk, 1)
    stopping = asyncio.create_task(service.stop())
    await asyncio.sleep(0.05)
    desk.go.set()
    assert msgspec.json.decode((await asked).data)["ok"]
    await stopping
    await transport.close()


async def test_no_tenant_waits_behind_all_that_another_asks(client: Client) -> None:
    """What takes long, as a signal to an execution that is not there yet, had every tenant wait in one queue."""
    answered: list[str] = []

    async def handle(tenant: str, verb: str, data: bytes) -> bytes:
        if tenant == "acme":
            await asyncio.sleep(0.2)
        answered.append(tenant)
        return msgspec.json.encode({"ok": True})

    transport = await Transport.connect(client.connected_url.geturl(), name="w")  # type: ignore[union-attr]
    service = await serve_api(transport, ["status"], handle, "1.0.0")
    await flush(transport.nc)
    tenants = ["acme"] * (5 * SIDE_BY_SIDE) + ["beta"]
    asked = [client.request(f"workflow.api.{tenant}.status", b"", timeout=30) for tenant in tenants]
    await asyncio.gather(*asked)
    assert answered.index("beta") <= SIDE_BY_SIDE
    await service.stop()
    await transport.close()


async def test_an_answer_goes_to_an_inbox_and_nowhere_else(client: Client) -> None:
    desk = Desk()
    desk.go.set()
    transport = await Transport.connect(client.connected_url.geturl(), name="w")  # type: ignore[union-attr]
    service = await serve_api(transport, ["list"], desk.handle, "1.0.0")
    await flush(transport.nc)
    heard = await client.subscribe(">")
    subject = "workflow.api.acme.list"
    for reply in (
        "$KV.wpa_definitions.beta.q",
        "workflow.tasks.beta",
        "wpa.x",
        "data.raw",
        "workflow.api.b.c",
    ):
        await client.publish(subject, b"written by an answer", reply=reply)
    await client.publish(subject, b"asked for nothing")
    for reply in ("_INBOX.a", "_INBOX_acme.a"):
        await client.publish(subject, b"asked", reply=reply)
    answered = set()
    while len(answered) < 2:
        message = await heard.next_msg(timeout=20)
        if message.data.startswith(b"{"):
            answered.add(message.subject)
    assert answered == {"_INBOX.a", "_INBOX_acme.a"}
    assert desk.begun == [b"asked for nothing", b"asked", b"asked"]
    await service.stop()
    await transport.close()
