"""The work queues on JetStream: one durable pull consumer for each source.

A consumer of its own is what keeps a tenant's single task from waiting behind another tenant's
backlog. Pulls stay open: as long as a feed has credit, the server pushes messages as they come.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from nats.aio.subscription import Subscription

from wpa.adapters.nats import streams
from wpa.adapters.nats.headers import header_lines, own_headers
from wpa.adapters.nats.streams import ApiError, api
from wpa.adapters.nats.transport import Message, Transport
from wpa.errors import PlatformError, Unavailable
from wpa.ports.tasks import Lease, Source

__all__ = ["NatsTasks"]

PULL_EXPIRES_S: Final = 30.0
PULL_RETRY_S: Final = 0.25
MAX_ACK_PENDING: Final = 50_000

PLAIN: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}(=[a-z0-9_-]{1,32})?", re.ASCII)

ACK: Final = b"+ACK"
NAK: Final = b"-NAK"
IN_PROGRESS: Final = b"+WPI"

log = logging.getLogger("wpa.nats")


class NatsLease:
    """See :class:`wpa.ports.tasks.Lease`."""

    __slots__ = (
        "_headers",
        "_reply",
        "_transport",
        "data",
        "delivered",
        "identity",
        "sequence",
        "source",
        "stored_ms",
    )

    def __init__(self, transport: Transport, source: Source, message: Message) -> None:
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<timestamp>.<pending>, with
        # domain and account tokens before the stream where there are any.
        tokens = message.reply.split(".")
        offset = 0 if len(tokens) == 9 else 2
        self._transport = transport
        self._reply = message.reply
        self._headers = message.headers
        self.source = source
        self.data = message.data
        self.delivered = int(tokens[4 + offset])
        self.sequence = int(tokens[5 + offset])
        stored_ns = int(tokens[7 + offset])
        self.stored_ms = stored_ns // 1_000_000
        # The sequence alone could come again, were the stream ever deleted and made anew.
        identity = f"{stored_ns:x}-{self.sequence:x}"
        # Tasks and steps share one stream and its sequences; the timers have their own.
        self.identity = f"due-{identity}" if source.kind == "due" else identity

    @property
    def tenant(self) -> str:
        return self.source.tenant

    @property
    def headers(self) -> dict[str, str]:
        headers = self._headers or {}
        # The server adds to an alarm which one it was.
        return own_headers(headers) if self.source.kind == "due" else headers

    def ack(self) -> None:
        self._say(ACK)

    def nak(self, delay_s: float = 0.0) -> None:
        self._say(NAK if delay_s <= 0 else b'-NAK {"delay": %d}' % int(delay_s * 1e9))

    def extend(self) -> None:
        self._say(IN_PROGRESS)

    def _say(self, word: bytes) -> None:
        try:
            self._transport.send(self._reply, word)
        except Unavailable:
            # The server will hand the message out again; whoever gets it finds the work done.
            log.debug("lease %s: %s not sent, the connection is down", self.sequence, word)


class NatsFeed:
    """See :class:`wpa.ports.tasks.Feed`."""

    def __init__(self, transport: Transport, source: Source, deliver: Callable[[Lease], None]) -> None:
        self._transport = transport
        self._source = source
        self._deliver = deliver
        self._inbox = transport.new_inbox()
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream_of(source)}.{consumer_name(source)}"
        self._subscription: Subscription | None = None
        self._wanted = 0
        """Deliveries that were allowed and have not come."""
        self._asked = 0
        """Deliveries that the server has been asked for and has not made."""
        self._closed = False
        self._retry: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        self._subscription = await self._transport.subscribe(self._inbox, self._take)
        self._transport.on_reconnect(self._again)

    def request(self, count: int) -> None:
        self._wanted += count
        self._pull()

    async def close(self) -> None:
        self._closed = True
        for handle in (self._retry, self._watchdog):
            if handle is not None:
                handle.cancel()
        if self._subscription is not None and not self._transport.nc.is_closed:
            try:
                await self._subscription.unsubscribe()
            except Exception as error:  # closing: a dead connection has unsubscribed already
                log.debug("feed of %s: %s", self._source.subject, error)

    def _pull(self) -> None:
        missing = self._wanted - self._asked
        # Small top-ups are gathered into larger pulls, unless nothing is under way.
        if self._closed or missing <= 0 or (self._asked > 0 and missing * 4 < self._wanted):
            return
        body = msgspec.json.encode({"batch": missing, "expires": int(PULL_EXPIRES_S * 1e9)})
        try:
            self._transport.send(self._subject, body, reply=self._inbox)
        except Unavailable:
            return  # the reconnect asks again
        self._asked += missing
        if self._watchdog is not None:
            self._watchdog.cancel()
        loop = asyncio.get_running_loop()
        self._watchdog = loop.call_later(PULL_EXPIRES_S + 3, self._again)

    def _again(self) -> None:
        """Forget what was asked for (a reconnect, or a silent server) and ask anew."""
        self._asked = 0
        self._retry = None
        self._pull()

    def _take(self, message: Message) -> None:
        if message.reply.startswith("$JS.ACK."):
            self._wanted = max(0, self._wanted - 1)
            self._asked = max(0, self._asked - 1)
            self._deliver(NatsLease(self._transport, self._source, message))
            self._pull()
            return
        headers = message.headers or {}
        status = headers.get("Status", "")
        if status == "408":  # the pull's time is over: so many of it were not used
            self._asked = max(0, self._asked - int(headers.get("Nats-Pending-Messages", self._asked)))
            self._pull()
        elif status in ("404", "409", "503"):
            log.debug("pull of %s: %s %s", self._source.subject, status, headers.get("Description", ""))
            if self._retry is None and not self._closed:
                self._retry = asyncio.get_running_loop().call_later(PULL_RETRY_S, self._again)


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

    async def open(self, source: Source | str, deliver: Callable[[Lease], None]) -> NatsFeed:
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
        await api(
            self._transport,
            f"CONSUMER.CREATE.{stream}.{name}.{source.subject}",
            {"stream_name": stream, "config": config},
        )
        feed = NatsFeed(self._transport, source, deliver)
        await feed.start()
        return feed

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
        try:
            answer = await api(self._transport, f"STREAM.MSG.GET.{streams.DLQ}", {"seq": sequence})
        except ApiError as error:
            if error.code == streams.NO_SUCH:
                return None
            raise
        message: dict[str, Any] = answer["message"]
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
