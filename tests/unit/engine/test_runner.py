from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from wpa.adapters.memory import open_ports
from wpa.engine.runner import StepCall, StepRunner
from wpa.hooks.steps import step, step_type_of
from wpa.ports.steps import StepContext, StepType
from wpa.sdk import StepFailed


class Catalog:
    def __init__(self, *functions: Any) -> None:
        self.types = {found.name: found for found in map(step_type_of, functions) if found}

    def get(self, name: str) -> StepType | None:
        return self.types.get(name)

    def names(self) -> list[str]:
        return sorted(self.types)


@step("t.do")
async def do(ctx: StepContext, what: str) -> Any:
    if what == "exit":
        raise SystemExit(1)
    if what == "final":
        raise StepFailed("no", type="Nope", retryable=False, details={"a": 1})
    if what == "error":
        raise KeyError("x" * 5_000)
    if what == "nan":
        return {"x": [float("nan")]}
    if what == "object":
        return {"x": object()}
    if what == "deep":
        value: Any = 1
        for _ in range(200_000):
            value = [value]
        return value
    if what == "cancel itself":
        raise asyncio.CancelledError
    if what == "swallow":
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(2.5)
                return "too late"
    return {"key": ctx.idempotency_key, "attempt": ctx.attempt, 1: (2, 3)}


@step("t.thread")
def thread(ctx: StepContext, seconds: float = 0.0, fail: bool = False) -> str:
    time.sleep(seconds)
    ctx.progress_sync(50, "half")
    if fail:
        raise StopIteration
    return "done"


@step("t.process", isolation="process")
def process(ctx: StepContext, what: str, path: str = "") -> Any:
    if what == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "fork and hang":
        child = os.fork()
        if child == 0:
            time.sleep(60)
        Path(path).write_text(str(child))
        time.sleep(60)
    if what == "print":
        print("this must not disturb the frames")
        ctx.progress_sync(10, "printed")
    if what == "fail":
        raise StepFailed("no", type="Nope", retryable=False)
    if what == "exit":
        os._exit(3)
    return os.getpid()


@pytest.fixture
async def runner() -> AsyncIterator[StepRunner]:
    ports = await open_ports()
    runner = StepRunner(Catalog(do, thread, process), ports.live, ports.clock, "w1", threads=2, processes=2)
    yield runner
    await runner.aclose()
    await ports.aclose()


def call(uses: str, timeout_s: float | None = None, **inputs: Any) -> StepCall:
    return StepCall(
        tenant="t", workflow="w", execution="x", step="s", slot="s", uses=uses, inputs=inputs, attempt=2,
        idempotency_key="x:s:1", timeout_s=timeout_s,
    )  # fmt: skip


async def test_an_output_is_what_the_journal_will_say(runner: StepRunner) -> None:
    result = await runner.run(call("t.do", what="ok"))
    assert result.error is None
    assert result.output == {"key": "x:s:1", "attempt": 2, "1": [2, 3]}
    assert result.raw == b'{"key":"x:s:1","attempt":2,"1":[2,3]}'


@pytest.mark.parametrize(
    ("what", "kind", "retryable"),
    [
        ("exit", "SystemExit", True),
        ("final", "Nope", False),
        ("error", "KeyError", True),
        ("nan", "InvalidOutput", False),
        ("object", "InvalidOutput", False),
        ("deep", "InvalidOutput", False),
        ("cancel itself", "Cancelled", True),
    ],
)
async def test_whatever_a_step_does_is_a_result(
    runner: StepRunner, what: str, kind: str, retryable: bool
) -> None:
    error = (await runner.run(call("t.do", what=what))).error
    assert error is not None
    assert (error.type, error.retryable) == (kind, retryable)
    assert len(error.message) <= 2_000


async def test_inputs_that_do_not_fit_and_types_that_are_not_there(runner: StepRunner) -> None:
    for bad, kind in (
        (call("t.do"), "InvalidInput"),
        (call("t.do", what=1), "InvalidInput"),
        (call("t.nope"), "UnknownStepType"),
    ):
        error = (await runner.run(bad)).error
        assert error is not None
        assert (error.type, error.retryable) == (kind, False)


async def test_a_step_that_swallows_its_cancellation_is_left_behind(runner: StepRunner) -> None:
    began = time.monotonic()
    error = (await runner.run(call("t.do", timeout_s=0.1, what="swallow"))).error
    assert error is not None
    assert error.type == "Timeout"
    assert time.monotonic() - began < 3.5


async def test_threads_run_beside_the_loop_and_time_out(runner: StepRunner) -> None:
    assert (await runner.run(call("t.thread"))).output == "done"
    ticks = 0
    task = asyncio.create_task(runner.run(call("t.thread", seconds=0.4)))
    while not task.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks > 15
    error = (await runner.run(call("t.thread", timeout_s=0.1, seconds=1.0))).error
    assert error is not None
    assert error.type == "Timeout"


async def test_a_stop_iteration_in_a_thread_is_a_failure_like_any_other(runner: StepRunner) -> None:
    error = (await runner.run(call("t.thread", fail=True))).error
    assert error is not None
    assert error.type == "StopIteration"


async def test_a_process_is_another_one_and_is_used_again(runner: StepRunner) -> None:
    first = await runner.run(call("t.process", what="ok"))
    second = await runner.run(call("t.process", what="print"))
    assert first.output == second.output != os.getpid()


async def test_a_process_that_dies_fails_its_step_and_nothing_else(runner: StepRunner) -> None:
    for what, words in (("die", "SIGSEGV"), ("exit", "exit status 3")):
        error = (await runner.run(call("t.process", what=what))).error
        assert error is not None
        assert (error.type, error.retryable) == ("ProcessDied", True)
        assert words in error.message
    assert (await runner.run(call("t.process", what="ok"))).error is None


async def test_a_failure_in_a_process_keeps_its_type(runner: StepRunner) -> None:
    error = (await runner.run(call("t.process", what="fail"))).error
    assert error is not None
    assert (error.type, error.retryable) == ("Nope", False)


async def test_a_time_out_kills_a_process_and_what_it_started(runner: StepRunner, tmp_path: Path) -> None:
    path = tmp_path / "child"
    error = (await runner.run(call("t.process", timeout_s=5.0, what="fork and hang", path=str(path)))).error
    assert error is not None
    assert error.type == "Timeout"
    child = int(path.read_text())
    for _ in range(100):
        # Gone, or a zombie that waits for its new parent.
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            break
        if state == "Z":
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("the step's child is still there")
