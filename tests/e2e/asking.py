"""Definitions to ask things of, and ways to wait for what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.waiting import LOOK_EVERY_S, PATIENCE_S
from wpa.client import Client
from wpa.errors import TaskRejected

Body = dict[str, Any]

GO = {"uses": "core.wait", "with": {"signal": "go"}}
APPROVAL = {
    "uses": "core.approval",
    "with": {"roles": ["manager"], "users": ["ada"], "count": 2, "message": "ship it?"},
}
PROMPTLY_S = 5.0
"""What takes a tenth of a second takes no longer on a machine that is slow and busy. Whatever isn't told of
it, but finds out by itself, takes far longer."""


def plan(*steps: Body, version: str = "1", **more: Any) -> Body:
    """A definition of steps that follow one another."""
    chained = [
        {**step, "needs": [steps[number - 1]["id"]]} if number else step for number, step in enumerate(steps)
    ]
    return {"id": "w", "version": version, "steps": chained, **more}


async def status_when(client: Client, execution: str, what: Callable[[Body], Any]) -> Body:
    """The status document once ``what`` is true of it; the start may still be queued."""
    deadline = time.monotonic() + PATIENCE_S
    found: Body | None = None
    while True:
        with contextlib.suppress(TaskRejected):
            found = await client.status(execution)
        if found is not None and what(found):
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"within {PATIENCE_S:g} s, {execution} only came to this: {found}")
        await asyncio.sleep(LOOK_EVERY_S)


async def resume_blocked(client: Client, execution: str) -> None:
    """Have a blocked execution looked at now, or find that it has gone on by itself (after half a minute)."""
    try:
        await client.resume(execution)
    except TaskRejected as error:
        assert error.code == "execution_ended"


async def comes_to(client: Client, execution: str, status: str) -> Body:
    """The status document once the execution has come to ``status``."""
    return await status_when(client, execution, lambda found: found["status"] == status)


async def comes_to_rest(client: Client, execution: str) -> Body:
    """The status document once nobody drives the execution."""
    return await status_when(client, execution, lambda found: found["at_rest"])


async def runs(client: Client, execution: str, step: str) -> Body:
    """The status document once ``step`` runs."""
    return await status_when(
        client, execution, lambda found: found["status"] == "RUNNING" and step in found["current_steps"]
    )


async def refused(asked: Awaitable[Any]) -> TaskRejected:
    with pytest.raises(TaskRejected) as caught:
        await asked
    return caught.value


def names(events: list[Body]) -> list[str]:
    return [event["event"].removeprefix("workflow_") for event in events]
