"""What user code may not do to the worker, however it tries."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from wpa.adapters.memory import open_ports
from wpa.engine.runner import StepCall, StepRunner
from wpa.hooks.steps import step, step_type_of
from wpa.ports.steps import StepContext, StepType


class Catalog:
    def __init__(self, *functions: Any) -> None:
        self.types = {found.name: found for found in map(step_type_of, functions) if found}

    def get(self, name: str) -> StepType | None:
        return self.types.get(name)

    def names(self) -> list[str]:
        return sorted(self.types)


ERRORS = {"exit": SystemExit, "interrupt": KeyboardInterrupt, "cancel": asyncio.CancelledError}


@step("r.raise")
async def raising(what: str) -> None:
    raise ERRORS[what]


@step("r.raise_in_thread")
def raising_in_thread(what: str) -> None:
    raise ERRORS[what]


@step("r.change")
async def change(items: list[Any], anything: Any, table: dict[str, Any], **rest: Any) -> None:
    items.append(1)
    items[0].append(1)
    anything["new"] = 1
    table["a"]["new"] = 1
    rest["more"].append(1)


@step("r.stubborn")
async def stubborn(ctx: StepContext) -> str:
    """Takes its cancellation for an answer of its own."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "I go on"
    return ""


@step("r.block")
def block(ctx: StepContext, seconds: float) -> str:
    time.sleep(seconds)
    ctx.progress_sync(50, "too late")
    return "too late"


@pytest.fixture
async def runner() -> AsyncIterator[StepRunner]:
    ports = await open_ports()
    catalog = Catalog(raising, raising_in_thread, change, stubborn, block)
    runner = StepRunner(catalog, ports.live, ports.clock, "w1", threads=2, processes=1)
    yield runner
    await runner.aclose()
    await ports.aclose()


def call(uses: str, inputs: dict[str, Any] | None = None, timeout_s: float | None = None) -> StepCall:
    return StepCall(
        tenant="t", workflow="w", execution="x", step="s", slot="s", uses=uses, inputs=inputs or {}, attempt=1,
        idempotency_key="x:s:1", timeout_s=timeout_s,
    )  # fmt: skip


@pytest.mark.parametrize("timeout_s", [None, 5.0])
@pytest.mark.parametrize("uses", ["r.raise", "r.raise_in_thread"])
@pytest.mark.parametrize("what", list(ERRORS))
async def test_leaving_the_worker_is_a_failure_of_the_step(
    runner: StepRunner, uses: str, what: str, timeout_s: float | None
) -> None:
    # In a task of its own, SystemExit would end the loop: and so the worker.
    error = (await runner.run(call(uses, {"what": what}, timeout_s))).error
    assert error is not None
    assert error.type in (ERRORS[what].__name__, "Cancelled")
    await asyncio.sleep(0)


async def test_a_step_changes_its_own_copy_of_the_inputs(runner: StepRunner) -> None:
    """The inputs may be a definition's constants, or what an earlier step returned."""
    inputs = {"items": [[]], "anything": {}, "table": {"a": {}}, "more": []}
    for _ in range(2):
        assert (await runner.run(call("r.change", inputs))).error is None
    assert inputs == {"items": [[]], "anything": {}, "table": {"a": {}}, "more": []}


async def test_a_swallowed_cancellation_is_one_all_the_same(runner: StepRunner) -> None:
    attempt = asyncio.create_task(runner.run(call("r.stubborn")))
    await asyncio.sleep(0.01)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt


async def test_cancelling_passes_through_a_time_out(runner: StepRunner) -> None:
    attempt = asyncio.create_task(runner.run(call("r.stubborn", timeout_s=30)))
    await asyncio.sleep(0.01)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt


async def test_an_abandoned_thread_is_named_and_its_answer_ignored(
    runner: StepRunner, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "wpa.step"):
        error = (await runner.run(call("r.block", {"seconds": 0.3}, timeout_s=0.05))).error
    assert error is not None
    assert (error.type, error.retryable) == ("Timeout", True)
    assert "r.block" in caplog.text
    assert "abandoned" in caplog.text
    await asyncio.sleep(0.4)  # what it does then raises nothing in the loop
    assert (await runner.run(call("r.block", {"seconds": 0}))).output == "too late"


async def test_a_closed_runner_still_answers(runner: StepRunner) -> None:
    await runner.aclose()
    error = (await runner.run(call("r.block", {"seconds": 0}))).error
    assert error is not None
    assert (error.type, error.retryable) == ("WorkerStopped", True)
