"""A server that is killed may forget that it has delivered a message: the count alone tells nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.unit.engine.starts import TENANT, World
from wpa.engine.door import admit
from wpa.engine.drive import Drive
from wpa.engine.driver import Driver
from wpa.ports.tasks import Lease, Source

STEPS = [{"id": "a", "uses": "core.wait", "with": {"signal": "go"}}]
START = {
    "type": "workflow_start",
    "workflow_id": "w",
    "execution_id": "child",
    "parent": {"execution_id": "p", "slot": "s"},
}
SIGNAL = {"type": "workflow_signal", "execution_id": "child", "payload": {"signal": "go", "id": "once"}}


class Died(Exception):
    """As the process would, at this very line."""


async def test_a_child_whose_worker_died_at_its_very_end_tells_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await World.open()
    await world.deploy(workflow="w", steps=STEPS)
    leases: list[Lease] = []
    (await world.ports.tasks.open(Source(TENANT), leases.append)).request(100)

    async def drive(task: dict[str, Any]) -> None:
        """See to a task, delivered for the first time as far as the server knows."""
        data = json.dumps(task).encode()
        await world.ports.tasks.publish(TENANT, data, {})
        while not (found := [lease for lease in leases if lease.data == data]):
            await asyncio.sleep(0)
        leases.clear()
        assert found[0].delivered == 1
        request = admit(found[0], world.services.limits, world.ports.live)
        await Driver(world.services, request, lambda: None).drive()

    def told() -> list[Any]:
        return [task for task in world.tasks if task["type"] == "workflow_child_ended"]

    async def die(*_: Any) -> None:
        raise Died

    await drive(START)
    with monkeypatch.context() as dying:
        dying.setattr(Drive, "finish", die)
        with pytest.raises(Died):
            await drive(SIGNAL)
    assert told() == []
    await drive(SIGNAL)
    assert [(task["execution_id"], task["payload"]["status"]) for task in told()] == [("p", "COMPLETED")]
    await drive(SIGNAL)
    assert len(told()) == 1  # all of it was done: a duplicate is only a duplicate
