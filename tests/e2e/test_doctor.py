"""What an operator changed on a server, and what a worker, and ``wpa doctor``, say of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import nats
from nats.js.api import StreamConfig

from tests.e2e.processes import Wpa, invoke_wpa, run_wpa
from tests.servers import NatsServer


async def edit(url: str, stream: str, **changes: float) -> None:
    connection = await nats.connect(url)
    try:
        js = connection.jetstream()
        found: StreamConfig = (await js.stream_info(stream)).config
        await js.update_stream(found.evolve(**changes))
    finally:
        await connection.close()


def test_an_expiry_that_somebody_sets(server: NatsServer, start_worker: Callable[..., Wpa]) -> None:
    assert invoke_wpa("doctor", url=server.url).returncode == 0, "a worker makes what is missing"
    start_worker()
    looked = invoke_wpa("doctor", url=server.url)
    assert (looked.returncode, looked.stdout[:3]) == (0, "ok:")
    day = timedelta(days=1).total_seconds()
    asyncio.run(edit(server.url, "OBJ_wpa_payloads", max_age=day))
    asyncio.run(edit(server.url, "KV_wpa_definitions", max_age=day))
    looked = invoke_wpa("doctor", url=server.url)
    assert looked.returncode == 1
    for stream in ("OBJ_wpa_payloads", "KV_wpa_definitions"):
        assert f"fault: stream {stream} has max_age = 86400 s" in looked.stderr
    refused = run_wpa("worker", url=server.url)
    assert refused.returncode != 0
    assert "nats stream edit" in refused.stderr
