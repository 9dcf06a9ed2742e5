"""The work queues on JetStream: one durable pull consumer for each source.

A consumer of its own is what keeps a tenant's single task from waiting behind another tenant's backlog.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
from collections.abc import Callable
from typing import Any, Final, get_args

import msgspec

from wpa.adapters.nats import streams
from wpa.adapters.nats.headers import header_lines, own_headers
from wpa.adapters.nats.pull import Held, Pull
from wpa.adapters.nats.streams import ApiError, api
from wpa.adapters.nats.transport import Message, Transport
from wpa.errors import PlatformError
from wpa.ports.tasks import Feed, Lease, Source, SourceKind

__all__ = ["CONSUMERS", "NatsTasks"]

MAX_ACK_PENDING: Final = 50_000
SETTLED_AFTER_S: Final = 0.5
"""A server tells that a consumer is deleted before it has removed its files, which one that is made anew at
once would take its leases from, and then lose."""
TELL_EVERY_S: Final = 60.0
"""That a consumer can't be made anew is told once in so long, for each reason."""

PLAIN: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}(=[a-z0-9_-]{1,32})?", re.ASCII)

CONSUMERS: Final = tuple(f"{kind}-" for kind in get_args(SourceKind))
"""What the names of :func:`consumer_name` begin with."""

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


def stream_of(source: Source) -> str:
    """The stream that holds the source's messages."""
    return streams.TIMERS if source.kind == "due" else streams.TASKS


def consumer_name(source: Source) -> str:
    """The source's durable consumer: the same in every worker, and another for every other source.

    A tenant that may not be one has tasks, too (they have to be rejected), and the server makes folders
    of these names, which not every file system tells apart by case: what is not plain is hashed.
    """
    name = f"{source.tenant}={source.queue}" if source.queue else source.tenant
    if PLAIN.fullmatch(name):
        return f"{source.kind}-{name}"
    return f"{source.kind}--{hashlib.blake2b(name.encode(), digest_size=12).hexdigest()}"


class NatsTasks:
    """See :class:`wpa.ports.tasks.TaskQueue`."""

    def __init__(self, transport: Transport, ack_wait_s: float) -> None:
        self._transport = transport
        self._ack_wait_s = ack_wait_s
        self._told = False
        self._complained: dict[str, float] = {}
        """What was complained of, and when: seconds of the event loop's clock."""

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
        stream, name = stream_of(source), consumer_name(source)
        config: dict[str, Any] = {
            "durable_name": name,
            "ack_policy": "explicit",
            "ack_wait": int(self._ack_wait_s * 1e9),
            "max_deliver": -1,
            "filter_subject": source.subject,
            "max_ack_pending": MAX_ACK_PENDING,
            "deliver_policy": "all",
            "replay_policy": "instant",
        }
        await self._ensure(stream, config)

        def take(message: Message) -> None:
            deliver(NatsLease(self._transport, source, message))

        async def mend() -> None:
            await self._mend(stream, config)

        pull = Pull(self._transport, stream, name, take, mend=mend)
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
            await api(self._transport, verb, {**body, "action": "create"})
            return
        except ApiError as error:
            if error.err_code != streams.CONSUMER_EXISTS:
                raise
        there = (await api(self._transport, f"CONSUMER.INFO.{stream}.{name}"))["config"]["ack_wait"]
        if there > config["ack_wait"]:
            self._tell(there / 1e9)
            config["ack_wait"] = there
        await api(self._transport, verb, body)

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
            if error.err_code == streams.STREAM_MISSING:
                self._complain(f"stream {stream} is missing; a worker that starts makes it again, empty")
            elif error.err_code not in streams.NOT_READY:
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
            if error.err_code != streams.CONSUMER_MISSING:
                raise
            return True
        if info["config"]["ack_wait"] < config["ack_wait"]:
            await self._ensure(stream, config)
        return False

    def _complain(self, what: str) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._complained.get(what, -TELL_EVERY_S) + TELL_EVERY_S:
            self._complained[what] = now
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

    async def buried(self, tenant: str, limit: int) -> list[tuple[int, bytes, dict[str, str]]]:
        found: list[tuple[int, bytes, dict[str, str]]] = []
        start = 1
        while True:
            body = msgspec.json.encode({"seq": start, "next_by_subj": f"workflow.dlq.{tenant}", "batch": 500})
            messages = await self._transport.collect(f"$JS.API.DIRECT.GET.{streams.DLQ}", body)
            for message in messages:
                headers = message.headers or {}
                sequence = int(headers["Nats-Sequence"])
                found.append((sequence, message.data, own_headers(headers)))
                start = sequence + 1
            if len(messages) < 500:
                return found[::-1][:limit]
            found = found[-limit:]

    async def exhume(self, tenant: str, sequence: int) -> tuple[bytes, dict[str, str]] | None:
        message = await streams.stored_message(self._transport, streams.DLQ, seq=sequence)
        if message is None:
            return None
        if message["subject"] != f"workflow.dlq.{tenant}":
            return None
        raw = base64.b64decode(message.get("hdrs", ""))
        lines = [line.partition(": ") for line in raw.decode(errors="replace").split("\r\n")[1:] if line]
        headers = {name: value for name, _, value in lines}
        return base64.b64decode(message.get("data", "")), own_headers(headers)

    async def discard(self, tenant: str, sequence: int) -> None:
        if await self.exhume(tenant, sequence) is None:
            return
        try:
            await api(self._transport, f"STREAM.MSG.DELETE.{streams.DLQ}", {"seq": sequence})
        except ApiError as error:
            if error.code != streams.NO_SUCH:
                raise PlatformError(f"dead letter {sequence} could not be removed: {error}") from error
