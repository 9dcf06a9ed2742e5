"""Steps for other workers: they wait for one visibly, and everything holds across the hop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import PROMPTLY_S, comes_to_rest
from tests.e2e.conftest import ACK_WAIT_S
from tests.e2e.processes import Wpa, ledger
from tests.servers import NatsServer
from tests.waiting import until
from wpa.client import Client

Start = Callable[..., Wpa]

GPU_STEPS = '''
import asyncio
from pathlib import Path
from wpa.sdk import StepContext, step
from wpa_e2e_steps import note

@step("gpu.render")
async def render(ctx: StepContext, frames: int, gate: str = "") -> dict[str, int]:
    """Only the workers of the group have it."""
    note(ctx, "start")
    try:
        while gate and not Path(gate).exists():
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        note(ctx, "cancelled")
        raise
    note(ctx, "end")
    return {"frames": frames}
'''


@pytest.fixture
def gpu(tmp_path: Path) -> tuple[str, ...]:
    """The flags of a worker of the group gpu."""
    path = tmp_path / "gpu_steps.py"
    path.write_text(GPU_STEPS)
    return ("--queue", "gpu", "--flows", str(path))


def definition(**step: Any) -> dict[str, Any]:
    given = {"uses": "gpu.render", "queue": "gpu", "with": {"frames": 3}, **step}
    return {
        "id": "film",
        "version": "1",
        "steps": [{"id": "render", **given}, {"id": "after", "uses": "core.echo", "needs": ["render"]}],
        "output": "${steps.render.output}",
    }


async def test_without_a_worker_it_waits_and_says_for_whom_and_one_without_the_plugin_drives(
    start_worker: Start, client: Client, gpu: tuple[str, ...]
) -> None:
    start_worker()
    await client.deploy(definition())
    await client.start("film", execution_id="x1")
    status = await comes_to_rest(client, "x1")
    assert status["status"] == "WAITING"
    (waiting,) = status["waiting_for"]
    assert (waiting["kind"], waiting["name"], waiting["step"]) == ("remote", "gpu", "render")
    start_worker(*gpu)
    done = await client.result("x1", timeout_s=30)
    assert (done["status"], done["output"]) == ("COMPLETED", {"frames": 3})
    queues = {tuple(row["queues"]) for row in await client.workers()}
    assert queues == {(), ("gpu",)}


async def test_a_killed_worker_of_the_group_is_followed_by_another_under_the_same_key(
    start_worker: Start, client: Client, gpu: tuple[str, ...], ledger_file: Path, tmp_path: Path
) -> None:
    start_worker()
    victim = start_worker(*gpu)
    gate = tmp_path / "gate"
    await client.deploy(definition(**{"with": {"frames": 3, "gate": str(gate)}}))
    await client.start("film", execution_id="x1")
    await until(lambda: ledger(ledger_file, what="start"))
    victim.kill()
    start_worker(*gpu)
    await until(lambda: len(ledger(ledger_file, what="start")) == 2)
    gate.touch()
    done = await client.result("x1", timeout_s=30)
    assert done["status"] == "COMPLETED"
    assert {line["key"] for line in ledger(ledger_file)} == {"x1:render:1"}
    assert len(ledger(ledger_file, what="end")) == 1


async def test_a_killed_driver_does_not_matter_and_the_step_runs_once(
    start_worker: Start, client: Client, gpu: tuple[str, ...], ledger_file: Path, tmp_path: Path
) -> None:
    start_worker(*gpu)
    driver = start_worker()
    gate = tmp_path / "gate"
    await client.deploy(definition(**{"with": {"frames": 3, "gate": str(gate)}}))
    await client.start("film", execution_id="x1")
    await until(lambda: ledger(ledger_file, what="start"))
    driver.kill()
    gate.touch()
    assert (await client.result("x1", timeout_s=30))["status"] == "COMPLETED"
    assert len(ledger(ledger_file, what="start")) == 1


async def test_a_cancel_reaches_the_step_at_once(
    start_worker: Start, client: Client, gpu: tuple[str, ...], ledger_file: Path, tmp_path: Path
) -> None:
    start_worker()
    start_worker(*gpu)
    await client.deploy(definition(**{"with": {"frames": 3, "gate": str(tmp_path / "never")}}))
    await client.start("film", execution_id="x1")
    await until(lambda: ledger(ledger_file, what="start"))
    asked = time.time()
    await client.cancel("x1")
    assert (await client.result("x1", timeout_s=30))["status"] == "CANCELLED"
    (line,) = await until(lambda: ledger(ledger_file, what="cancelled"))
    assert line["at"] - asked < PROMPTLY_S


async def test_a_step_that_was_cancelled_while_it_was_queued_never_runs(
    start_worker: Start, client: Client, gpu: tuple[str, ...], ledger_file: Path
) -> None:
    start_worker()
    await client.deploy(definition())
    await client.start("film", execution_id="x1")
    await comes_to_rest(client, "x1")
    await client.cancel("x1")
    assert (await client.result("x1", timeout_s=30))["status"] == "CANCELLED"
    start_worker(*gpu)
    await client.start("film", execution_id="x2")
    assert (await client.result("x2", timeout_s=30))["status"] == "COMPLETED"
    assert {line["execution"] for line in ledger(ledger_file)} == {"x2"}


async def test_time_outs_and_retries_hold_across_the_hop(
    start_worker: Start, client: Client, gpu: tuple[str, ...], ledger_file: Path, tmp_path: Path
) -> None:
    start_worker()
    start_worker(*gpu)
    retry = {"max_attempts": 2, "backoff": {"initial": "100ms", "jitter": 0}}
    given = {"with": {"frames": 3, "gate": str(tmp_path / "never")}, "timeout": "500ms", "retry": retry}
    await client.deploy(definition(**given))
    await client.start("film", execution_id="x1")
    done = await client.result("x1", timeout_s=30)
    assert (done["status"], done["error"]["type"]) == ("FAILED", "Timeout")
    assert [line["attempt"] for line in ledger(ledger_file, what="start")] == [1, 2]
    assert len(ledger(ledger_file, what="cancelled")) == 2


async def test_a_worker_of_the_group_that_lacks_the_plugin_hands_the_step_on(
    start_worker: Start, client: Client, gpu: tuple[str, ...]
) -> None:
    start_worker("--queue", "gpu")
    await client.deploy(definition())
    await client.start("film", execution_id="x1")
    await asyncio.sleep(1.5)
    start_worker(*gpu)
    assert (await client.result("x1", timeout_s=30))["status"] == "COMPLETED"


async def test_large_inputs_and_outputs_cross_the_hop(start_worker: Start, client: Client) -> None:
    start_worker()
    start_worker("--queue", "gpu")
    document = {
        "id": "large",
        "version": "1",
        "steps": [
            {"id": "make", "uses": "e2e.large", "with": {"size": 9_000_000}},
            {
                "id": "hop",
                "uses": "core.echo",
                "queue": "gpu",
                "needs": ["make"],
                "with": {"x": "${steps.make.output}"},
            },
        ],
        "output": "${size(steps.hop.output.x)}",
    }
    await client.deploy(document)
    await client.start("large", execution_id="x1")
    done = await client.result("x1", timeout_s=30)
    assert (done["status"], done["output"]) == ("COMPLETED", 9_000_000)


async def test_at_most_once_is_not_run_again_by_another(
    start_worker: Start, client: Client, gpu: tuple[str, ...], ledger_file: Path, tmp_path: Path
) -> None:
    start_worker()
    victim = start_worker(*gpu)
    gate = str(tmp_path / "never")
    await client.deploy(definition(**{"with": {"frames": 3, "gate": gate}, "at_most_once": True}))
    await client.start("film", execution_id="x1")
    await until(lambda: ledger(ledger_file, what="start"))
    victim.kill()
    start_worker(*gpu)
    done = await client.result("x1", timeout_s=30)
    assert (done["status"], done["error"]["type"]) == ("FAILED", "OutcomeUnknown")
    assert len(ledger(ledger_file, what="start")) == 1


@pytest.mark.parametrize("at_most_once", [False, True])
async def test_a_step_that_ends_while_the_server_is_away_is_not_run_again(
    server: NatsServer,
    start_worker: Start,
    client: Client,
    gpu: tuple[str, ...],
    ledger_file: Path,
    tmp_path: Path,
    at_most_once: bool,
) -> None:
    start_worker()
    start_worker(*gpu)
    gate = tmp_path / "gate"
    await client.deploy(definition(at_most_once=at_most_once, **{"with": {"frames": 3, "gate": str(gate)}}))
    await client.start("film", execution_id="x1")
    await until(lambda: ledger(ledger_file, what="start"))
    await asyncio.to_thread(server.kill)
    gate.touch()
    await until(lambda: ledger(ledger_file, what="end"))
    await asyncio.sleep(ACK_WAIT_S + 1)  # longer than the lease
    await asyncio.to_thread(server.restart)
    done = await client.result("x1", timeout_s=30)
    assert (done["status"], done["output"]) == ("COMPLETED", {"frames": 3})
    assert len(ledger(ledger_file, what="start")) == 1
