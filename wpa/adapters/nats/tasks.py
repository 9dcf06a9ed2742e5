"""The task queue on JetStream: one durable pull consumer for each tenant.

A consumer of its own is what keeps a tenant's single task from waiting behind another tenant's
backlog. Pulls stay open: as long as a feed has credit, the server pushes tasks as they come.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec
from nats.aio.subscription import Subscription

from wpa.adapters.nats import streams
from wpa.adapters.nats.streams import ApiError, api
from wpa.adapters.nats.transport import Message, Transport
from wpa.errors import PlatformError, Unavailable
from wpa.model.ids import TENANT
from wpa.ports.tasks import Lease

__all__ = ["NatsTasks"]

PULL_EXPIRES_S: Final = 30.0
PULL_RETRY_S: Final = 0.25
MAX_ACK_PENDING: Final = 50_000

ACK: Final = b"+ACK"
NAK: Final = b"-NAK"
IN_PROGRESS: Final = b"+WPI"

log = logging.getLogger("wpa.nats")


class NatsLease:
    """See :class:`wpa.ports.tasks.Lease`."""

    __slots__ = ("_headers", "_reply", "_transport", "data", "delivered", "identity", "sequence", "tenant")

    def __init__(self, transport: Transport, tenant: str, message: Message) -> None:
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<timestamp>.<pending>, with
        # domain and account tokens before the stream where there are any.
        tokens = message.reply.split(".")
        offset = 0 if len(tokens) == 9 else 2
        self._transport = transport
        self._reply = message.reply
        self._headers = message.headers
        self.tenant = tenant
        self.data = message.data
        self.delivered = int(tokens[4 + offset])
        self.sequence = int(tokens[5 + offset])
        # The sequence alone could come again, were the stream ever deleted and made anew.
        self.identity = f"{int(tokens[7 + offset]):x}-{self.sequence:x}"

    @property
    def headers(self) -> dict[str, str]:
        return self._headers or {}

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
            # The server will hand the task out again; whoever gets it finds the work done.
            log.debug("lease %s: %s not sent, the connection is down", self.sequence, word)


class NatsFeed:
    """See :class:`wpa.ports.tasks.Feed`."""

    def __init__(self, transport: Transport, tenant: str, deliver: Callable[[Lease], None]) -> None:
        self._transport = transport
        self._tenant = tenant
        self._deliver = deliver
        self._inbox = transport.new_inbox()
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{streams.TASKS}.{consumer_name(tenant)}"
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
                log.debug("feed of %s: %s", self._tenant, error)

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
            self._deliver(NatsLease(self._transport, self._tenant, message))
            self._pull()
            return
        headers = message.headers or {}
        status = headers.get("Status", "")
        if status == "408":  # the pull's time is over: so many of it were not used
            self._asked = max(0, self._asked - int(headers.get("Nats-Pending-Messages", self._asked)))
            self._pull()
        elif status in ("404", "409", "503"):
            log.debug("pull of %s: %s %s", self._tenant, status, headers.get("Description", ""))
            if self._retry is None and not self._closed:
                self._retry = asyncio.get_running_loop().call_later(PULL_RETRY_S, self._again)


def consumer_name(tenant: str) -> str:
    """The tenant's consumer. A tenant that may not be one has tasks, too: they have to be rejected."""
    if TENANT.fullmatch(tenant):
        return f"tasks-{tenant}"
    return f"tasks--{hashlib.blake2b(tenant.encode(), digest_size=12).hexdigest()}"


def _header_lines(headers: dict[str, str]) -> bytes:
    """Headers as they are sent; anything that could end a line early is taken out of values."""
    lines = []
    for name, value in headers.items():
        clean = " ".join(value.split())
        lines.append(f"{name}: {clean}\r\n")
    return "".join(lines).encode()


class NatsTasks:
    """See :class:`wpa.ports.tasks.TaskQueue`."""

    def __init__(self, transport: Transport, ack_wait_s: float) -> None:
        self._transport = transport
        self._ack_wait_s = ack_wait_s

    async def publish(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        return await self._transport.publish_acked(f"workflow.tasks.{tenant}", data, _header_lines(headers))

    async def tenants(self) -> set[str]:
        info = await api(
            self._transport, f"STREAM.INFO.{streams.TASKS}", {"subjects_filter": "workflow.tasks.*"}
        )
        subjects = info["state"].get("subjects") or {}
        return {subject.rpartition(".")[2] for subject in subjects}

    async def open(self, tenant: str, deliver: Callable[[Lease], None]) -> NatsFeed:
        subject = f"workflow.tasks.{tenant}"
        name = consumer_name(tenant)
        config: dict[str, Any] = {
            "durable_name": name,
            "ack_policy": "explicit",
            "ack_wait": int(self._ack_wait_s * 1e9),
            "max_deliver": -1,
            "filter_subject": subject,
            "max_ack_pending": MAX_ACK_PENDING,
            "deliver_policy": "all",
            "replay_policy": "instant",
        }
        await api(
            self._transport,
            f"CONSUMER.CREATE.{streams.TASKS}.{name}.{subject}",
            {"stream_name": streams.TASKS, "config": config},
        )
        feed = NatsFeed(self._transport, tenant, deliver)
        await feed.start()
        return feed

    async def bury(self, tenant: str, data: bytes, headers: dict[str, str]) -> int:
        return await self._transport.publish_acked(f"workflow.dlq.{tenant}", data, _header_lines(headers))

    async def buried(self, tenant: str, limit: int) -> list[tuple[int, bytes, dict[str, str]]]:
        found: list[tuple[int, bytes, dict[str, str]]] = []
        start = 1
        while True:
            body = msgspec.json.encode({"seq": start, "next_by_subj": f"workflow.dlq.{tenant}", "batch": 500})
            messages = await self._transport.collect(f"$JS.API.DIRECT.GET.{streams.DLQ}", body)
            for message in messages:
                headers = message.headers or {}
                sequence = int(headers["Nats-Sequence"])
                found.append((sequence, message.data, _own_headers(headers)))
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
        return base64.b64decode(message.get("data", "")), _own_headers(headers)

    async def discard(self, tenant: str, sequence: int) -> None:
        if await self.exhume(tenant, sequence) is None:
            return
        try:
            await api(self._transport, f"STREAM.MSG.DELETE.{streams.DLQ}", {"seq": sequence})
        except ApiError as error:
            if error.code != streams.NO_SUCH:
                raise PlatformError(f"dead letter {sequence} could not be removed: {error}") from error


def _own_headers(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if not name.startswith("Nats-")}
