"""Those who ask something of one execution stand in line; the line holds nothing when it is empty."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import msgspec
import pytest

from wpa import plan
from wpa.adapters.memory import MemoryServer, open_ports
from wpa.engine.loading import Loaded
from wpa.engine.runner import StepRunner
from wpa.engine.services import Services
from wpa.engine.turns import Turns
from wpa.engine.worker import Worker
from wpa.hooks import core
from wpa.hooks.steps import step_type_of
from wpa.model.limits import Limits
from wpa.model.state import State
from wpa.ports.definitions import StoredDefinition
from wpa.ports.steps import StepType
from wpa.settings import Settings

SIGNALS = 200
DOCUMENT = {
    "id": "w",
    "version": "1",
    "steps": [
        {
            "id": "tick",
            "uses": "core.wait",
            "with": {"signal": "tick"},
            "repeat": {"until": f"index == {SIGNALS - 1}", "max": SIGNALS},
        }
    ],
}


def state_of(execution: str) -> Loaded:
    state = State(
        tenant="t", workflow="w", version="1", execution=execution, definition_hash="", start_hash=""
    )
    return Loaded(state, 0, 0)


async def test_turns_come_in_the_order_of_arrival_and_one_at_a_time() -> None:
    turns, seen, inside = Turns(), [], 0

    async def ask(number: int) -> None:
        nonlocal inside
        async with turns.turn("t", "x"):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            seen.append(number)
            inside -= 1

    await asyncio.gather(*(ask(number) for number in range(10)))
    assert seen == list(range(10))


async def test_other_executions_have_lines_of_their_own() -> None:
    turns = Turns()
    async with turns.turn("t", "x"), turns.turn("t", "y"), turns.turn("u", "x"):
        assert turns.waited_for("t", "y")
    assert not turns.waited_for("t", "x")


async def test_what_is_known_goes_to_the_next_in_line_and_to_nobody_else() -> None:
    turns, known = Turns(), state_of("x")
    found: list[Loaded | None] = []

    async def look() -> None:
        async with turns.turn("t", "x") as line:
            found.append(line.take_known())

    async with turns.turn("t", "x") as line:
        waiting = [asyncio.create_task(look()), asyncio.create_task(look())]
        await asyncio.sleep(0)
        line.known = known
    await asyncio.gather(*waiting)
    assert found == [known, None]

    async with turns.turn("t", "x") as line:
        line.known = known
    await look()
    assert found[-1] is None, "an empty line remembers nothing"


async def test_one_that_fails_or_is_cancelled_lets_the_next_one_in() -> None:
    turns = Turns()

    async def wait_in_line() -> None:
        async with turns.turn("t", "x"):
            raise AssertionError("its turn never comes")

    with pytest.raises(ValueError, match="broken"):
        async with turns.turn("t", "x"):
            waiting = asyncio.create_task(wait_in_line())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
            raise ValueError("broken")
    assert not turns.waited_for("t", "x")
    async with asyncio.timeout(1), turns.turn("t", "x"):
        pass


# -- a storm of signals ----------------------------------------------------------------------


class Catalog:
    def __init__(self) -> None:
        self.types = {found.name: found for found in map(step_type_of, core.wpa_steps()) if found}

    def get(self, name: str) -> StepType | None:
        return self.types.get(name)

    def names(self) -> list[str]:
        return sorted(self.types)


class SlowSnapshots:
    """Snapshots that take a moment to be read, as a server's do; counts the reads."""

    def __init__(self, snapshots: Any) -> None:
        self._snapshots = snapshots
        self.reads = 0

    async def get(self, tenant: str, execution: str) -> tuple[bytes, int] | None:
        self.reads += 1
        await asyncio.sleep(0.002)
        found: tuple[bytes, int] | None = await self._snapshots.get(tenant, execution)
        return found

    async def put(self, tenant: str, execution: str, data: bytes, revision: int) -> int:
        stored: int = await self._snapshots.put(tenant, execution, data, revision)
        return stored


async def test_a_storm_of_signals_at_one_execution_is_not_quadratic() -> None:
    ports = await open_ports(MemoryServer())
    snapshots = SlowSnapshots(ports.snapshots)
    ports = dataclasses.replace(ports, snapshots=snapshots)
    runner = StepRunner(Catalog(), ports.live, ports.clock, "w1", threads=1, processes=1)
    stop = asyncio.Event()
    working = asyncio.create_task(Worker(Services(ports, runner, Settings(), Limits(), "w1")).run(stop))
    document = msgspec.Raw(msgspec.json.encode(DOCUMENT))
    await ports.definitions.put(
        "t",
        StoredDefinition(
            workflow="w", version="1", hash=plan.content_hash(DOCUMENT), kind="plan", document=document,
            deployed_at="",
        ),
    )  # fmt: skip
    await tell(ports, {"type": "workflow_start", "workflow_id": "w", "execution_id": "x"})
    await until(ports, "workflow_waiting")
    for number in range(SIGNALS):
        payload = {"signal": "tick", "payload": number}
        await tell(ports, {"type": "workflow_signal", "execution_id": "x", "payload": payload})
    names = await until(ports, "workflow_completed")
    stop.set()
    await working
    await runner.aclose()
    assert names.count("workflow_signalled") == names.count("workflow_step_completed") == SIGNALS
    assert snapshots.reads < SIGNALS, "each signal loaded the execution anew"


async def tell(ports: Any, task: dict[str, Any]) -> None:
    await ports.tasks.publish("t", msgspec.json.encode(task), {})


async def until(ports: Any, event: str) -> list[str]:
    async with asyncio.timeout(20):
        while True:
            names = [stored.event for _, stored in await ports.journal.read("t", "x")]
            if event in names:
                return names
            await asyncio.sleep(0.02)
