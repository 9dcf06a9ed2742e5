"""A flow that is cancelled cleans up: with real workers, in the middle of a step, and when they die."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.asking import comes_to, comes_to_rest, names, runs, status_when
from tests.e2e.processes import Wpa, run_wpa
from tests.servers import NatsServer
from wpa.client import Client
from wpa.errors import TaskRejected

Start = Callable[..., Wpa]

FLOWS = """
import asyncio

from wpa import StepContext, call, flow, signal, step


@step("night.rest")
async def rest(ctx: StepContext, s: float) -> None:
    await asyncio.sleep(s if ctx.attempt == 1 else 0)


@step("night.note")
async def note(what: str) -> str:
    return what


@flow("guest")
async def guest(rest_s: float = 0.0, pack_s: float = 0.0) -> str:
    await call("night.note", step_name="book", what="a room", undo="night.note")
    try:
        await call("night.rest", step_name="rest", s=rest_s)
        await signal("leave")
    except asyncio.CancelledError:
        await call("night.rest", step_name="pack", s=pack_s)
        raise
    finally:
        await call("night.note", step_name="key", what="back")
    return "left"


@flow("squatter")
async def squatter() -> None:
    while True:
        try:
            await signal("leave")
        except asyncio.CancelledError:
            pass
"""


@pytest.fixture
def flows(tmp_path: Path) -> tuple[str, str]:
    path = tmp_path / "night_flows.py"
    path.write_text(FLOWS)
    return ("--flows", str(path))


async def test_a_cancel_comes_into_a_flow_wherever_it_is(
    start_worker: Start, client: Client, server: NatsServer, flows: tuple[str, str]
) -> None:
    start_worker(*flows)
    await client.start("guest", execution_id="rests")
    await client.start("guest", {"rest_s": 600}, execution_id="works")
    await comes_to_rest(client, "rests")
    await runs(client, "works", "rest")
    for execution in ("rests", "works"):
        assert "is being cancelled" in run_wpa("cancel", execution, "--as", "ana", url=server.url).stdout
        status = await comes_to(client, execution, "CANCELLED")
        assert status["undone"] == ["book"]
        steps = {step["step"]: step["status"] for step in status["steps"]}
        assert (steps["pack"], steps["key"]) == ("completed", "completed")
        events = names(await client.history(execution))
        assert events[events.index("cancel_requested") :] == [
            "cancel_requested", "resumed", "step_completed", "step_completed", "compensating",
            "step_compensated", "cancelled",
        ]  # fmt: skip
    assert "clean up  next: pack" in run_wpa("history", "works", url=server.url).stdout
    with pytest.raises(TaskRejected, match=r"step book .* can't be taken over, because it was undone"):
        await client.rerun("rests", from_step="pack")
    await client.rerun("rests", from_step="book", new_execution_id="again")
    await client.signal("again", "leave")
    again = await comes_to(client, "again", "COMPLETED")
    assert (again["output"], [step["step"] for step in again["steps"]]) == (
        "left",
        ["book", "rest", "signal_leave", "key"],
    )


async def test_one_that_will_not_leave_is_terminated(
    start_worker: Start, client: Client, server: NatsServer, flows: tuple[str, str]
) -> None:
    start_worker(*flows)
    await client.start("squatter", execution_id="stays")
    await comes_to_rest(client, "stays")
    await client.cancel("stays")
    await status_when(client, "stays", lambda found: found["at_rest"] and found["cleans_up_until"])
    assert "it cleans up, until " in run_wpa("status", "stays", url=server.url).stdout
    assert run_wpa("cancel", "stays", url=server.url).returncode == 0
    await client.terminate("stays", reason="enough")
    await comes_to(client, "stays", "CANCELLED")


async def test_the_clean_up_goes_on_when_its_worker_dies(
    start_worker: Start, client: Client, flows: tuple[str, str]
) -> None:
    first = start_worker(*flows)
    await client.start("guest", {"pack_s": 600}, execution_id="moved")
    await comes_to_rest(client, "moved")
    await client.cancel("moved", reason="enough")
    status = await runs(client, "moved", "pack")
    assert status["cleans_up_until"]
    first.kill()
    start_worker(*flows)
    status = await comes_to(client, "moved", "CANCELLED")
    assert (status["undone"], status["cleans_up_until"]) == (["book"], None)
    assert [step["attempt"] for step in status["steps"] if step["step"] == "pack"] == [2]
