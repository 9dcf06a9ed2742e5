"""Live events and nudges on core NATS: seen by whoever listens now, stored nowhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from wpa.adapters.nats.transport import Message, Transport
from wpa.errors import Unavailable

__all__ = ["NatsLive"]


class _Nudge(msgspec.Struct):
    tenant: str
    execution: str
    epoch: int


_ENCODER = msgspec.json.Encoder()


class NatsLive:
    """See :class:`wpa.ports.live.Live`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._running: set[asyncio.Task[None]] = set()

    def publish_event(self, tenant: str, execution: str, body: dict[str, Any]) -> None:
        self.publish(f"workflow.events.{tenant}.{execution}.live", _ENCODER.encode(body))

    def publish(self, subject: str, data: bytes) -> None:
        # Best effort: while the connection is down, nobody can be listening through it either.
        with contextlib.suppress(Unavailable):
            self._transport.send(subject, data)

    def nudge(self, worker: str, tenant: str, execution: str, epoch: int) -> None:
        self.publish(f"workflow.nudge.{worker}", _ENCODER.encode(_Nudge(tenant, execution, epoch)))

    async def on_nudge(self, worker: str, callback: Callable[[str, str, int], Awaitable[None]]) -> None:
        def take(message: Message) -> None:
            try:
                nudge = msgspec.json.decode(message.data, type=_Nudge)
            except msgspec.DecodeError:
                return
            task = asyncio.ensure_future(_run(callback(nudge.tenant, nudge.execution, nudge.epoch)))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

        await self._transport.subscribe(f"workflow.nudge.{worker}", take)


async def _run(awaitable: Awaitable[None]) -> None:
    await awaitable
