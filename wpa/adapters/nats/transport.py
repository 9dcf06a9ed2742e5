"""What goes under nats-py's convenience layers, for the hot path.

nats-py stays the client: its connection, authentication, TLS and reconnects are used as they are.
What this adds is a way to publish without a coroutine, a task and a timer for each message, and to
receive without a queue and a task switch for each message (:mod:`wpa.adapters.nats.wire_parser`). See
``docs/adr/0004-hot-path.md``.

Guarantees:

* ``publish_acked`` returns a stream sequence, or raises Conflict (certainly not stored) or
  Unavailable (not known). It never hangs: pending futures fail at a disconnect, and a sweeper fails
  those that wait for longer than ``ACK_TIMEOUT_S``.
* Nothing is sent while the connection is down, so a failed call doesn't come back to life later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import nats.errors
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport

from wpa.adapters.nats.answers import NoAnswer, Refused, sequence_of, status_of
from wpa.adapters.nats.complaints import Complaints
from wpa.adapters.nats.wire_parser import CRLF, Direct, Handler, Message, WireParser
from wpa.connection import Connection, NotLetIn, without_password
from wpa.errors import PlatformError, TooLarge, Unavailable

__all__ = ["ACK_TIMEOUT_S", "Handler", "Message", "Refused", "Transport"]

ACK_TIMEOUT_S: Final = 5.0
ASK_AGAIN_S: Final = 1.0
"""A stream's leader that was elected after a request was sent has not heard it."""
SWEEP_EVERY_S: Final = 0.5
TRANSIENT_TRIES: Final = 20
CONNECT_TIMEOUT_S: Final = 5.0
HEAD_BYTES: Final = len(b"NATS/1.0\r\n" + b"\r\n")
"""What a block of headers has before and after them."""

log = logging.getLogger("wpa.nats")

Answer = tuple[bytes, bytes] | int
"""What came for a request: the data, and the header block; or just a message's sequence in its stream."""


