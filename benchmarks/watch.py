"""Looks on: sees every event of the default tenant, counts one kind of them, and says when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from wpa.client.connecting import flush

TASKS = "workflow.tasks.default"
EVENTS = "workflow.events.default."

OnEvent = Callable[[str, bytes], None]


class Watch:
    """Counts the executions that an event of some name was seen of."""

    def __init__(self, event: str, on_event: OnEvent | None = None) -> None:
        self._mark = f'"event":"{event}"'.encode()
        self._on_event = on_event
        self._changed = asyncio.Event()
        self.seen = 0
        self.began = time.perf_counter()

    async def take(self, message: Msg) -> None:
        """The subscription's callback."""
        if self._mark in message.data[:400]:
            self.seen += 1
            if self._on_event is not None:
                self._on_event(message.subject.rpartition(".")[2], message.data)
            self._changed.set()

    async def until(self, count: int, timeout_s: float = 120.0) -> float:
        """Wait until ``count`` have been seen; the seconds since the watch began."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.seen < count:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise RuntimeError(f"{self.seen} of {count} events {self._mark!r} in {timeout_s:g} s") from None
        return time.perf_counter() - self.began


@contextlib.asynccontextmanager
async def watching(
    nc: Client, event: str, on_event: OnEvent | None = None, *, execution: str = "*"
) -> AsyncIterator[Watch]:
    """Watch for an event's name, of all executions or one; begun when this is entered.

    ``on_event`` gets the execution and the event's bytes.
    """
    watch = Watch(event, on_event)
    subscription = await nc.subscribe(
        EVENTS + execution, cb=watch.take, pending_msgs_limit=0, pending_bytes_limit=0
    )
    await flush(nc)
    watch.began = time.perf_counter()
    try:
        yield watch
    finally:
        await subscription.unsubscribe()


def start(workflow: str, execution: str, data: Any = None) -> bytes:
    """A task that starts an execution."""
    return _task("workflow_start", execution, {"input_data": data or {}}, workflow_id=workflow)


def signal(execution: str, name: str, payload: Any = None) -> bytes:
    """A task that signals an execution."""
    return _task("workflow_signal", execution, {"signal": name, "payload": payload})


def _task(kind: str, execution: str, payload: dict[str, Any], **more: str) -> bytes:
    return json.dumps({"type": kind, "execution_id": execution, "payload": payload, **more}).encode()


async def publish(nc: Client, tasks: Iterable[bytes]) -> None:
    """Publish tasks as fast as the client can."""
    for task in tasks:
        await nc.publish(TASKS, task)
    await flush(nc)
