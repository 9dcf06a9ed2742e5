"""The flows and steps of the benchmarks, for ``wpa worker --flows``."""

from __future__ import annotations

import asyncio
from typing import Any

from wpa import call, flow
from wpa.sdk import step

DATA = {"data": "x" * 190}


@flow("flow3")
async def flow3(order: str, customer: str, note: str) -> Any:
    """What the plan ``seq3`` does: three calls, one after the other."""
    await call("core.echo", DATA)
    await call("core.echo", DATA)
    return await call("core.echo", DATA)


@flow("many")
async def many(calls: int) -> int:
    """So many calls, one after the other."""
    for _ in range(calls):
        await call("core.echo", DATA)
    return calls


@step("bench.work")
async def work(seconds: float) -> None:
    """Take a while, and nothing of the processor."""
    await asyncio.sleep(seconds)
