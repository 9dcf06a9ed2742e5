"""What was due while the server was away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from tests.e2e.asking import comes_to_rest
from tests.e2e.processes import Wpa
from tests.servers import NatsServer
from tests.waiting import until
from wpa.client import Client
from wpa.errors import Unavailable

Start = Callable[..., Wpa]

SOON_S = 15.0
"""On a quiet machine it is one."""


async def test_what_fell_due_in_an_outage_goes_on_soon_after_its_end(
    server: NatsServer, start_worker: Start, client: Client
) -> None:
    start_worker()
    nap = {"id": "nap", "uses": "core.sleep", "with": {"for": "3s"}}
    await client.deploy({"id": "w", "version": "1", "steps": [nap]})
    await asyncio.gather(*(client.start("w", {}, execution_id=f"x{number}") for number in range(20)))
    for number in range(20):
        await comes_to_rest(client, f"x{number}")
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(3.2)
    await asyncio.to_thread(server.start)

    async def all_done() -> bool:
        with contextlib.suppress(Unavailable):
            return len(await client.executions(limit=50, status="COMPLETED")) == 20
        return False

    await until(all_done, within_s=SOON_S)
