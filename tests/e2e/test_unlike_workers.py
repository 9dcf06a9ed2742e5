"""Workers with different plugins serve the same tenants: each plan goes to one that can run it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import ACK_WAIT_S
from tests.e2e.processes import Wpa, ledger
from tests.waiting import until
from wpa.client import Client

Start = Callable[..., Wpa]

SHOP = """
import asyncio
from pathlib import Path
from wpa.sdk import StepContext, step
from wpa_e2e_steps import note

@step("t.note")
async def take_note(ctx: StepContext, gate: str = "") -> str:
    note(ctx, "start")
    while gate and not Path(gate).exists():
        await asyncio.sleep(0.02)
    return "noted"
"""
GPU = """
from wpa.sdk import step

@step("t.render")
async def render() -> str:
    return "rendered"
"""
KID = {"id": "kid", "version": "1", "steps": [{"id": "a", "uses": "t.note"}]}


@pytest.fixture
def shop(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "shop.py"
    path.write_text(SHOP)
    return ("--flows", str(path))


@pytest.fixture
def gpu(tmp_path: Path) -> tuple[str, ...]:
    path = tmp_path / "gpu.py"
    path.write_text(GPU)
    return ("--queue", "gpu", "--flows", str(path))


async def kinds(client: Client, execution: str) -> list[str]:
    return [event["event"] for event in await client.history(execution)]


async def is_there(client: Client, step_type: str) -> bool:
    return any(step_type in row["step_types"] for row in await client.workers())


async def test_every_start_finds_a_worker_that_has_the_plugin(
    start_worker: Start, client: Client, shop: tuple[str, ...], gpu: tuple[str, ...]
) -> None:
    start_worker(*shop)
    await client.deploy(KID)
    start_worker(*gpu)
    await asyncio.gather(*(client.start("kid", execution_id=f"x{number}") for number in range(40)))
    async with asyncio.timeout(60):
        done = await asyncio.gather(*(client.result(f"x{number}", timeout_s=30) for number in range(40)))
    assert {row["status"] for row in done} == {"COMPLETED"}


async def test_one_that_lacks_the_plugin_neither_takes_over_nor_wakes_what_it_can_not_go_on_with(
    start_worker: Start,
    client: Client,
    shop: tuple[str, ...],
    gpu: tuple[str, ...],
    ledger_file: Path,
    tmp_path: Path,
) -> None:
    victim = start_worker(*shop)
    gate = tmp_path / "gate"
    step = {"id": "a", "uses": "t.note", "with": {"gate": str(gate)}}
    nap = {"id": "nap", "uses": "core.sleep", "with": {"for": "2s"}}
    await client.deploy({"id": "held", "version": "1", "steps": [{**step, "compensate": {"uses": "t.note"}}]})
    await client.deploy({"id": "asleep", "version": "1", "steps": [nap, {**step, "needs": ["nap"]}]})
    await client.start("held", execution_id="held")
    await client.start("asleep", execution_id="asleep")
    await until(lambda: ledger(ledger_file, what="start"))
    start_worker(*gpu)
    victim.kill()
    await asyncio.sleep(ACK_WAIT_S + 1.5)
    before = [event for name in ("held", "asleep") for event in await kinds(client, name)]
    assert not {"workflow_recovered", "workflow_step_failed"} & set(before)
    gate.touch()
    start_worker(*shop)
    for name in ("held", "asleep"):
        done = await client.result(name, timeout_s=30)
        assert done["status"] == "COMPLETED"
        assert "workflow_step_failed" not in await kinds(client, name)


async def test_what_is_migrated_is_for_a_worker_that_has_what_the_new_version_needs(
    start_worker: Start, client: Client, shop: tuple[str, ...], gpu: tuple[str, ...]
) -> None:
    start_worker(*shop)
    wait = {"id": "w", "uses": "core.wait", "with": {"signal": "go"}}
    await client.deploy({"id": "grown", "version": "1", "steps": [wait]})
    await client.deploy({"id": "grown", "version": "2", "steps": [wait, {"id": "a", "uses": "t.note"}]})
    start_worker(*gpu)
    await until(lambda: is_there(client, "t.render"))
    names = [f"x{number}" for number in range(10)]

    async def happened(event: str) -> bool:
        return all([event in await kinds(client, name) for name in names])

    for name in names:
        await client.start("grown", execution_id=name, version="1")
    await until(lambda: happened("workflow_waiting"))
    for name in names:
        await client.migrate(name, "2")
    await until(lambda: happened("workflow_migrated"))
    for name in names:
        await client.signal(name, "go")
    done = await asyncio.gather(*(client.result(name, timeout_s=30) for name in names))
    assert {row["status"] for row in done} == {"COMPLETED"}
