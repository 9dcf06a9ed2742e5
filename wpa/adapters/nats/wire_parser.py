"""What the server sends, read from the bytes: takes the place of nats-py's parser on a connection.

Nearly all that a worker receives is answers to its own publishes and messages for its own handlers. nats-py
matches a regular expression, makes three objects and switches through two coroutines for each of them, and
reads all headers of all messages. Here they are cut out of the buffer and handed over at once; headers are
read when somebody asks for them. What says no more than that a message is stored, and where, is known by one
regular expression, and read no further.

Everything else is nats-py's: INFO, PING, PONG, errors, messages of subscriptions that are not ours, and
whatever does not look exactly as the server writes it. Its own parser gets those bytes, so they mean what
they always meant.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.protocol.parser import AWAITING_CONTROL_LINE, MAX_CONTROL_LINE_SIZE

from wpa.adapters.nats.headers import read_head

__all__ = ["CRLF", "Direct", "Handler", "Message", "OnReply", "OnStored", "WireParser"]

CRLF: Final = b"\r\n"

log = logging.getLogger("wpa.nats")


class Message:
    """A message as it came. ``head`` is its header block, empty where it has none."""

    __slots__ = ("_head", "_headers", "data", "reply", "subject")

    def __init__(
        self, subject: str, reply: str, data: bytes, head: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self._head = head
        self._headers = headers

    @property
    def headers(self) -> dict[str, str]:
        """Its headers; a status that the server gave is among them, as ``Status`` and ``Description``."""
        headers = self._headers
        if headers is None:
            headers = self._headers = read_head(self._head) if self._head else {}
        return headers


Handler = Callable[[Message], None]
OnReply = Callable[[bytes, bytes, bytes], None]
"""(subject, data, header block). Must not block and must not raise."""
OnStored = Callable[[bytes, bytes], None]
"""(subject, stream sequence). Must not block and must not raise."""
STORED: Final = rb'MSG (%b\.\S+) %b (\d+)\r\n(\{"stream":"[\w-]+", ?"seq":([1-9]\d*)\})\r\n'


class Direct(asyncio.Queue[Msg]):
    """Takes the place of a subscription's queue, and marks it as ours: its messages go to ``handler``."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self._handler = handler

    def put_nowait(self, item: Msg) -> None:
        """A message that nats-py's parser has read."""
        self.hand_over(Message(item.subject, item.reply, item.data, b"", item.headers))

    def hand_over(self, message: Message) -> None:
        """Call the handler. What it raises is logged: it would tear down the read loop for everybody."""
        try:
            self._handler(message)
        except Exception:
            log.exception("a message handler failed on %s", message.subject)


class WireParser:
    """Has what nats-py asks of its parser: ``parse`` and ``reset``.

    Args:
        nc: a connected client, whose parser this is going to be.
    """

    def __init__(self, nc: Client) -> None:
        self.nc = nc
        self._theirs = nc._ps  # noqa: SLF001
        self._reply_sid = b""
        self._on_reply: OnReply
        self._on_stored: OnStored
        self._stored = re.compile(b"(?!)").match
        self._chunks: list[bytes] = []
        """The beginning of something whose end has not come."""
        self._missing = 0
        """So many bytes at least have to come before it is worth another look."""
        self._resets = 0

    def expect_replies(self, inbox: str, sid: int, on_reply: OnReply, on_stored: OnStored) -> None:
        """Hand over what comes for the subscription ``sid`` on ``<inbox>.*``, plain acks to ``on_stored``."""
        self._reply_sid = b"%d" % sid
        self._on_reply, self._on_stored = on_reply, on_stored
        self._stored = re.compile(STORED % (re.escape(inbox.encode()), self._reply_sid)).match

    def reset(self) -> None:
        """Forget what has come: the connection is another."""
        self._theirs.reset()
        self._chunks.clear()
        self._resets += 1

    async def parse(self, data: bytes = b"") -> None:
        """Take the next bytes off the connection, and hand over all that is complete.

        Raises nats.errors.ProtocolError for what no server sends.
        """
        if self._chunks:
            self._chunks.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        at, resets = 0, self._resets
        while at < len(data):
            if not self._theirs.buf and self._theirs.state == AWAITING_CONTROL_LINE:
                at = self._take_messages(data, at)
            if at < len(data):
                at = await self._leave_to_them(data, at)
                if self._resets != resets:
                    return  # what is left belongs to a connection that is gone

    def _take_messages(self, data: bytes, at: int) -> int:
        """Hand over the messages from ``at`` on, and answer where something stands that is not for us.

        What is not complete yet is put aside.
        """
        end, subscriptions = len(data), self.nc._subs  # noqa: SLF001
        match = self._stored
        while at < end:
            stored = match(data, at)
            if stored is not None:
                subject, told, ack, sequence = stored.groups()
                if int(told) == len(ack):
                    self._on_stored(subject, sequence)
                    at = stored.end()
                    continue
            line_end = data.find(CRLF, at)
            if line_end < 0:
                return at if end - at > MAX_CONTROL_LINE_SIZE else self._put_aside(data, at, 1)
            line = _read_line(data, at, line_end)
            if line is None:
                return at
            subject, sid, reply, head_size, size = line
            begin = line_end + 2
            after = begin + size + 2
            if after > end:
                return self._put_aside(data, at, after - end)
            body = begin + head_size
            if sid == self._reply_sid:
                self._on_reply(subject, data[body : after - 2], data[begin:body])
            else:
                subscription = subscriptions.get(int(sid))
                if subscription is not None:
                    queue = subscription._pending_queue  # noqa: SLF001
                    if type(queue) is not Direct:
                        return at
                    queue.hand_over(
                        Message(_text(subject), _text(reply), data[body : after - 2], data[begin:body])
                    )
            at = after
        return at

    def _put_aside(self, data: bytes, at: int, missing: int) -> int:
        self._chunks.append(data[at:])
        self._missing = missing
        return len(data)

    async def _leave_to_them(self, data: bytes, at: int) -> int:
        """Give nats-py's parser what it waits for, and no more: a line, or the rest of a message."""
        theirs = self._theirs
        if theirs.state == AWAITING_CONTROL_LINE:
            line_end = data.find(CRLF, at)
            after = len(data) if line_end < 0 else line_end + 2
        else:
            after = min(len(data), at + theirs.needed + 2 - len(theirs.buf))
        await theirs.parse(data[at:after])
        return after


def _read_line(data: bytes, at: int, line_end: int) -> tuple[bytes, bytes, bytes, int, int] | None:
    """What a message's line says: subject, subscription, reply, size of the header block, and of it all.

    None for another line, and for one that is not as the server writes it.
    """
    if data.startswith(b"MSG ", at):
        fields = data[at + 4 : line_end].split()
        head = b"0"
    elif data.startswith(b"HMSG ", at):
        fields = data[at + 5 : line_end].split()
        head = fields.pop(-2) if len(fields) > 3 else b""
    else:
        return None
    if len(fields) == 3:
        subject, sid, size = fields
        reply = b""
    elif len(fields) == 4:
        subject, sid, reply, size = fields
    else:
        return None
    if not (sid.isdigit() and head.isdigit() and size.isdigit() and int(head) <= int(size)):
        return None
    if not data[line_end - 1 : line_end].isdigit() or data.find(b"\n", at, line_end) >= 0:
        return None  # it ends in white space, or is more than one line
    return subject, sid, reply, int(head), int(size)


def _text(subject: bytes) -> str:
    # Nobody may publish in other encodings to us, and who does must not break the read loop.
    return subject.decode(errors="replace")
