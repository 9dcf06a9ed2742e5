"""Steps that do what no step should, served by ``--flows`` next to good ones."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
import time
from typing import Any

from wpa import StepContext, step

_KEPT: list[bytes] = []


@step("hostile.segfault")
async def segfault(ctx: StepContext) -> None:
    """Take the whole worker down."""
    ctypes.string_at(0)


@step("hostile.segfault_apart", isolation="process")
def segfault_apart(ctx: StepContext) -> None:
    ctypes.string_at(0)


@step("hostile.exit")
async def leave(ctx: StepContext) -> None:
    sys.exit(3)


@step("hostile.hang")
async def hang(ctx: StepContext) -> None:
    await asyncio.get_running_loop().create_future()


@step("hostile.hang_thread")
def hang_thread(ctx: StepContext) -> None:
    threading.Event().wait()


@step("hostile.hang_apart", isolation="process")
def hang_apart(ctx: StepContext) -> None:
    while True:
        pass


@step("hostile.block")
async def block(ctx: StepContext) -> str:
    """Stop the worker's loop for longer than its leases last; once."""
    if ctx.attempt == 1 and not os.environ.get("HOSTILE_BLOCKED"):
        os.environ["HOSTILE_BLOCKED"] = "1"
        time.sleep(2.5)
    return "done"


@step("hostile.leak")
async def leak(ctx: StepContext) -> str:
    """Leave tasks, threads, files and memory behind."""
    _KEPT.append(bytes(1024 * 1024))
    ctx.kept = [asyncio.create_task(asyncio.sleep(3600)), open(os.devnull)]  # type: ignore[attr-defined]  # noqa: SIM115
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    return "left"


@step("hostile.fork")
def fork(ctx: StepContext) -> str:
    """A child that outlives the step, with all in its hands that the worker had open."""
    if os.fork() == 0:
        time.sleep(1)
        os._exit(0)
    return "forked"


@step("hostile.fork_here")
async def fork_here(ctx: StepContext) -> str:
    """Fork the worker's own loop."""
    return "forked" if os.fork() else "the child's"


@step("hostile.unserialisable")
async def unserialisable(ctx: StepContext) -> Any:
    return {"lock": threading.Lock()}


@step("hostile.cyclic")
async def cyclic(ctx: StepContext) -> Any:
    found: dict[str, Any] = {}
    found["self"] = found
    return found


@step("hostile.huge")
async def huge(ctx: StepContext) -> str:
    return "x" * (300 * 1024 * 1024)


@step("hostile.liar")
async def liar(ctx: StepContext) -> str:
    """Report what can't be."""
    for percentage in (-5, 1e308, float("nan"), 250, 3):
        await ctx.progress(percentage, "\ud800" * 100_000, lie=float("inf"))
    return "never lied"


@step("hostile.raiser")
async def raiser(ctx: StepContext) -> None:
    class Worse(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    raise Worse


@step("hostile.base")
async def base(ctx: StepContext) -> None:
    raise BaseException("neither an error nor an end")
