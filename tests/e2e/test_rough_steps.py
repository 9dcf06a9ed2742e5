"""Steps that take hold of the worker's own process: they block its loop for good, or fork it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.processes import Wpa
from tests.waiting import until
from wpa.adapters.process import STUCK_STATUS
from wpa.client import Client

Start = Callable[..., Wpa]

STEPS = """
import os, re, time
from pathlib import Path
from wpa import StepContext, step

STUCK = Path({stuck!r})

@step("rough.block")
async def block(ctx: StepContext) -> str:
    while STUCK.exists():
        time.sleep(0.05)
    return "done"

@step("rough.lock")
async def lock(ctx: StepContext) -> str:
    if STUCK.exists():
        re.match("(a+)+$", "a" * 60 + "b")  # in C, and the interpreter's lock is held
    return "done"

@step("rough.fork")
async def fork(ctx: StepContext) -> str:
    return "child" if os.fork() == 0 else "parent"

@step("rough.fork_and_raise")
async def fork_and_raise(ctx: StepContext) -> str:
    if os.fork() == 0:
        raise RuntimeError("in the child")
    return "parent"
"""


@pytest.fixture
def stuck(tmp_path: Path) -> Path:
    """While it is there, steps are stuck."""
    (tmp_path / "stuck").touch()
    return tmp_path / "stuck"


@pytest.fixture
def steps(tmp_path: Path, stuck: Path) -> str:
    path = tmp_path / "rough_steps.py"
    path.write_text(STEPS.format(stuck=str(stuck)))
    return str(path)


async def begin(client: Client, name: str) -> None:
    step = {"id": "a", "uses": f"rough.{name}"}
    await client.deploy({"id": name, "version": "1", "steps": [step]})
    await client.start(name, {}, execution_id=name)


@pytest.mark.parametrize(("name", "status"), [("block", STUCK_STATUS), ("lock", 1)])
async def test_a_step_that_blocks_the_loop_for_good_ends_its_worker(
    start_worker: Start, client: Client, steps: str, stuck: Path, name: str, status: int
) -> None:
    worker = start_worker("--flows", steps, ack_wait=0.3)
    await begin(client, name)
    assert await until(lambda: worker.process.poll()) == status
    assert f"in {name}" in worker.log.read_text()
    stuck.unlink()
    start_worker("--flows", steps, ack_wait=0.3)
    assert (await client.result(name, timeout_s=30))["output"] == {"a": "done"}


@pytest.mark.parametrize("name", ["fork", "fork_and_raise"])
async def test_the_child_of_a_fork_does_not_go_on_as_the_worker(
    start_worker: Start, client: Client, steps: str, name: str
) -> None:
    worker = start_worker("--flows", steps)
    for round in range(3):
        await client.deploy({"id": name, "version": "1", "steps": [{"id": "a", "uses": f"rough.{name}"}]})
        await client.start(name, {}, execution_id=f"x{round}")
        assert (await client.result(f"x{round}", timeout_s=30))["output"] == {"a": "parent"}
    began = time.monotonic()
    for _ in range(100):
        await client.executions()
    assert time.monotonic() - began < 5, "somebody else reads what is meant for the worker"
    children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children")
    await until(lambda: all(_is_over(child) for child in children.read_text().split()))
    assert await asyncio.to_thread(worker.stop) == 0


def _is_over(pid: str) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
