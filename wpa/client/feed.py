"""What a subscription to events hears, kept for a reader who may be slow: not too much, and no gap unsaid."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from types import TracebackType
from typing import Any, Final, NamedTuple

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from wpa.client.channel import Body
from wpa.client.connecting import flush
from wpa.connection import Connection

__all__ = ["Feed", "Heard"]

KEPT_BYTES_MAX: Final = 16 * 1024 * 1024
MESSAGE_BYTES: Final = 2_000
"""What a message takes up beside its data, roughly."""


class Heard(NamedTuple):
    """An event as it came."""

    event: Body
    position: int
    """Where in the stream it is stored; 0 for a live one, which is nowhere."""


class Feed:
    """The events on some subjects, from when it is entered on.

    Of what is stored it gives all that comes, in order, up to where something was missed: the connection was
    lost, or the reader so slow that there was no room. What comes after that is not kept before the reader
    calls :meth:`resume`; it is all in the journal, from where it is to be read then. Live events, which are
    stored nowhere, are kept where there is room.
    """

    def __init__(self, connection: Connection, *subjects: str) -> None:
        self._connection = connection
        self._subjects = subjects
        self._subscriptions: list[Subscription] = []
        self._kept: deque[Msg] = deque()
        self._kept_bytes = 0
        self._overflowed = False
        self._lapses = connection.lapses
        self._news = asyncio.Event()

    async def __aenter__(self) -> Feed:
        """Return once the server knows what is listened to. Raises Unavailable."""
        for subject in self._subjects:
            self._subscriptions.append(await self._connection.subscribe(subject, cb=self._take))
        await flush(self._connection)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for subscription in self._subscriptions:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    def resume(self) -> bool:
        """Hear on from now: what was missed before is going to be read from the journal. Was anything?"""
        missed = self._has_gap
        self._overflowed, self._lapses = False, self._connection.lapses
        return missed

    async def next(self, patience_s: float) -> Heard | None:
        """The next event. None where none came for so long, or what comes next was missed."""
        if not self._kept and not self._has_gap:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._news.wait()
        while self._kept:
            message = self._kept.popleft()
            self._kept_bytes -= _size(message)
            with contextlib.suppress(ValueError):  # no event: somebody else publishes here, too
                event = msgspec.json.decode(message.data, type=dict[str, Any])
                return Heard(event, int((message.headers or {}).get("Nats-Sequence", 0)))
        return None

    @property
    def _has_gap(self) -> bool:
        """Whether something was missed behind what is kept."""
        return self._overflowed or self._lapses != self._connection.lapses

    async def _take(self, message: Msg) -> None:
        is_stored = not message.subject.endswith(".live")
        if self._kept_bytes + _size(message) > KEPT_BYTES_MAX:
            self._overflowed |= is_stored
        elif not (is_stored and self._has_gap):
            self._kept.append(message)
            self._kept_bytes += _size(message)
        self._news.set()


def _size(message: Msg) -> int:
    return len(message.data) + MESSAGE_BYTES
