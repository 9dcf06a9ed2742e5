"""What is asked of an execution where the answer comes from a replica that has not heard of all yet."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from tests.unit.talk import TENANT, Talk, talking
from wpa.engine.api_asks import AskVerbs
from wpa.engine.api_common import Handler
from wpa.ports.journal import Journal, Stored

WAITS = {
    "id": "waits",
    "version": "1",
    "steps": [{"id": "a", "uses": "core.wait", "with": {"signal": "go"}}],
}


class Lagging:
    """A journal whose first read lacks what came after a position."""

    def __init__(self, journal: Journal, knows: int) -> None:
        self._journal = journal
        self._knows: int | None = knows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    async def read(self, tenant: str, execution: str, after: int = 0) -> list[Stored]:
        knows, self._knows = self._knows, None
        stored = await self._journal.read(tenant, execution, after)
        return [found for found in stored if knows is None or found[0] <= knows]


class NoSnapshots:
    """All is read from the journal."""

    async def get(self, tenant: str, execution: str) -> None: ...


def lagging(talk: Talk, knows: int) -> dict[str, Handler]:
    """The verbs of a worker that reads from such a replica."""
    services, ports = copy.copy(talk.services), talk.services.ports
    journal: Any = Lagging(ports.journal, knows)
    snapshots: Any = NoSnapshots()
    services.ports = dataclasses.replace(ports, journal=journal, snapshots=snapshots, lags=lambda: True)
    return AskVerbs(services, lambda: "made").verbs()


async def test_a_pause_of_what_was_resumed_a_moment_ago_is_recorded() -> None:
    async with talking() as talk:
        await talk.ok("deploy", document=WAITS)
        await talk.start("x", "waits")
        await talk.comes_to("x", "WAITING")
        await talk.ok("pause", execution_id="x")
        paused = await talk.services.ports.journal.latest(TENANT, "x")
        await talk.comes_to("x", "PAUSED")
        await talk.ok("resume", execution_id="x")
        await talk.comes_to("x", "WAITING")
        answer = await lagging(talk, paused)["pause"](TENANT, {"execution_id": "x"})
        assert (answer["duplicate"], answer["queued"]) == (False, False)
        await talk.comes_to("x", "PAUSED")
