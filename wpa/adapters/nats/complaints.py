"""What is said of writes that fail: a line every few seconds, however many they are; and why, where it shows.

A nats-server whose disk is full says so in its log only. To whoever writes, it answers nothing: for each
stream from its first failed write until the server is started again, whatever room there is by then. All else
it answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from wpa.adapters.nats.answers import NoAnswer
from wpa.adapters.nats.wire_parser import Message
from wpa.errors import Unavailable

__all__ = ["Complaints"]

WARN_EVERY_S: Final = 5.0
LOOK_WITHIN_S: Final = 2.0

log = logging.getLogger("wpa.nats")


class _Names(msgspec.Struct):
    streams: list[str] | None = None


class _Info(msgspec.Struct):
    config: dict[str, object] | None = None


class Complaints:
    """Belongs to the running event loop.

    Args:
        request: asks the server. Raises Unavailable.
    """

    def __init__(self, request: Callable[[str, bytes], Awaitable[Message]]) -> None:
        self._request = request
        self._clock = asyncio.get_running_loop().time
        self._warned_at = float("-inf")
        self._unwarned = 0
        self._looking: asyncio.Task[None] | None = None

    def failed(self, subject: str, error: Unavailable) -> None:
        """A write on a subject failed, and is going to be tried again."""
        self._unwarned += 1
        now = self._clock()
        if now - self._warned_at < WARN_EVERY_S:
            return
        count, self._unwarned, self._warned_at = self._unwarned, 0, now
        if isinstance(error, NoAnswer):
            self._looking = asyncio.create_task(self._look(subject, error, count), name="wpa-look-why")
        else:
            _warn(count, str(error))

    def close(self) -> None:
        """Look for no reasons any more: what still fails is told of without one, or not at all."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self, subject: str, error: NoAnswer, count: int) -> None:
        """Warn of a write that nobody has answered; say so where all but the stream does answer."""
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                stream = await self._stream_of(subject)
        except (Unavailable, TimeoutError, msgspec.DecodeError):
            stream = ""
        why = (
            f"; the stream {stream} takes no writes, though its server answers: either its disk is full "
            "(its log and its /healthz then say 'write error'): make room there, then restart it, for it "
            "takes none before; or one of its nodes stood still, which passes by itself; or too few of them "
            "are up"
        )
        _warn(count, f"{error}{why if stream else ''}")

    async def _stream_of(self, subject: str) -> str:
        """The stream that takes a subject, if its leader answers; "" if none does."""
        body = msgspec.json.encode({"subject": subject})
        names = msgspec.json.decode((await self._request("$JS.API.STREAM.NAMES", body)).data, type=_Names)
        for stream in names.streams or ():
            info = await self._request(f"$JS.API.STREAM.INFO.{stream}", b"")
            if msgspec.json.decode(info.data, type=_Info).config is not None:
                return stream
        return ""


def _warn(count: int, why: str) -> None:
    log.warning("writes fail and are tried again (%d so far): %s", count, why)
