"""Steps that leave traces: each run is a line in the ledger file that ``WPA_E2E_LEDGER`` names."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from wpa.sdk import StepContext, StepFailed, hookimpl, step


def note(ctx: StepContext, what: str) -> None:
    path = os.environ.get("WPA_E2E_LEDGER")
    if not path:
        return
    line = {
        "what": what,
        "tenant": ctx.tenant,
        "execution": ctx.execution,
        "step": ctx.step,
        "attempt": ctx.attempt,
        "key": ctx.idempotency_key,
        "pid": os.getpid(),
        "at": time.time(),
    }
    # One write of one line, appended: atomic among processes.
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(fd, (json.dumps(line) + "\n").encode())
    finally:
        os.close(fd)


@step("e2e.work")
async def work(ctx: StepContext, seconds: float = 0.0, answer: Any = None) -> Any:
    """Work for a while, leaving a line at the start and at the end."""
    note(ctx, "start")
    await asyncio.sleep(seconds)
    note(ctx, "end")
    return answer if answer is not None else {"step": ctx.step}


@step("e2e.undo")
async def undo(ctx: StepContext, fail: bool = False) -> None:
    """A compensation."""
    note(ctx, "undo")
    if fail:
        raise StepFailed("the compensation was told to fail", retryable=False)


@step("e2e.gate")
async def gate(ctx: StepContext, path: str) -> None:
    """Wait until a file exists."""
    note(ctx, "start")
    while not Path(path).exists():
        await asyncio.sleep(0.02)
    note(ctx, "end")


@step("e2e.die_once")
async def die_once(ctx: StepContext, marker: str) -> str:
    """Kill the worker, the first time."""
    note(ctx, "start")
    path = Path(marker)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@step("e2e.thread_sleep")
def thread_sleep(ctx: StepContext, seconds: float) -> str:
    """Block a thread."""
    note(ctx, "start")
    time.sleep(seconds)
    note(ctx, "end")
    return "slept"


@step("e2e.process_sleep", isolation="process")
def process_sleep(ctx: StepContext, seconds: float) -> int:
    """Block a process of its own."""
    note(ctx, "start")
    time.sleep(seconds)
    return os.getpid()


@step("e2e.large")
async def large(ctx: StepContext, size: int) -> str:
    """Return more than fits inline."""
    return "x" * size


@step("e2e.stubborn")
async def stubborn(ctx: StepContext) -> None:
    """Ignore every cancellation, for ever."""
    note(ctx, "start")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


@hookimpl
def wpa_steps() -> Iterable[Callable[..., Any]]:
    return [work, undo, gate, die_once, thread_sleep, process_sleep, large, stubborn]
