"""A disk without a byte left, for real: who says what, who waits, and who goes on when there is room again.

What nats-server does then is in docs/operations.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Wpa, run_wpa
from tests.servers import NatsServer
from tests.volume import Volume, on_linux
from tests.waiting import until
from wpa.cli.common import URL_FILE
from wpa.client import Client
from wpa.errors import Unavailable

pytestmark = on_linux

MANY = 20
"""What so many write has no room in what the files' last pages have left."""
NAP: dict[str, Any] = {
    "id": "nap",
    "version": "1",
    "steps": [
        {"id": "nap", "uses": "core.sleep", "with": {"for": "3s"}},
        {"id": "end", "uses": "core.echo", "with": {"n": 1}, "needs": ["nap"]},
    ],
}


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    with Volume(tmp_path / "volume") as volume:
        yield volume


@pytest.fixture
def server_on_volume(volume: Volume, tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.jetstream = {"store_dir": str(volume.path / "data")}
    server.start()
    yield server
    server.kill()


@pytest.fixture
def dev(volume: Volume, tmp_path: Path) -> Iterator[Wpa]:
    """``wpa dev``, with its data on the volume."""
    folder = str(volume.path / "data")
    dev = Wpa("dev", "--data-dir", folder, "--port", "0", log=tmp_path / "dev.log")
    try:
        yield dev.wait_ready()
    finally:
        status = dev.stop()
    assert status == 0


async def start_many(client: Client) -> None:
    await client.deploy(NAP)
    await asyncio.gather(*(client.start("nap", {}, execution_id=f"x{number}") for number in range(MANY)))


async def all_are_done(client: Client, executions: int = MANY) -> bool:
    with contextlib.suppress(Unavailable):
        return len(await client.executions(limit=100, status="COMPLETED")) == executions
    return False


async def test_wpa_dev_says_what_is_wrong_and_goes_on_by_itself_once_there_is_room(
    dev: Wpa, volume: Volume
) -> None:
    folder = volume.path / "data"
    url = json.loads((folder / URL_FILE).read_text())["url"]
    async with await Client.connect(url) as client:
        await start_many(client)
        await asyncio.to_thread(volume.fill)
        await until(lambda: "no space left on device" in dev.log.read_text())
        said = dev.log.read_text()
        assert f"the disk of {folder} has 0 MB left; make room" in said
        assert "is started again by itself" in said
        await asyncio.to_thread(volume.make_room)
        await until(lambda: all_are_done(client))
        await client.start("nap", {}, execution_id="later")
        await until(lambda: all_are_done(client, MANY + 1))
    assert dev.log.read_text().count("starting it again") == 1


async def test_a_worker_says_which_server_has_to_be_restarted_and_goes_on_when_it_was(
    server_on_volume: NatsServer, volume: Volume, tmp_path: Path
) -> None:
    server = server_on_volume
    worker = Wpa("worker", "--nats", server.url, log=tmp_path / "worker.log")
    try:
        worker.wait_ready()
        async with await Client.connect(server.url) as client:
            await start_many(client)
            await asyncio.to_thread(volume.fill)
            await until(lambda: "takes no writes" in worker.log.read_text())
            said = worker.log.read_text()
            assert "its disk is full" in said
            assert "then restart it" in said
            await asyncio.to_thread(volume.make_room)
            assert not await all_are_done(client)
            await asyncio.to_thread(server.restart)
            await until(lambda: all_are_done(client))
    finally:
        worker.kill()


@pytest.mark.parametrize("command", ["dev", "server"])
async def test_on_a_full_disk_nothing_is_started(volume: Volume, command: str) -> None:
    folder = volume.path / "data"
    await asyncio.to_thread(volume.fill)
    done = await asyncio.to_thread(run_wpa, command, "--data-dir", str(folder), "--port", "0")
    assert done.returncode == 3
    assert f"the disk of {folder} has 0 MB left; make room: 32 MB at least" in done.stderr
    assert "Traceback" not in done.stderr
    await asyncio.to_thread(volume.make_room)
