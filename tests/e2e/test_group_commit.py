"""``wpa dev --sync always``: its worker knows how its server syncs, and lets executions share their syncs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import nats

from tests.e2e.processes import Wpa
from wpa.cli.common import URL_FILE
from wpa.client import Client

MANY = 60
HELLO = {
    "id": "hello",
    "version": "1",
    "steps": [{"id": "a", "uses": "core.echo", "with": {"n": 1}}],
}


async def test_executions_that_share_their_syncs_all_complete(tmp_path: Path) -> None:
    folder = tmp_path / ".wpa"
    arguments = ("dev", "--port", "0", "--data-dir", str(folder), "--sync", "always")
    dev = Wpa(*arguments, log=tmp_path / "dev.log")
    try:
        await asyncio.to_thread(dev.wait_ready)
        url = json.loads((folder / URL_FILE).read_text())["url"]
        async with await Client.connect(url) as client:
            await client.deploy(HELLO)
            names = [f"x{n}" for n in range(MANY)]
            await asyncio.gather(*(client.start("hello", execution_id=name) for name in names))
            ended = await asyncio.gather(*(client.result(name, timeout_s=60) for name in names))
            assert {one["status"] for one in ended} == {"COMPLETED"}
        nc = await nats.connect(url)
        info = await nc.request("$JS.API.STREAM.INFO.WPA_EVENTS", timeout=5)
        await nc.close()
        assert json.loads(info.data)["config"]["allow_atomic"] is True
    finally:
        dev.stop()
