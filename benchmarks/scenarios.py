"""The scenarios by name; each on a server and a worker of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import dynamic
import history
import waiting
from load import connect
from processes import server, worker
from waiting import Stage

from wpa.client import Client

STAGED: dict[str, Callable[[Stage], Awaitable[dict[str, Any]]]] = {
    "sleep10k": waiting.sleepers,
    "timers1000": waiting.timers,
    "signals": waiting.signals,
    "foreach1000": dynamic.foreach,
}
SCENARIOS = [*STAGED, "replay1000", "load100k"]


async def play(name: str, sync: str, scale: float) -> dict[str, Any]:
    """One round of a scenario: what it measured, all of it numbers."""
    if name == "replay1000":
        return history.replay(scale)
    async with server(sync) as embedded:
        if name == "load100k":
            return await history.load(embedded.url, scale)
        assert embedded.pid is not None
        async with worker(embedded.url) as working:
            async with await Client.connect(embedded.url) as client:
                for workflow, steps in {**waiting.DEFINITIONS, **dynamic.DEFINITIONS}.items():
                    await client.deploy({"id": workflow, "version": "1", "steps": steps})
            nc = await connect(embedded.url)
            try:
                return await STAGED[name](Stage(nc, embedded.pid, working, scale))
            finally:
                await nc.close()
