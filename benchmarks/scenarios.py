"""The scenarios by name; each on a server and a worker of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import behind
import cold
import dynamic
import fleet
import growth
import history
import holding
import recovery
import tenants
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
ALONE: dict[str, Callable[[str, float], Awaitable[dict[str, Any]]]] = {
    "worker_killed": recovery.worker_killed,
    "one_of_two_killed": recovery.one_of_two_killed,
    "worker_stopped": recovery.worker_stopped,
    "server_killed": recovery.server_killed,
    "leader_killed": recovery.leader_killed,
    "held5000": holding.held,
    "soak": holding.soak,
    "cold": cold.first_workflow,
    "behind": behind.behind,
    "plan1000": growth.long_plan,
    "state1mb": growth.large_state,
    "workers": fleet.workers,
    "behind100k": tenants.behind_a_backlog,
    "tenants1000": tenants.thousand,
}
"""Those that start what they need themselves."""
ONCE = {"held5000", "soak", "behind", "tenants1000", "load100k"}
"""Those that take a minute, and whose figures the machine's noise changes little: one round of them."""
SCENARIOS = [*STAGED, *ALONE, "replay1000", "load100k"]


async def play(name: str, sync: str, scale: float) -> dict[str, Any]:
    """One round of a scenario: what it measured, all of it numbers."""
    if name == "replay1000":
        return history.replay(scale)
    if name in ALONE:
        return await ALONE[name](sync, scale)
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
