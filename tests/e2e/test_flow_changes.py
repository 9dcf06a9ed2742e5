"""A flow's code changes while executions of it are in flight."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.e2e.asking import comes_to, resume_blocked, status_when
from tests.e2e.processes import Wpa
from wpa.client import Client

Start = Callable[..., Wpa]

FLOW = """
from wpa import call, flow, patched, signal

@flow("changing")
async def changing() -> list:
    a = await call("core.echo", what="first")
    await signal("go")
    {then}
    return [a, b]
"""
AS_IT_WAS = 'b = await call("core.echo", what="second")'


async def test_code_that_does_not_fit_blocks_and_the_right_code_heals(
    start_worker: Start, client: Client, tmp_path: Path
) -> None:
    code = tmp_path / "changing_flow.py"
    code.write_text(FLOW.format(then=AS_IT_WAS))
    worker = start_worker("--flows", str(code))
    await client.start("changing", {}, execution_id="x1")
    await comes_to(client, "x1", "WAITING")
    worker.stop()

    code.write_text(FLOW.format(then=AS_IT_WAS).replace("core.echo", "core.noop"))
    worker = start_worker("--flows", str(code))
    await client.signal("x1", "go")
    blocked = await status_when(client, "x1", lambda status: status["blocked"])
    assert (blocked["status"], blocked["blocked"]["type"]) == ("WAITING", "NonDeterminism")
    assert "- recorded: step core_echo (core.echo), completed" in blocked["blocked"]["message"]
    assert "+ asked now: step core_noop (core.noop)" in blocked["blocked"]["message"]
    worker.stop()

    code.write_text(FLOW.format(then=AS_IT_WAS))
    start_worker("--flows", str(code))
    await resume_blocked(client, "x1")
    done = await client.result("x1", timeout_s=30)
    assert (done["status"], done["output"]) == ("COMPLETED", [{"what": "first"}, {"what": "second"}])


async def test_patched_lets_old_and_new_executions_take_their_own_way(
    start_worker: Start, client: Client, tmp_path: Path
) -> None:
    code = tmp_path / "changing_flow.py"
    code.write_text(FLOW.format(then=AS_IT_WAS))
    worker = start_worker("--flows", str(code))
    await client.start("changing", {}, execution_id="old")
    await comes_to(client, "old", "WAITING")
    worker.stop()

    patch = 'b = await call("core.echo", what="new" if patched("other") else "second")'
    text = FLOW.format(then=patch).replace("a = await", 'new = patched("first")\n    a = await')
    code.write_text(text.replace('what="first"', 'what="first again" if new else "first"'))
    start_worker("--flows", str(code))
    await client.start("changing", {}, execution_id="new")
    await client.signal("old", "go")
    await client.signal("new", "go")
    old = await client.result("old", timeout_s=30)
    new = await client.result("new", timeout_s=30)
    # The old one had passed the first patch, not the second, when the code changed.
    assert old["output"] == [{"what": "first"}, {"what": "new"}]
    assert new["output"] == [{"what": "first again"}, {"what": "new"}]


async def test_what_newer_code_has_recorded_is_left_to_workers_that_have_it(
    start_worker: Start, client: Client, tmp_path: Path
) -> None:
    old, new = tmp_path / "old_flow.py", tmp_path / "new_flow.py"
    old.write_text(FLOW.format(then=AS_IT_WAS))
    more = f'if patched("more"):\n        await call("core.noop")\n    {AS_IT_WAS}'
    new.write_text(
        FLOW.format(then=AS_IT_WAS).replace(
            'a = await call("core.echo"', f'{more}\n    a = await call("core.echo"'
        )
    )
    worker = start_worker("--flows", str(new))
    executions = [f"x{number}" for number in range(4)]
    for execution in executions:
        await client.start("changing", {}, execution_id=execution)
        await comes_to(client, execution, "WAITING")
    start_worker("--flows", str(old))
    os.kill(worker.process.pid, signal.SIGSTOP)  # so the older one gets them first
    for execution in executions:
        told = {"type": "workflow_signal", "execution_id": execution, "payload": {"signal": "go"}}
        await client.publish_start(told)
    await asyncio.sleep(4)
    os.kill(worker.process.pid, signal.SIGCONT)
    for execution in executions:
        assert (await client.result(execution, timeout_s=25))["status"] == "COMPLETED"
        assert not [event for event in await client.history(execution) if "blocked" in event["data"]]
