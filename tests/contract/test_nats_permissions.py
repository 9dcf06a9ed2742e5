"""A user whose permissions are changed while it is connected: the server keeps the connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.test_journal import event
from tests.contract.test_nats_faults import again
from tests.contract.worlds import Hands
from tests.servers import NatsServer
from tests.waiting import until
from wpa import connection
from wpa.adapters.nats import open_ports
from wpa.adapters.nats.service import serve_api
from wpa.client import Client
from wpa.client.connecting import connect


def users(*denied: str) -> dict[str, Any]:
    """A worker ``w``, who may not subscribe to what is denied, and a client ``c``, who may all."""
    permissions = {"permissions": {"subscribe": {"deny": list(denied)}}} if denied else {}
    return {"users": [{"user": "w", "password": "p", **permissions}, {"user": "c", "password": "c"}]}


def url(server: NatsServer, who: str) -> str:
    return server.url.replace("//", f"//{who}@")


@pytest.fixture
def guarded(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> NatsServer:
    monkeypatch.setattr(connection, "LISTEN_AGAIN_S", 0.1)
    monkeypatch.setattr(connection, "LISTEN_AGAIN_MAX_S", 0.2)
    server.reload(users())
    return server


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("denied", ["_INBOX.>", "workflow.api.>", "data.>"])
async def test_who_may_listen_again_hears_all_that_it_heard_before(
    guarded: NatsServer, tenant: str, denied: str, restarted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ports = await open_ports(url(guarded, "w:p"), worker="w", ack_wait_s=1.0)
    hands, heard = Hands(), []
    feed = await ports.tasks.open(tenant, hands)
    feed.request(10)
    await ports.live.watch(f"data.{tenant}", lambda subject, data, headers: heard.append(data))
    told: list[None] = []
    ports.transport.on_reconnect(lambda: told.append(None))

    async def handle(tenant: str, verb: str, data: bytes) -> bytes:
        return b'{"ok": true}'

    service = await serve_api(ports.transport, ["status"], handle, "1.0.0")
    position = await ports.journal.append(event(tenant, 1), 0)
    guarded.reload(users(denied))
    await until(lambda: "does not permit us to listen on" in caplog.text)
    if restarted:
        await asyncio.to_thread(guarded.restart)
        await until(lambda: ports.transport.nc.is_connected)
    await asyncio.sleep(1)
    warnings = [record.getMessage() for record in caplog.records if "not permit" in record.getMessage()]
    assert len(warnings) == len(set(warnings))  # told once of each, however often it is refused
    told.clear()
    guarded.reload(users())
    await until(lambda: told)
    await until(lambda: not ports.transport.nc._deaf)
    await again(ports, tenant)
    assert await ports.journal.append(event(tenant, 2), position) > position
    await ports.tasks.publish(tenant, b"after", {})
    await until(lambda: b"after" in hands.data)
    ports.live.publish(f"data.{tenant}", b"news")
    await until(lambda: heard == [b"news"])
    async with await Client.connect(url(guarded, "c:c"), tenant) as client:
        assert (await client.request("status", {}))["ok"]
    await service.stop()
    await ports.aclose()
    assert "permits us to listen again on" in caplog.text


async def test_who_may_never_listen_on_a_subject_keeps_its_connection(
    guarded: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    guarded.reload(users("secret.>"))
    nc = await connect(url(guarded, "w:p"))
    heard: list[bytes] = []

    async def hear(message: Any) -> None:
        heard.append(message.data)

    await nc.subscribe("secret.Letters", cb=hear)
    await nc.subscribe("news", cb=hear)
    await until(lambda: "does not permit us to listen on secret.Letters" in caplog.text)
    assert "permissions violation" in str(nc.last_error)
    await asyncio.sleep(1)
    await nc.publish("news", b"1")
    await until(lambda: heard == [b"1"])
    assert nc.stats["reconnects"] == 0
    assert caplog.text.count("does not permit us") == 1
    await nc.close()


async def test_what_was_unsubscribed_in_between_does_not_come_back(guarded: NatsServer) -> None:
    nc = await connect(url(guarded, "w:p"))
    heard: list[bytes] = []

    async def hear(message: Any) -> None:
        heard.append(message.data)

    left = await nc.subscribe("secret.left", cb=hear)
    await nc.subscribe("secret.kept", cb=hear)
    await nc.flush()
    guarded.reload(users("secret.>"))
    await until(lambda: len(nc._deaf) == 2)
    await left.unsubscribe()
    guarded.reload(users())
    await until(lambda: not nc._deaf)
    received = nc.stats["in_msgs"]
    await nc.publish("secret.left", b"1")
    await nc.publish("secret.kept", b"2")
    await until(lambda: heard == [b"2"])
    assert nc.stats["in_msgs"] == received + 1
    await nc.close()
