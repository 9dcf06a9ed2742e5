"""What a flow must not do to its worker, and what a worker must not do to a flow."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.asking import comes_to_rest, status_when
from tests.e2e.processes import Wpa
from wpa.client import Client

Start = Callable[..., Wpa]

LEASE_S = 10.0

FLOWS = """
import asyncio

from wpa import call, flow, signal

@flow("endless")
async def endless() -> None:
    await call("core.noop")
    while True:
        await asyncio.sleep(0)

@flow("deaf")
async def deaf() -> None:
    while True:
        pass

@flow("patient")
async def patient(rounds: int) -> int:
    for _ in range(rounds):
        await asyncio.sleep(0.1)
        await call("core.noop")
    return rounds

@flow("tagged")
async def tagged(tags: list[str]) -> list[str]:
    await signal("go")
    echoed = [await call("core.echo", step_name=f"tag_{tag}", tag=tag) for tag in {ORDER}]
    await signal("on")
    return [each.tag for each in echoed]
"""


@pytest.fixture
def flows(tmp_path: Path) -> Callable[[str], tuple[str, str]]:
    def written(order: str) -> tuple[str, str]:
        path = tmp_path / "trouble_flows.py"
        path.write_text(FLOWS.replace("{ORDER}", order))
        return ("--flows", str(path))

    return written


async def test_code_that_never_comes_to_rest_fails_alone(
    start_worker: Start, client: Client, flows: Callable[[str], tuple[str, str]]
) -> None:
    start_worker(*flows("set(tags)"), ack_wait=LEASE_S)
    await client.start("patient", {"rounds": 40}, execution_id="good")
    for name in ("endless", "deaf"):
        await client.start(name, {}, execution_id=name)
        failed = await client.result(name, timeout_s=30)
        assert (failed["status"], failed["error"]["type"]) == ("FAILED", "FlowOverrun")
        assert re.search(rf"last at trouble_flows:\d+ in {name};", failed["error"]["message"])
    done = await client.result("good", timeout_s=30)
    assert (done["status"], done["output"]) == ("COMPLETED", 40)
    lost = [event for event in await client.history("good") if event["event"] == "workflow_recovered"]
    assert not lost, "its lease never ran out"
    began = time.monotonic()
    for _ in range(3):
        assert (await client.status("deaf"))["status"] == "FAILED"
    assert time.monotonic() - began < 5, "to look at it doesn't run it once more"


@pytest.mark.parametrize("order", ["sorted(set(tags))", "set(tags)"])
async def test_workers_that_hash_in_another_way(
    start_worker: Start,
    client: Client,
    flows: Callable[[str], tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    order: str,
) -> None:
    tags = [f"tag-{n}" for n in range(12)]
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    first = start_worker(*flows(order))
    await client.start("tagged", {"tags": tags}, execution_id="t-1")
    await comes_to_rest(client, "t-1")
    await client.signal("t-1", "go")
    await status_when(client, "t-1", lambda status: status["at_rest"] and len(status["steps"]) > len(tags))
    first.kill()
    monkeypatch.setenv("PYTHONHASHSEED", "2")
    start_worker(*flows(order))
    await client.signal("t-1", "on")
    if order.startswith("sorted"):
        done = await client.result("t-1", timeout_s=30)
        assert (done["status"], done["output"]) == ("COMPLETED", sorted(tags))
        return
    blocked = (await status_when(client, "t-1", lambda status: status["blocked"]))["blocked"]
    assert blocked["type"] == "NonDeterminism"
    assert " at trouble_flows:27 in " in blocked["message"]
    assert "it is the code that this execution was started with" in blocked["message"]
    assert "the order of a set of strings (sort it)" in blocked["message"]