class Transport:
    """A connection with a publish path and a receive path of our own. Belongs to the running event loop."""

    def __init__(self) -> None:
        self.nc = Connection()
        # Asking for the running loop is a system call (getpid) in Python 3.11: too dear for each message.
        self._loop = asyncio.get_running_loop()
        self._pending: dict[bytes, asyncio.Future[Answer]] = {}
        """By the subject of the answer, in the order in which they were asked."""
        self._collectors: dict[bytes, Callable[[Message], None]] = {}
        self._counter = 0
        self._out: list[bytes] = []
        """Commands, in parts: written, and copied, all at once at the end of this turn of the loop."""
        self._size_max = 0
        """Of a message, as the server had it when this turn's first command was sent."""
        self._inbox = ""
        self._sweeper: asyncio.Task[None] | None = None
        self._disconnected: list[Callable[[], Awaitable[None]]] = []
        self._reconnected: list[Callable[[], None]] = []
        self._closing = False
        self._refused: asyncio.Future[NotLetIn] = self._loop.create_future()
        """Done when the server did not let us in for the first time."""
        self._trouble = ""
        """The last error of the connection."""
        self._complaints = Complaints(self.request)

    # -- life --------------------------------------------------------------------------------

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        name: str,
        creds: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Transport:
        """Connect and start the reply inbox.

        Raises Unavailable where no server answers, or where it does not let us in.
        """
        self = cls()
        options: dict[str, Any] = {"user_credentials": creds} if creds else {}
        if tls is not None:
            options["tls"] = tls
        await self._connect(url, name=name, **options)
        await self._receive()
        self._sweeper = asyncio.create_task(self._sweep(), name="wpa-ack-sweeper")
        return self

    async def _receive(self) -> None:
        """Read what the server sends ourselves, and begin to listen for replies."""
        parser = WireParser(self.nc)
        self.nc._ps = parser  # type: ignore[assignment]  # noqa: SLF001
        self._inbox = self.nc.new_inbox()
        replies = await self.nc.subscribe(f"{self._inbox}.*")
        parser.expect_replies(self._inbox, replies._id, self._on_reply, self._on_stored)  # noqa: SLF001

    async def _connect(self, url: str, **options: Any) -> None:
        """nats-py's own connect, ended at a refusal: told to reconnect, it would knock for ever."""
        refused = self._refused
        connecting = asyncio.ensure_future(
            self.nc.connect(
                [server.strip() for server in url.split(",")],
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.1,
                allow_reconnect=True,
                connect_timeout=3,
                disconnected_cb=self._on_disconnected,
                reconnected_cb=self._on_reconnected,
                error_cb=self._on_error,
                ping_interval=10,
                max_outstanding_pings=2,
                pending_size=64 * 1024 * 1024,
                **options,
            )
        )
        shown = without_password(url)
        either: set[asyncio.Future[Any]] = {connecting, refused}
        try:
            await asyncio.wait(either, timeout=CONNECT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                connecting.result()
                return
        except (OSError, ValueError, nats.errors.Error) as error:
            raise Unavailable(f"can't connect to {shown}: {error or type(error).__name__}") from error
        finally:
            connecting.cancel()
        if refused.done():
            why = refused.result()
            hint = "; give user and password in the URL, or a credentials file in WPA_NATS_CREDS"
            raise Unavailable(
                f"the NATS server at {shown} does not let us in: {why}{hint if why.about_credentials else ''}"
            )
        raise Unavailable(
            f"no NATS server answers at {shown} ({self._trouble or 'no answer'}); "
            "start one with `wpa dev` or `wpa server`, or give its address with --nats URL"
        )

    async def close(self) -> None:
        """Flush what was sent and close the connection."""
        self._closing = True
        self._complaints.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._fail_pending("the connection was closed")
        if self.nc.is_connected:
            self._flush()
            try:
                await self.nc.flush(timeout=2)
            except (nats.errors.Error, TimeoutError, OSError) as error:
                log.debug("flush at close: %s", error)
        await self.nc.close()

    def disown(self) -> None:
        """For the child of a fork: leave the connection, which is the parent's, and touch it no more."""
        writer = getattr(self.nc._transport, "_io_writer", None)  # noqa: SLF001
        connection = None if writer is None else writer.get_extra_info("socket")
        if connection is not None:
            ours, other = socket.socketpair()
            ours.setblocking(False)
            os.dup2(ours.fileno(), connection.fileno())
            other.detach()  # never closed: that would be news for the loop

    def on_disconnect(self, callback: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Call back when the connection is lost, before another is looked for. Must not raise.

        Returns what ends it.
        """
        self._disconnected.append(callback)
        return lambda: self._disconnected.remove(callback)

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after every reconnect: pulls have to be asked for again, caches are stale.

        Returns what ends it.
        """
        self._reconnected.append(callback)
        return lambda: self._reconnected.remove(callback)

    # -- sending -----------------------------------------------------------------------------

    def send(self, subject: str, payload: bytes, *, reply: str = "", headers: bytes = b"") -> None:
        """Publish without waiting. ``headers`` are ``Name: value\\r\\n`` lines, already checked.

        Raises Unavailable while the connection is down, and TooLarge for more than the server takes: it would
        close the connection.
        """
        if not self._out:
            self._begin_turn()
        size = len(payload)
        to = f"{subject} {reply}" if reply else subject
        command: tuple[bytes, ...]
        if headers:
            head_size = len(headers) + HEAD_BYTES
            size += head_size
            line = f"HPUB {to} {head_size} {size}\r\nNATS/1.0\r\n"
            command = (line.encode(), headers, CRLF, payload, CRLF)
        else:
            command = (f"PUB {to} {size}\r\n".encode(), payload, CRLF)
        if size > self._size_max:
            raise TooLarge(f"{size} bytes for {subject}; the server takes {self._size_max}")
        self._out += command

    def _begin_turn(self) -> None:
        """Ask once for all that is sent in this turn of the loop whether it can be.

        Where the connection is lost before the turn is over, all of it is dropped, and what waits for an
        answer fails: nats-py tells of the loss in a task, which runs after this turn's flush.
        """
        nc = self.nc
        if not nc.is_connected:
            raise Unavailable("the connection to NATS is down")
        self._size_max = nc.max_payload
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write all that was sent in this turn of the loop, behind the commands of nats-py's own."""
        nc, out = self.nc, self._out
        self._out = []
        if not out or not nc.is_connected:
            return  # what could not be sent at once never is: after the reconnect, nobody waits for it
        connection, queue = nc._transport, nc._flush_queue  # noqa: SLF001
        commands = b"".join([*nc._pending, *out])  # noqa: SLF001
        if isinstance(connection, TcpTransport):
            nc._pending, nc._pending_data_size = [], 0  # noqa: SLF001
            try:
                connection.write(commands)  # type: ignore[no-untyped-call]
            except (OSError, RuntimeError) as error:
                log.debug("write: %s", error)  # the read loop meets it, too, and reconnects
            return
        # Only nats-py's flusher knows how to write to another.
        nc._pending, nc._pending_data_size = [commands], len(commands)  # noqa: SLF001
        if queue is not None and queue.empty():
            queue.put_nowait(self._loop.create_future())

    def _token(self) -> str:
        self._counter += 1
        return f"{self._inbox}.{self._counter:x}"

    async def publish_acked(self, subject: str, payload: bytes, headers: bytes = b"") -> int:
        """Publish into a stream and return the sequence the message was stored under.

        Raises Conflict for a lost compare-and-set, TooLarge for more than the server takes, and Unavailable
        when the outcome is unknown.
        """
        try:
            for tried in range(TRANSIENT_TRIES):
                answer = await self._ask(subject, payload, headers)
                if isinstance(answer, int):
                    return answer
                if (sequence := sequence_of(subject, *answer)) is not None:
                    return sequence
                # Another write on the same subject is on its way through the cluster.
                await asyncio.sleep(random.uniform(0.001, 0.003) * (tried + 1))
            raise Unavailable(f"{subject}: writes on this subject keep colliding")
        except Unavailable as error:
            self._complaints.failed(subject, error)
            raise

    def _ask(self, subject: str, payload: bytes, headers: bytes = b"") -> asyncio.Future[Answer]:
        """Send a request. Its answer is awaited; who does not wait any longer cancels the future."""
        token = self._token()
        self.send(subject, payload, reply=token, headers=headers)
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._pending[token.encode()] = future
        return future

    async def request(self, subject: str, payload: bytes, *, reads: bool = False) -> Message:
        """One request, one reply. Raises Unavailable when none comes.

        ``reads``: it changes nothing, and is sent again each ``ASK_AGAIN_S`` until somebody has answered.
        """
        asked = self._ask(subject, payload)
        again: asyncio.TimerHandle | None = None
        if reads:
            token = next(reversed(self._pending)).decode()
            again = self._loop.call_later(ASK_AGAIN_S, self._again, asked, subject, payload, token)
        try:
            answer = await asked
        finally:
            if again is not None:
                again.cancel()
        if isinstance(answer, int):
            raise PlatformError(f"a stream has taken the request on {subject}")
        data, head = answer
        reply = Message(subject, "", data, head)
        if not data and status_of(reply) == "503":
            raise Unavailable(f"nobody answers on {subject}")
        return reply

    def _again(self, asked: asyncio.Future[Answer], subject: str, payload: bytes, token: str) -> None:
        """Send a request once more: the first answer counts, to whichever of them."""
        if not asked.done():
            with contextlib.suppress(Unavailable):
                self.send(subject, payload, reply=token)
            self._loop.call_later(ASK_AGAIN_S, self._again, asked, subject, payload, token)

    async def collect(
        self, subject: str, payload: bytes, timeout_s: float = ACK_TIMEOUT_S
    ) -> tuple[list[Message], Message]:
        """One request, many replies, and the status message that ends them. Raises Unavailable."""
        token = self._token()
        done: asyncio.Future[Message] = self._loop.create_future()
        found: list[Message] = []

        def take(message: Message) -> None:
            status = status_of(message)
            if status == "":
                found.append(message)
            elif not done.done():
                if status in ("204", "404"):
                    done.set_result(message)
                else:
                    done.set_exception(Unavailable(f"{subject}: status {status}"))

        self._collectors[token.encode()] = take
        try:
            self.send(subject, payload, reply=token)
            async with asyncio.timeout(timeout_s):
                return found, await done
        except TimeoutError:
            raise Unavailable(f"no end of the answer on {subject} within {timeout_s} s") from None
        finally:
            self._collectors.pop(token.encode(), None)

    # -- receiving ---------------------------------------------------------------------------

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Subscription:
        """Hand every message on ``subject`` to ``handler``, in order, in the read loop.

        The handler must not block and must not raise.
        """
        subscription = await self.nc.subscribe(
            subject, queue=queue, pending_msgs_limit=0, pending_bytes_limit=0
        )
        subscription._pending_queue = Direct(handler)  # noqa: SLF001
        return subscription

    def new_inbox(self) -> str:
        return self.nc.new_inbox()

    def _on_stored(self, subject: bytes, sequence: bytes) -> None:
        waiting = self._pending.pop(subject, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(int(sequence))

    def _on_reply(self, subject: bytes, data: bytes, head: bytes) -> None:
        waiting = self._pending.pop(subject, None)
        if waiting is not None:
            if not waiting.done():
                waiting.set_result((data, head))
            return
        collector = self._collectors.get(subject)
        if collector is not None:
            collector(Message("", "", data, head))

    # -- trouble -----------------------------------------------------------------------------

    def _fail_pending(self, reason: str) -> None:
        for future in self._pending.values():
            if not future.done():
                future.set_exception(Unavailable(f"{reason}: the outcome is unknown"))
        self._pending.clear()

    async def _sweep(self) -> None:
        # When how many had been asked: a look at the clock now and then, instead of one for each.
        asked = deque([(self._loop.time(), self._counter)])
        too_old = 0
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            now = self._loop.time()
            asked.append((now, self._counter))
            while asked[0][0] + ACK_TIMEOUT_S <= now:
                too_old = asked.popleft()[1]
            for token, future in list(self._pending.items()):
                if int(token.rpartition(b".")[2], 16) > too_old:
                    break  # asked in order, so the rest is younger
                del self._pending[token]
                if not future.done():
                    future.set_exception(
                        NoAnswer(f"no answer within {ACK_TIMEOUT_S} s: the outcome is unknown")
                    )

    async def _on_disconnected(self) -> None:
        if not self._closing:
            log.warning("the connection to NATS is down; reconnecting")
        self._out = []  # would not be written any more; and what comes now is to ask anew whether it can be
        self._fail_pending("the connection was lost")
        if not self._closing:
            for callback in tuple(self._disconnected):
                await callback()

    async def _on_reconnected(self) -> None:
        log.warning("connected to NATS again, at %s", self.nc.address)
        for callback in tuple(self._reconnected):
            callback()

    async def _on_error(self, error: Exception) -> None:
        self._trouble = str(error) or type(error).__name__
        if not self._closing:
            log.debug("nats: %s", self._trouble)
        if isinstance(error, NotLetIn) and not self._refused.done():
            self._refused.set_result(error)
