"""An output of many megabytes: stored, shown as a reference, used by the next step, and whole for whoever asks."""

from __future__ import annotations

import msgspec

from tests.e2e.processes import Wpa
from tests.servers import NatsServer
from wpa.client import Client

SIZE = 40 * 1024 * 1024


async def test_it_is_shown_as_a_reference_and_read_whole(
    worker: Wpa, nats_server: NatsServer, tenant: str
) -> None:
    steps = [
        {"id": "make", "uses": "e2e.large", "with": {"size": SIZE}},
        {"id": "next", "uses": "core.echo", "with": {"n": 1}, "needs": ["make"]},
    ]
    async with await Client.connect(nats_server.url, tenant) as client:
        await client.deploy({"id": "w", "version": "1", "steps": steps, "output": "${steps.make.output}"})
        await client.start("w", execution_id="x")
        status = await client.result("x", timeout_s=60)
        made, used = status["steps"]
        assert (status["status"], made["status"], used["input"]) == ("COMPLETED", "completed", {"n": 1})
        assert made["output"]["$blob"]["size"] == SIZE + 2
        assert status["output"] == made["output"]
        text = msgspec.json.decode(await client.payload(made["output"]["$blob"]["key"]))
        assert len(text) == SIZE
