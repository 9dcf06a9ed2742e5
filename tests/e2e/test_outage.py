"""What was due while the server was away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tests.e2e.processes import Wpa
from tests.servers import NatsServer
from wpa.client import Client
from wpa.errors import Unavailable

Start = Callable[..., Wpa]


async def test_what_fell_due_in_an_outage_goes_on_within_5_s_of_its_end(
    server: NatsServer, start_worker: Start, client: Client
) -> None:
    start_worker()
    nap = {"id": "nap", "uses": "core.sleep", "with": {"for": "3s"}}
    await client.deploy({"id": "w", "version": "1", "steps": [nap]})
    for number in range(20):
        await client.start("w", {}, execution_id=f"x{number}")
    while len(await client.executions(limit=50, status="WAITING")) < 20:
        await asyncio.sleep(0.05)
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(4)
    began = time.monotonic()
    await asyncio.to_thread(server.restart)
    done = 0
    while done < 20:
        assert time.monotonic() - began < 5
        try:
            done = len(await client.executions(limit=50, status="COMPLETED"))
        except Unavailable:
            continue
        await asyncio.sleep(0.05)
