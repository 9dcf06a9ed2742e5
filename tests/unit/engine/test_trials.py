"""Trials in real children, over the ports in memory: who comes through, who doesn't, and that nothing is done."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from wpa.adapters.memory import MemoryServer, open_ports
from wpa.engine.trials import Result, Trials
from wpa.model.limits import Limits
from wpa.model.tasks import SignalPayload, SignalTask, StartPayload, Task
from wpa.ports.definitions import StoredDefinition
from wpa.ports.tasks import Source
from wpa.settings import Settings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no trials there")

WITHIN_S = 1.0
FLOWS = """
import ctypes
import re

from wpa import call, flow, signal

@flow("good")
async def good(size: int = 0) -> str:
    await signal("go")
    return "x" * size

@flow("dies")
async def dies() -> None:
    ctypes.string_at(0)

@flow("dies_later")
async def dies_later() -> None:
    got = await call("core.echo", value=7)
    if got.value == 8:
        ctypes.string_at(0)

@flow("computes")
async def computes() -> None:
    re.match("(a+)+$", "a" * 60 + "b")

@flow("stands")
async def stands() -> None:
    ctypes.PyDLL(None).sleep(600)

@flow("fails")
async def fails() -> None:
    raise ValueError("no harm in that")

@flow("grows")
async def grows() -> None:
    kept = []
    for _ in range(100_000):
        kept.append(bytearray(b"x" * 1_000_000))

@flow("dies_at_its_end")
async def dies_at_its_end() -> None:
    try:
        await signal("go")
    finally:
        ctypes.string_at(0)
"""
PLAN: dict[str, Any] = {
    "id": "p",
    "version": "1",
    "steps": [{"id": "a", "uses": "core.echo", "with": {"n": "${input.n}"}}],
}


class Held:
    """A lease as a worker may have it. Nobody acks it in a trial."""

    def __init__(self, task: msgspec.Struct | bytes, delivered: int = 4) -> None:
        self.data = task if isinstance(task, bytes) else msgspec.json.encode(task)
        self.source, self.tenant = Source("acme"), "acme"
        self.headers: dict[str, str] = {}
        self.sequence, self.identity = 7, "18-7"
        self.delivered, self.stored_ms = delivered, 1_800_000_000_000

    def ack(self) -> None:
        raise AssertionError

    nak = extend = ack


def start(workflow: str, **data: Any) -> Held:
    payload = StartPayload(input_data=data)
    return Held(Task(type="workflow_start", workflow_id=workflow, execution_id="x", payload=payload))


class Court:
    def __init__(self, server: MemoryServer, trials: Trials) -> None:
        self.server = server
        self.trials = trials

    @property
    def children(self) -> list[int]:
        return [child.pid for child in self.trials._idle]

    async def how(self, held: Held, **results: Result) -> str:
        """How children ended; empty where one came through."""
        death = await self.trials.attend(held, results)
        return "" if death is None else death.how


@pytest.fixture
async def court(tmp_path: Path) -> AsyncIterator[Court]:
    path = tmp_path / "tried_flows.py"
    path.write_text(FLOWS)
    server = MemoryServer()
    ports = await open_ports(server)
    document = msgspec.Raw(json.dumps(PLAN).encode())
    await ports.definitions.put(
        "acme",
        StoredDefinition(
            workflow="p",
            version="1",
            hash="",
            kind="plan",
            document=document,
            deployed_at="2026-11-22T00:00:00Z",
        ),
    )
    settings = Settings(flows=str(path)).model_dump(mode="json")
    told = msgspec.json.encode({"settings": settings, "limits": Limits(), "within_s": WITHIN_S}).decode()
    trials = Trials(ports, "from wpa.wire import serve_trials; serve_trials()", told, WITHIN_S)
    yield Court(server, trials)
    children = [*trials._idle, *trials._busy]
    await trials.aclose()
    assert all(child.returncode is not None for child in children)
    await ports.aclose()


async def test_what_lives_comes_through_and_nothing_is_done(court: Court) -> None:
    for held in (
        start("good"),
        start("fails"),
        start("p", n=1),
        start("unknown"),
        start("p", n="x" * 300_000),
        Held(b"no JSON"),
        Held(SignalTask(type="workflow_signal", execution_id="y", payload=SignalPayload(signal="go")), 9),
    ):
        assert await court.how(held) == ""
        assert len(court.children) == 1
    (pid,) = court.children
    assert await court.how(start("good")) == ""
    assert court.children == [pid], "a child that came through tries the next"
    assert await court.trials._ports.journal.latest("acme", "*") == 0
    assert court.server.tasks.read("workflow.tasks.acme") == []
    assert court.server.dead.read("workflow.dlq.acme") == []


@pytest.mark.parametrize(
    ("flow", "how"),
    [("dies", "SIGSEGV"), ("dies_at_its_end", "SIGSEGV"), ("computes", "SIGXCPU"), ("stands", "SIGALRM")],
)
async def test_what_ends_its_child_is_told_how(court: Court, flow: str, how: str) -> None:
    late = 0.0

    async def look() -> None:
        nonlocal late
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            late = max(late, time.monotonic() - began)

    looking = asyncio.create_task(look())
    found = await court.trials.attend(start(flow))
    looking.cancel()
    assert found is not None
    assert (found.how, found.admitted) == (how, True)
    assert late < 4, "nobody waits for it"
    assert await court.how(start("good")) == ""


async def test_what_takes_all_memory_is_ended(court: Court) -> None:
    court.trials._bytes_max = 400 * 2**20
    assert await court.how(start("grows")) == "more than 400 MB of memory taken"


async def test_what_follows_from_a_result_is_tried_too(court: Court) -> None:
    held = start("dies_later")
    assert await court.how(held) == ""
    slot = "core_echo"
    assert await court.how(held, **{slot: Result(output={"value": 7})}) == ""
    assert await court.how(held, **{slot: Result(output={"value": 8})}) == "SIGSEGV"


async def test_a_trial_that_is_cancelled_leaves_nobody_behind(court: Court) -> None:
    trying = asyncio.create_task(court.trials.attend(start("stands")))
    while not court.trials._busy:
        await asyncio.sleep(0.05)
    (child,) = court.trials._busy
    await asyncio.sleep(0.3)
    trying.cancel()
    await asyncio.gather(trying, return_exceptions=True)
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


async def test_one_tenants_poison_holds_up_no_other(court: Court) -> None:
    poison = [asyncio.create_task(court.how(start("stands"))) for _ in range(3)]
    await asyncio.sleep(0.2)
    other = start("good")
    other.tenant, other.source = "other", Source("other")
    innocents = [asyncio.create_task(court.how(other)) for _ in range(100)]
    assert set(await asyncio.gather(*innocents)) == {""}
    assert not poison[-1].done()
    for task in poison:
        task.cancel()
    await asyncio.gather(*poison, return_exceptions=True)


async def test_where_no_child_can_be_started_all_is_taken_as_ever(court: Court) -> None:
    court.trials._start = "raise SystemExit(3)"
    assert await court.how(start("dies")) == ""
