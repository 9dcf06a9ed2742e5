"""Flows from a file: no package, no deploy; and a worker that is killed in the middle changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.processes import Wpa, ledger, run_wpa
from tests.servers import NatsServer
from tests.waiting import until
from wpa.client import Client
from wpa.errors import TaskRejected

Start = Callable[..., Wpa]

FLOWS = '''
import asyncio
from pathlib import Path

from wpa import call, flow
from wpa.sdk import StepContext, step
from wpa_e2e_steps import note


@step("mine.double")
async def double(ctx: StepContext, n: int, gate: str = "") -> int:
    note(ctx, "start")
    while gate and not Path(gate).exists():
        await asyncio.sleep(0.02)
    return 2 * n


@flow("doubling")
async def doubling(n: int, gate: str) -> dict[str, int]:
    """Double it four times, with a rest."""
    n = await call(double, n)
    await asyncio.sleep(0.5)
    n = await call(double, n, gate=gate)
    one, other = await asyncio.gather(call(double, n), call(double, n + 1))
    return {"one": one, "other": other}
'''


@pytest.fixture
def flows(tmp_path: Path) -> tuple[str, str]:
    path = tmp_path / "my_flows.py"
    path.write_text(FLOWS)
    return ("--flows", str(path))


@pytest.mark.parametrize("where", ["asleep", "in a step"])
async def test_a_worker_killed_in_the_middle_of_a_flow(
    start_worker: Start, client: Client, flows: tuple[str, str], ledger_file: Path, tmp_path: Path, where: str
) -> None:
    first = start_worker(*flows)
    gate = tmp_path / "gate"
    started = await client.start("doubling", {"n": 3, "gate": str(gate)}, execution_id="x1")
    assert len(started.version) == 12
    runs = 1 if where == "asleep" else 2
    await until(lambda: len(ledger(ledger_file, what="start")) >= runs)
    first.kill()
    start_worker(*flows)
    gate.touch()
    done = await client.result("x1", timeout_s=30)
    assert (done["status"], done["output"]) == ("COMPLETED", {"one": 24, "other": 26})
    keys = [line["key"] for line in ledger(ledger_file, what="start")]
    assert len(set(keys)) == 4
    assert keys.count(keys[0]) == 1 or where == "asleep", "what is recorded does not run again"


async def test_a_bad_input_is_refused_at_once(
    start_worker: Start, client: Client, flows: tuple[str, str]
) -> None:
    start_worker(*flows)
    with pytest.raises(TaskRejected, match=r"input_data\.gate") as refused:
        await client.start("doubling", {"n": 3})
    assert refused.value.code == "invalid_input"


async def test_a_worker_without_the_flow_leaves_it_to_one_that_has_it(
    start_worker: Start, client: Client, flows: tuple[str, str], tmp_path: Path
) -> None:
    has = start_worker(*flows)
    assert has.stop() == 0
    start_worker()
    gate = tmp_path / "gate"
    gate.touch()
    task = {"type": "workflow_start", "workflow_id": "doubling", "execution_id": "x1"}
    await client.publish_start({**task, "payload": {"input_data": {"n": 1, "gate": str(gate)}}})
    await asyncio.sleep(1.5)
    assert await client.dlq_list() == []
    start_worker(*flows)
    done = await client.result("x1", timeout_s=30)
    assert (done["status"], done["output"]) == ("COMPLETED", {"one": 8, "other": 10})


async def test_a_flow_is_listed_with_the_definitions(
    start_worker: Start, client: Client, flows: tuple[str, str], server: NatsServer
) -> None:
    start_worker(*flows)
    rows = await client.definitions()
    assert [row["workflow_id"] for row in rows] == ["doubling"]
    listed = await asyncio.to_thread(run_wpa, "definitions", url=server.url)
    assert "doubling" in listed.stdout
    assert [row["flows"] for row in await client.workers()] == [["doubling"]]


def test_a_file_that_is_broken_ends_the_command_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "broken_flows.py"
    path.write_text("import nothing_of_that_name\n")
    for command in ("worker", "dev"):
        ended = run_wpa(command, "--flows", str(path), cwd=tmp_path)
        assert ended.returncode == 2
        assert "No module named 'nothing_of_that_name'" in ended.stderr
        assert "broken_flows.py:1" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_queue_that_can_be_none_is_refused(tmp_path: Path) -> None:
    ended = run_wpa("worker", "--queue", "g p u", cwd=tmp_path)
    assert ended.returncode == 2
    assert "WPA_QUEUES" in ended.stderr
