"""A server that does not let us in any more while we are connected: rotated credentials, and mistaken ones."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_journal import event
from tests.contract.test_nats_faults import again
from tests.contract.worlds import Hands
from tests.credentials import Operator
from tests.servers import NatsServer, free_ports
from tests.waiting import until
from wpa import connection
from wpa.adapters.nats import NatsPorts, open_ports
from wpa.adapters.nats.server import find_binary
from wpa.adapters.nats.service import serve_api
from wpa.adapters.nats.transport import Transport
from wpa.client import Client
from wpa.client import channel as client_channel
from wpa.client.connecting import connect
from wpa.errors import Unavailable

NOBODY = {"users": [{"user": "nobody", "password": "x"}]}


def passwords(worker: str = "p", client: str = "c") -> dict[str, Any]:
    return {"users": [{"user": "w", "password": worker}, {"user": "c", "password": client}]}


def url(server: NatsServer, who: str) -> str:
    return server.url.replace("//", f"//{who}@")


@pytest.fixture
def guarded(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[NatsServer]:
    monkeypatch.setattr(connection, "REFUSED_WAIT_S", 0.2)
    server.reload(passwords())
    yield server


@pytest.fixture
async def ports(guarded: NatsServer) -> AsyncIterator[NatsPorts]:
    ports = await open_ports(url(guarded, "w:p"), worker="w", ack_wait_s=1.0)
    yield ports
    await ports.aclose()


async def test_who_is_refused_for_a_while_comes_back_with_all_it_had(
    guarded: NatsServer, ports: NatsPorts, tenant: str, caplog: pytest.LogCaptureFixture
) -> None:
    hands, heard = Hands(), []
    feed = await ports.tasks.open(tenant, hands)
    feed.request(10)
    await ports.live.watch(f"data.{tenant}", lambda subject, data, headers: heard.append(data))

    async def handle(tenant: str, verb: str, data: bytes) -> bytes:
        return b'{"ok": true}'

    service = await serve_api(ports.transport, ["status"], handle, "1.0.0")
    position = await ports.journal.append(event(tenant, 1), 0)
    guarded.reload(passwords(worker="other"))
    await until(lambda: not ports.transport.nc.is_connected)
    with pytest.raises(Unavailable):
        await ports.journal.append(event(tenant, 2), position)
    await until(lambda: "does not let us in" in caplog.text)
    await asyncio.sleep(1)
    guarded.reload(passwords())
    await again(ports, tenant)
    assert len(await ports.journal.read(tenant, "x1")) == 1  # what failed does not come back to life
    assert await ports.journal.append(event(tenant, 2), position) > position
    await ports.tasks.publish(tenant, b"after", {})
    await until(lambda: hands.data == [b"after"])
    ports.live.publish(f"data.{tenant}", b"news")
    await until(lambda: heard == [b"news"])
    async with await Client.connect(url(guarded, "c:c"), tenant) as client:
        assert (await client.request("status", {}))["ok"]
    await service.stop()
    assert "ends the connection: authorization violation" in caplog.text
    assert caplog.text.count("does not let us in: Authorization Violation") == 1
    assert "WPA_NATS_CREDS" in caplog.text
    assert f"connected to NATS again, at 127.0.0.1:{guarded.port}" in caplog.text
    assert "w:p@" not in caplog.text


async def test_calls_under_way_at_a_refusal_end(guarded: NatsServer, ports: NatsPorts, tenant: str) -> None:
    async def write(execution: str) -> None:
        position, seq = 0, 0
        while True:
            seq += 1
            position = await ports.journal.append(event(tenant, seq, execution), position)

    writers = [asyncio.create_task(write(f"x{number}")) for number in range(20)]
    await asyncio.sleep(0.1)
    await asyncio.to_thread(guarded.reload, passwords(worker="other"))
    async with asyncio.timeout(10):
        ended = await asyncio.gather(*writers, return_exceptions=True)
    assert {type(error) for error in ended} == {Unavailable}


@pytest.mark.parametrize("closed", [False, True])
async def test_an_end_while_refused_is_quiet(guarded: NatsServer, ports: NatsPorts, closed: bool) -> None:
    async def handle(tenant: str, verb: str, data: bytes) -> bytes:
        return b""

    service = await serve_api(ports.transport, ["status"], handle, "1.0.0")
    guarded.reload(NOBODY)
    await until(lambda: not ports.transport.nc.is_connected)
    if closed:
        await ports.transport.nc.close()
    async with asyncio.timeout(10):
        await service.stop()
        await ports.aclose()


async def test_credentials_that_cannot_be_read_for_a_moment_are_read_again(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "REFUSED_WAIT_S", 0.2)
    creds = tmp_path / "w.creds"
    ports = await open_ports(server.url, worker="w", creds=str(creds))  # asked for none, it gives none
    nkey = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
    server.reload({"users": [{"nkey": nkey}]})
    await until(lambda: "does not let us in: the credentials can't be used" in caplog.text)
    creds.write_text("-----BEGIN NATS USER JWT-----\nhalf")
    await asyncio.sleep(1)
    server.reload(None)
    await again(ports, "t1")
    await ports.aclose()


async def test_a_client_says_that_it_is_refused_and_goes_on_when_it_is_not(
    guarded: NatsServer, ports: NatsPorts, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_channel, "REQUEST_TIMEOUT_S", 0.5)

    async def handle(tenant: str, verb: str, data: bytes) -> bytes:
        return b'{"ok": true, "execution": {"status": "RUNNING"}, "events": [], "more": false}'

    service = await serve_api(ports.transport, ["status", "history", "start"], handle, "1.0.0")
    async with await Client.connect(url(guarded, "c:c"), tenant) as client:
        waiting = [
            asyncio.create_task(client.result("x1")),
            asyncio.create_task(anext(client.watch("x1"))),  # type: ignore[arg-type]
            asyncio.create_task(anext(client.watch())),  # type: ignore[arg-type]
        ]
        assert await client.status("x1") == {"status": "RUNNING"}
        guarded.reload(passwords(client="other"))
        async with asyncio.timeout(20):
            for waiter in waiting:
                with pytest.raises(Unavailable, match="does not let us in: Authorization Violation"):
                    await waiter
            with pytest.raises(Unavailable, match=r"does not let us in.*may have been started"):
                await client.start("w")
        guarded.reload(passwords())
        await until(lambda: client._nc.is_connected)
        assert await client.status("x1") == {"status": "RUNNING"}
    await service.stop()


@pytest.fixture
async def operated(tmp_path: Path) -> AsyncIterator[tuple[str, Operator]]:
    """The URL of a server that asks for credentials of an operator's."""
    operator = Operator()
    (port,) = free_ports(1)
    config = tmp_path / "operated.conf"
    config.write_text(json.dumps({"host": "127.0.0.1", "port": port, **operator.configuration}))
    server = subprocess.Popen([find_binary(), "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        yield f"nats://127.0.0.1:{port}", operator
    finally:
        server.kill()
        server.wait()


async def test_credentials_that_expire_are_read_anew(
    operated: tuple[str, Operator],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "REFUSED_WAIT_S", 0.2)
    url, operator = operated
    creds = tmp_path / "w.creds"
    creds.write_text(operator.credentials(expires_s=3))
    transport = await Transport.connect(url, name="w", creds=str(creds))
    client = await connect(url, creds=creds)
    heard: list[bytes] = []
    await transport.subscribe("news", lambda message: heard.append(message.data))
    await until(lambda: "does not let us in" in caplog.text)
    creds.write_text(operator.credentials())
    await until(lambda: transport.nc.is_connected and client.is_connected)
    transport.send("news", b"after")
    await until(lambda: heard)
    assert (client.refusal, transport.nc.refusal) == ("", "")
    assert "ends the connection: user authentication expired" in caplog.text
    await client.close()
    await transport.close()
