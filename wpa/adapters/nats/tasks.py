"""The work queues on JetStream: one durable pull consumer for each source."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from typing import Any, Final

from wpa.adapters.nats import streams
from wpa.adapters.nats.api import (
    CONSUMER_EXISTS,
    CONSUMER_MISSING,
    NO_SUCH,
    NOT_READY,
    STREAM_MISSING,
    ApiError,
    api,
    stored_headers,
    stored_message,
)
from wpa.adapters.nats.consumers import consumer_config, pause, stream_of
from wpa.adapters.nats.headers import header_lines, own_headers
from wpa.adapters.nats.pages import pages, sequence_in
from wpa.adapters.nats.pull import Held, Pull
from wpa.adapters.nats.seldom import Seldom
from wpa.adapters.nats.transport import Message, Transport
from wpa.errors import PlatformError
from wpa.ports.tasks import Feed, Lease, Source

__all__ = ["NatsTasks"]

SETTLED_AFTER_S: Final = 0.5
"""A server tells that a consumer is deleted before it has removed its files, which one that is made anew at
once would take its leases from, and then lose."""

log = logging.getLogger("wpa.nats")


class NatsLease(Held):
    """See :class:`wpa.ports.tasks.Lease`."""

    __slots__ = ("identity", "source", "tenant")

    def __init__(self, transport: Transport, source: Source, message: Message) -> None:
        super().__init__(transport, message)
        self.source = source
        self.tenant = source.tenant
        # The sequence alone could come again, were the stream ever deleted and made anew.
        identity = f"{self.stored_ns:x}-{self.sequence:x}"
        # Tasks and steps share one stream and its sequences; the timers have their own.
        self.identity = f"due-{identity}" if source.kind == "due" else identity

    @property
    def stored_ms(self) -> int:
        return self.stored_ns // 1_000_000

    @property
    def headers(self) -> dict[str, str]:
        headers = self._message.headers
        # The server adds to an alarm which one it was.
        return own_headers(headers) if self.source.kind == "due" else headers


class NatsTasks:
    """See :class:`wpa.ports.tasks.TaskQueue`."""

    def __init__(self, transport: Transport, ack_wait_s: float) -> None:
        self._transport = transport
        self._ack_wait_s = ack_wait_s
        self._told = False
        self._complaints = Seldom()

    async def publish(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        return await self._transport.publish_acked(Source(tenant).subject, data, header_lines(headers))

    async def publish_step(self, tenant: str, queue: str, data: bytes, headers: dict[str, str]) -> int:
        subject = Source(tenant, "steps", queue).subject
        return await self._transport.publish_acked(subject, data, header_lines(headers))

    async def tenants(self) -> set[str]:
        held = await asyncio.gather(
            self._held(streams.TASKS, "workflow.tasks.*"), self._held(streams.TIMERS, "workflow.due.*")
        )
        return {subject.split(".")[2] for subjects in held for subject in subjects}

    async def queues(self) -> set[tuple[str, str]]:
        tokens = [subject.split(".") for subject in await self._held(streams.TASKS, "workflow.steps.*.*")]
        return {(tenant, queue) for _, _, tenant, queue in tokens}

    async def _held(self, stream: str, pattern: str) -> dict[str, int]:
        """The subjects that hold messages now, and how many."""
        info = await api(self._transport, f"STREAM.INFO.{stream}", {"subjects_filter": pattern})
        held: dict[str, int] = info["state"].get("subjects") or {}
        return held

    async def open(self, source: Source | str, deliver: Callable[[Lease], None]) -> Feed:
        source = Source.of(source)
        stream, config = stream_of(source), consumer_config(source, self._ack_wait_s)
        await self._ensure(stream, config)

        def take(message: Message) -> None:
            deliver(NatsLease(self._transport, source, message))

        async def mend() -> None:
            await self._mend(stream, config)

        pull = Pull(self._transport, stream, config["durable_name"], take, mend=mend)
        await pull.start()
        return pull

    async def _ensure(self, stream: str, config: dict[str, Any]) -> None:
        """Make a consumer, or give the one that is there this configuration.

        Its leases only ever get longer: another worker may hold some, and renews them as seldom as it may by
        its own setting. A worker that starts where no other is makes them shorter
        (:mod:`wpa.adapters.nats.leftovers`).
        """
        name = config["durable_name"]
        verb = f"CONSUMER.CREATE.{stream}.{name}.{config['filter_subject']}"
        body = {"stream_name": stream, "config": config}
        try:
            made = await api(self._transport, verb, {**body, "action": "create"})
        except ApiError as error:
            if error.err_code != CONSUMER_EXISTS:
                raise
            made = await self._lengthen(verb, body)
        if paused := pause(made):
            log.warning("%s", paused)

    async def _lengthen(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        """Give a consumer its configuration; its leases stay, where they are longer. What it is then."""
        stream, config = body["stream_name"], body["config"]
        found = await api(self._transport, f"CONSUMER.INFO.{stream}.{config['durable_name']}")
        there = found["config"]["ack_wait"]
        if there > config["ack_wait"]:
            self._tell(there / 1e9)
            config["ack_wait"] = there
        return await api(self._transport, verb, body)

    async def _mend(self, stream: str, config: dict[str, Any]) -> None:
        """Make a consumer anew that someone has deleted: nothing of its source would ever be taken again.

        It hands out all that the stream has, also what workers hold: as after any lease that ran out, the
        first to write goes on. A stream is not made anew: what it held is lost, which has to be noticed.
        """
        name = config["durable_name"]
        await asyncio.sleep(SETTLED_AFTER_S)
        try:
            if not await self._is_missing(stream, config):
                return
            await self._ensure(stream, config)
        except ApiError as error:
            if error.err_code == STREAM_MISSING:
                self._complain(f"stream {stream} is missing; a worker that starts makes it again, empty")
            elif error.err_code not in NOT_READY:
                self._complain(f"consumer {name} of stream {stream} is missing, can't be made: {error}")
        except PlatformError as error:  # no leader just now, or no connection: the next refusal comes
            log.debug("consumer %s of %s: %s", name, stream, error)
        else:
            log.warning("consumer %s of stream %s was deleted; it is made anew", name, stream)

    async def _is_missing(self, stream: str, config: dict[str, Any]) -> bool:
        """Whether a consumer is not there, for sure. Raises ApiError where even its stream isn't.

        Made anew by another worker, it may have shorter leases than this one needs: they are made longer.
        """
        try:
            info = await api(self._transport, f"CONSUMER.INFO.{stream}.{config['durable_name']}")
        except ApiError as error:
            if error.err_code != CONSUMER_MISSING:
                raise
            return True
        if info["config"]["ack_wait"] < config["ack_wait"]:
            await self._ensure(stream, config)
        return False

    def _complain(self, what: str) -> None:
        if self._complaints.is_due(what):
            log.warning("no tasks are taken: %s", what)

    def _tell(self, ack_wait_s: float) -> None:
        if not self._told:
            self._told = True
            log.warning(
                "a silent worker's tasks move on after %g s, not %g s: another worker had a longer "
                "WPA_ACK_WAIT_S; for a shorter one, stop all workers before the first is started again",
                ack_wait_s,
                self._ack_wait_s,
            )

    async def bury(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        return await self._transport.publish_acked(f"workflow.dlq.{tenant}", data, header_lines(headers))

    async def buried(
        self, tenant: str, limit: int, before: int = 0
    ) -> list[tuple[int, bytes, dict[str, str]]]:
        found: list[tuple[int, bytes, dict[str, str]]] = []
        async for messages in pages(self._transport, streams.DLQ, f"workflow.dlq.{tenant}"):
            wanted = [letter for letter in messages if not before or sequence_in(letter) < before]
            letters = ((sequence_in(letter), letter.data, own_headers(letter.headers)) for letter in wanted)
            found = [*found, *letters][-limit:]
            if len(wanted) < len(messages):
                break  # what follows is newer still
        return found[::-1]

    async def exhume(self, tenant: str, sequence: int) -> tuple[bytes, dict[str, str]] | None:
        message = await stored_message(self._transport, streams.DLQ, seq=sequence)
        if message is None:
            return None
        if message["subject"] != f"workflow.dlq.{tenant}":
            return None
        return base64.b64decode(message.get("data", "")), own_headers(stored_headers(message))

    async def discard(self, tenant: str, sequence: int) -> None:
        if await self.exhume(tenant, sequence) is None:
            return
        try:
            await api(self._transport, f"STREAM.MSG.DELETE.{streams.DLQ}", {"seq": sequence})
        except ApiError as error:
            if error.code != NO_SUCH:
                raise PlatformError(f"dead letter {sequence} could not be removed: {error}") from error
