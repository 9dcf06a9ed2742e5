"""The flows that chaos is let loose on, next to the plans of ``load``; a file for ``--flows``."""

from __future__ import annotations

import asyncio

from wpa import call, flow

NAP_S = 2.1
"""Longer than what a worker waits for itself: it comes to rest."""


@flow("stroll")
async def stroll(word: str, seconds: float = 0.0) -> str:
    """Steps one after the other and side by side, a rest in between."""
    first: str = await call("e2e.work", step_name="a", answer=word, undo="e2e.undo")
    await asyncio.gather(
        call("e2e.work", step_name="b", undo="e2e.undo"),
        call("e2e.work", step_name="c", seconds=seconds, undo="e2e.undo"),
        asyncio.sleep(NAP_S),
    )
    await call("e2e.work", step_name="d")
    return first


@flow("regret")
async def regret(word: str, seconds: float = 0.0) -> None:
    """What is done is undone, last first: then it fails."""
    await call("e2e.work", step_name="a", seconds=seconds, undo="e2e.undo")
    await call("e2e.work", step_name="b", answer=word, undo="e2e.undo")
    raise ValueError("it was all for nothing")
