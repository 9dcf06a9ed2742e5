"""What a durable pull consumer delivers: messages that stay leased until they are answered.

Pulls stay open: as long as a feed has credit, the server pushes messages as they come. It keeps a pull, too,
when the connection that it came over is lost, as long as somebody listens for its messages; so whoever
connects again listens elsewhere, and asks anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.subscription import Subscription

from wpa.adapters.nats.transport import Message, Transport
from wpa.errors import Unavailable

__all__ = ["Held", "Pull"]

PULL_EXPIRES_S: Final = 10.0
"""With a node that is cut off, a pull is lost without a word: nothing comes for so long, and LATE_S."""
PULL_RETRY_S: Final = 0.25
PULL_RETRY_MAX_S: Final = 1.0
"""A pull that is refused is sent again after the first of these; refused on and on, after twice as long each
time, up to the second."""
LATE_S: Final = 3.0
"""So long after its time is over, a pull that was not answered is given up."""

ACK: Final = b"+ACK"
NAK: Final = b"-NAK"
IN_PROGRESS: Final = b"+WPI"
PULL_BYTES: Final = 8 * 1024 * 1024
"""What a pull asks for at most. Tasks may have 4 MB each, and the server ends a connection for which more is
waiting than its ``max_pending``: 64 MB."""
GONE: Final = "consumer deleted"
FULL: Final = "message size exceeds maxbytes"

log = logging.getLogger("wpa.nats")


class Held:
    """A message of a consumer, until it is answered."""

    __slots__ = ("_message", "_transport", "data", "delivered", "sequence", "stored_ns")

    def __init__(self, transport: Transport, message: Message) -> None:
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<timestamp>.<pending>, with
        # domain and account tokens before the stream where there are any.
        tokens = message.reply.split(".")
        offset = 0 if len(tokens) == 9 else 2
        self._transport = transport
        self._message = message
        self.data = message.data
        self.delivered = int(tokens[4 + offset])
        self.sequence = int(tokens[5 + offset])
        self.stored_ns = int(tokens[7 + offset])

    @property
    def headers(self) -> dict[str, str]:
        """All that it came with."""
        return self._message.headers

    @property
    def subject(self) -> str:
        """What it was published on."""
        return self._message.subject

    def ack(self) -> None:
        self._say(ACK)

    def nak(self, delay_s: float = 0.0) -> None:
        self._say(NAK if delay_s <= 0 else b'-NAK {"delay": %d}' % int(delay_s * 1e9))

    def extend(self) -> None:
        self._say(IN_PROGRESS)

    def _say(self, word: bytes) -> None:
        try:
            self._transport.send(self._message.reply, word)
        except Unavailable:
            # The server will hand the message out again; whoever gets it finds the work done.
            log.debug("lease %s: %s not sent, the connection is down", self.sequence, word)


class Pull:
    """See :class:`wpa.ports.tasks.Feed`.

    Args:
        transport: the connection.
        stream: the consumer's stream.
        consumer: a durable pull consumer that is there.
        take: called for each message that is delivered.
        gone: called where it turns out that the consumer is not there, or can't be reached; nothing is asked
            for any more then. Without it, it is asked for again and again.
        mend: started where ``gone`` would be called, while the pull is sent again and again: makes the
            consumer anew, if that is what is missing. Never runs twice at a time, and must not raise.
        expires_s: how long a pull stays open. One that reaches the server just when the consumer is deleted
            is never answered, so for so long, and some seconds, that may go unnoticed.
    """

    def __init__(
        self,
        transport: Transport,
        stream: str,
        consumer: str,
        take: Callable[[Message], None],
        gone: Callable[[], None] | None = None,
        expires_s: float = PULL_EXPIRES_S,
        mend: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._transport = transport
        self._expires_s = expires_s
        self._name = f"{stream}.{consumer}"
        self._deliver = take
        self._gone = gone
        self._mend = mend
        self._mending: asyncio.Task[None] | None = None
        self._inbox = transport.new_inbox()
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._name}"
        self._subscription: Subscription | None = None
        self._wanted = 0
        """Deliveries that were allowed and have not come; less than none, where more have come than were."""
        self._asked = 0
        """Deliveries that the server has been asked for and has not made."""
        self._came = False
        """Whether anything has since a pull was last ended by its bytes."""
        self._alone = False
        """Whether the next message has more bytes than a pull asks for: then it is asked for by itself."""
        self._closed = False
        self._retry: asyncio.TimerHandle | None = None
        self._retry_s = PULL_RETRY_S
        self._watchdog: asyncio.TimerHandle | None = None
        self._forget: list[Callable[[], None]] = []

    async def start(self) -> None:
        self._subscription = await self._transport.subscribe(self._inbox, self._take)
        self._forget = [
            self._transport.on_disconnect(self._listen_elsewhere),
            self._transport.on_reconnect(self._again),
        ]

    def request(self, count: int) -> None:
        self._wanted += count
        self._pull()

    async def close(self) -> None:
        self._stop()
        for forget in self._forget:
            forget()
        self._forget = []
        if self._subscription is not None and not self._transport.nc.is_closed:
            try:
                await self._subscription.unsubscribe()
            except Exception as error:  # closing: a dead connection has unsubscribed already
                log.debug("feed of %s: %s", self._name, error)

    def _stop(self) -> None:
        self._closed = True
        for handle in (self._retry, self._watchdog, self._mending):
            if handle is not None:
                handle.cancel()

    def _pull(self) -> None:
        missing = self._wanted - self._asked
        # Small top-ups are gathered into larger pulls, unless nothing is under way.
        if self._closed or missing <= 0 or (self._asked > 0 and missing * 2 < self._wanted):
            return
        missing = 1 if self._alone else missing
        wanted = {"batch": missing, "expires": int(self._expires_s * 1e9)}
        if not self._alone:
            wanted["max_bytes"] = PULL_BYTES
        body = msgspec.json.encode(wanted)
        try:
            self._transport.send(self._subject, body, reply=self._inbox)
        except Unavailable:
            return  # the reconnect asks again
        self._asked += missing
        if self._watchdog is not None:
            self._watchdog.cancel()
        loop = asyncio.get_running_loop()
        self._watchdog = loop.call_later(self._expires_s + LATE_S, self._again)

    def _again(self) -> None:
        """Forget what was asked for (a reconnect, or a silent server) and ask anew."""
        self._asked = 0
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._pull()

    async def _listen_elsewhere(self) -> None:
        """The connection is lost: let the pulls that were sent over it end."""
        if self._closed:
            return
        before, self._inbox = self._subscription, self._transport.new_inbox()
        try:
            self._subscription = await self._transport.subscribe(self._inbox, self._take)
            if before is not None:
                await before.unsubscribe()
        except nats.errors.Error as error:  # it is being closed for good
            log.debug("feed of %s: %s", self._name, error)

    def _take(self, message: Message) -> None:
        if message.reply.startswith("$JS.ACK."):
            self._retry_s = PULL_RETRY_S
            self._came, self._alone = True, False
            self._wanted -= 1
            self._asked = max(0, self._asked - 1)
            self._deliver(message)
            self._pull()
            return
        headers = message.headers
        status, why = headers.get("Status", ""), headers.get("Description", "")
        full = why.lower() == FULL
        if status == "408" or full:  # the pull's time is over, or its bytes are: so many of it were not used
            if full:
                self._alone, self._came = not self._came, False
            self._retry_s = PULL_RETRY_S
            self._asked = max(0, self._asked - int(headers.get("Nats-Pending-Messages", self._asked)))
            self._pull()
        elif status in ("404", "409", "503"):
            log.debug("pull of %s: %s %s", self._name, status, why)
            self._refused(missing=status == "503" or why.lower() == GONE)

    def _refused(self, missing: bool) -> None:
        """The server won't: there may be no consumer, or it has none just now who answers for it."""
        if missing and self._gone is not None:
            self._stop()
            self._gone()
        elif self._retry is None and not self._closed:
            self._retry = asyncio.get_running_loop().call_later(self._retry_s, self._again)
            self._retry_s = min(self._retry_s * 2, PULL_RETRY_MAX_S)
            if missing and self._mend is not None and (self._mending is None or self._mending.done()):
                self._mending = asyncio.create_task(self._mend(), name=f"wpa-mend-{self._name}")
