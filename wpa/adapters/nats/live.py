"""Live events, nudges and watches on core NATS: seen by whoever listens now, stored nowhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from typing import Any

import msgspec
import nats.errors

from wpa.adapters.nats.transport import Message, Transport
from wpa.errors import TooLarge, Unavailable
from wpa.model.subjects import may_be_answered
from wpa.ports.live import OnMessage, OnNudge, Unsubscribe

__all__ = ["NatsLive"]


class _Nudge(msgspec.Struct):
    tenant: str
    execution: str
    epoch: int
    reason: str = ""


_ENCODER = msgspec.json.Encoder()

log = logging.getLogger("wpa.nats")


class NatsLive:
    """See :class:`wpa.ports.live.Live`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._running: set[asyncio.Task[None]] = set()

    def publish_event(self, tenant: str, execution: str, body: dict[str, Any]) -> None:
        self.publish(f"workflow.events.{tenant}.{execution}.live", _ENCODER.encode(body))

    def publish(self, subject: str, data: bytes) -> None:
        # Best effort: while the connection is down, nobody can be listening through it either.
        try:
            self._transport.send(subject, data)
        except Unavailable:
            log.debug("%s: not sent, the connection is down", subject)
        except TooLarge as error:
            log.warning("not sent: %s", error)

    def nudge(self, worker: str, tenant: str, execution: str, epoch: int, reason: str = "") -> None:
        nudge = _Nudge(tenant, execution, epoch, reason)
        self.publish(f"workflow.nudge.{worker}", _ENCODER.encode(nudge))

    async def on_nudge(self, worker: str, callback: OnNudge) -> None:
        def take(message: Message) -> None:
            if message.reply:  # somebody wants to know whether we are there
                if may_be_answered(message.reply):
                    self.publish(message.reply, b"")
                return
            try:
                nudge = msgspec.json.decode(message.data, type=_Nudge)
            except msgspec.MsgspecError:
                return
            tell(nudge)

        def tell(nudge: _Nudge) -> None:
            told = callback(nudge.tenant, nudge.execution, nudge.epoch, nudge.reason)
            task = asyncio.ensure_future(_run(told))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

        await self._transport.subscribe(f"workflow.nudge.{worker}", take)
        self._transport.on_reconnect(lambda: tell(_Nudge("", "", 0)))  # others may have come meanwhile

    async def watch(self, pattern: str, callback: OnMessage, queue: str = "") -> Unsubscribe:
        def take(message: Message) -> None:
            callback(message.subject, message.data, message.headers or {})

        try:
            subscription = await self._transport.subscribe(pattern, take, queue)
        except nats.errors.Error as error:
            raise Unavailable(f"can't listen on {pattern}: {error}") from error

        async def unsubscribe() -> None:
            # Twice, or over a connection that is gone: there is nothing left to end.
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

        return unsubscribe


async def _run(awaitable: Awaitable[None]) -> None:
    await awaitable
