from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.servers import NatsServer
from wpa.adapters.nats import open_ports, streams
from wpa.adapters.nats.api import api
from wpa.adapters.nats.server import find_binary
from wpa.adapters.nats.transport import Transport
from wpa.errors import PlatformError, Unavailable


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a server that lets in user ``u`` with password ``right``."""
    ports = tmp_path / "ports"
    ports.mkdir()
    config = {
        "host": "127.0.0.1",
        "port": -1,
        "ports_file_dir": str(ports),
        "authorization": {"user": "u", "password": "right"},
    }
    (tmp_path / "c.json").write_text(json.dumps(config))
    server = subprocess.Popen([find_binary(), "-c", str(tmp_path / "c.json")], stderr=subprocess.DEVNULL)
    try:
        found = ports / f"nats-server_{server.pid}.ports"
        async with asyncio.timeout(30):
            while not found.exists() or not found.read_text().endswith("}"):
                await asyncio.sleep(0.01)
        yield json.loads(found.read_text())["nats"][0]
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("user", ["u:wrong@", ""])
async def test_a_refusal_is_told_at_once_and_no_password(guarded: str, user: str) -> None:
    async with asyncio.timeout(15):
        with pytest.raises(Unavailable, match=r"does not let us in: .*Authorization Violation") as refused:
            await Transport.connect(guarded.replace("//", f"//{user}"), name="w")
    assert "wrong" not in str(refused.value)
    assert guarded in str(refused.value)


async def test_who_may_is_let_in(guarded: str) -> None:
    transport = await Transport.connect(guarded.replace("//", "//u:right@"), name="w")
    await transport.close()


async def test_a_worker_waits_for_nothing_where_it_is_refused(
    guarded: str, caplog: pytest.LogCaptureFixture
) -> None:
    for user, why in (("wrong", "does not let us in"), ("right", "runs without JetStream")):
        with pytest.raises(PlatformError, match=why):
            await open_ports(guarded.replace("//", f"//u:{user}@"), worker="w")
    assert "waiting for JetStream" not in caplog.text


async def test_a_worker_waits_for_nothing_where_a_stream_is_another(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    transport = await Transport.connect(server.url, name="w")
    await api(transport, f"STREAM.CREATE.{streams.TASKS}", {"name": streams.TASKS, "subjects": ["mine"]})
    await transport.close()
    with pytest.raises(PlatformError, match=r"WPA_TASKS has subjects = \['mine'\] where wpa needs"):
        await open_ports(server.url, worker="w")
    assert "waiting for JetStream" not in caplog.text


async def test_nobody_there() -> None:
    with pytest.raises(
        Unavailable, match=r"no NATS server answers at nats://127\.0\.0\.1:1 \(.*Connect call failed"
    ):
        await Transport.connect("nats://u:secret@127.0.0.1:1", name="w")


async def test_a_url_that_is_none() -> None:
    with pytest.raises(Unavailable, match="can't connect to"):
        await Transport.connect("nats://127.0.0.1:port", name="w")


async def test_a_server_that_is_too_old_is_refused(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SERVER_MIN", (99, 1))
    with pytest.raises(
        PlatformError, match=r"nats-server \d+\.\d+\.\d+ is too old: wpa needs 99\.1 or newer"
    ):
        await open_ports(nats_server.url, worker="w")
