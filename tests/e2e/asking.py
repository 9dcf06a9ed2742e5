"""Definitions to ask things of, and ways to wait for what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from wpa.client import Client
from wpa.errors import TaskRejected

Body = dict[str, Any]

GO = {"uses": "core.wait", "with": {"signal": "go"}}
APPROVAL = {
    "uses": "core.approval",
    "with": {"roles": ["manager"], "users": ["ada"], "count": 2, "message": "ship it?"},
}


def plan(*steps: Body, version: str = "1", **more: Any) -> Body:
    """A definition of steps that follow one another."""
    chained = [
        {**step, "needs": [steps[number - 1]["id"]]} if number else step for number, step in enumerate(steps)
    ]
    return {"id": "w", "version": version, "steps": chained, **more}


async def comes_to(client: Client, execution: str, status: str, within_s: float = 10) -> Body:
    """The status document once the execution has come to ``status``."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                found = await client.status(execution)
            except TaskRejected:
                found = {"status": "not begun"}
            if found["status"] == status:
                return found
            await asyncio.sleep(0.02)


async def runs(client: Client, execution: str, step: str) -> Body:
    """The status document once ``step`` runs."""
    async with asyncio.timeout(10):
        while True:
            found = await comes_to(client, execution, "RUNNING")
            if step in found["current_steps"]:
                return found
            await asyncio.sleep(0.02)


async def refused(asked: Awaitable[Any]) -> TaskRejected:
    with pytest.raises(TaskRejected) as caught:
        await asked
    return caught.value


def names(events: list[Body]) -> list[str]:
    return [event["event"].removeprefix("workflow_") for event in events]
