"""nats-py's client, made to come back where a server refuses it.

nats-py tries for ever to reconnect to a server that went away, but closes for good when the server itself
says why it ends a connection: the password has changed, the credentials' time is over, there are too many
connections. Here the one is done like the other, with the credentials read anew at each try.

A subscription that a server ends, or refuses, since the user's permissions have been narrowed is asked for
again until they are given back: nats-py leaves it, and would be deaf on it up to the next reconnect.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import Any, Final

import nats.errors
from nats.aio.client import Client

__all__ = ["NOT_PERMITTED", "Connection", "NotLetIn", "barrier", "without_password"]

REFUSED_WAIT_S: Final = 2.0
"""Between two tries at a server that refuses us, which logs each of them."""
TELL_EVERY_S: Final = 30.0
LISTEN_AGAIN_S: Final = 1.0
"""Until a subscription that was not permitted is asked for again; twice as long after each try in vain."""
LISTEN_AGAIN_MAX_S: Final = 15.0
NOT_PERMITTED: Final = "permissions violation"
"""What the server says of one subject; it does not end the connection."""

# What nats-py makes of the server's "-ERR".
_SAID = re.compile(r"nats: '(.*)'\s*", re.DOTALL)
# In small letters, as all that nats-py's parser hands over.
_SUBSCRIPTION = re.compile(r'permissions violation for subscription to "([^"]*)"')
# Up to the last @ of each server: there is nothing that no password has in it.
_SECRET = re.compile(r"(?:(?<=://)|^(?!\s*\w+://))(?:(?!,\s*\w+://).)*@")
_CREDENTIALS = re.compile(r"authoriz|authentic|credentials", re.IGNORECASE)

log = logging.getLogger("wpa.nats")


class NotLetIn(nats.errors.Error):
    """The server refuses a connection, in its own words; or there are no credentials to show it."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.about_credentials = bool(_CREDENTIALS.search(words))


def without_password(url: str) -> str:
    """A server's URL, or those of several, as it may be shown: without user, password or token."""
    return _SECRET.sub("", url)


async def barrier(nc: Client) -> None:
    """Return once the server has all that was sent before on this connection, the subscriptions, too.

    nats-py's own flush puts its PING ahead of what still waits to be written, so that its PONG says nothing
    about that. But what waits is written while the PONG is on its way, and so the second PING goes behind it.
    Raises nats.errors.Error, or OSError, where the connection is closed, or there is no answer.
    """
    await nc.flush()
    await nc.flush()


class Connection(Client):
    """Belongs to the running event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.refusal = ""
        """Why a server did not let us in when it was last asked to; "" since one has."""
        self.lapses = 0
        """Counts up when it may have missed what came before: made anew, or listening again."""
        self._was_in = False
        self._usual_wait_s = 0.0
        self._told_at = float("-inf")
        self._deaf: set[int] = set()
        """Subscriptions (sid) that the server does not permit, as far as we know."""
        self._still_deaf: set[int] = set()
        """Those of them that it has refused since they were last asked for."""
        self._listening: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Of the server that it is, or was, or would be, connected to; without user and password."""
        server = self._current_server
        return server.uri.netloc.rpartition("@")[2] if server is not None else "?"

    async def connect(self, *arguments: Any, **options: Any) -> None:
        """See :meth:`nats.aio.client.Client.connect`."""
        self._usual_wait_s = options.get("reconnect_time_wait", self._usual_wait_s)
        await super().connect(*arguments, **options)

    async def close(self) -> None:
        """Close it for good. What is still to be sent is sent first, if it can be."""
        if self._listening is not None:
            self._listening.cancel()
        if not self.is_connected:
            self._pending, self._pending_data_size = [], 0
        try:
            await super().close()
        except OSError as error:
            log.debug("the connection was lost while it was closed: %s", error)

    async def _process_err(self, err_msg: str) -> None:
        """The server says something before it ends the connection, or of what it did not do.

        If it ends it, the read loop meets that next, and reconnects.
        """
        words = err_msg.strip("'")
        subscription = _SUBSCRIPTION.match(words)
        if subscription is not None and not self._is_news(subscription[1]):
            return
        self._err = nats.errors.Error(f"nats: {words}")
        if NOT_PERMITTED not in words:
            log.warning("the NATS server ends the connection: %s", words)
        await self._error_cb(self._err)

    def _is_news(self, subject: str) -> bool:
        """Take note of what the server does not let us listen on; False where it has been told before."""
        refused = {sid for sid, sub in self._subs.items() if sub.subject.lower() == subject}
        new = refused - self._deaf
        self._deaf |= refused
        self._still_deaf |= refused
        if new and new == refused:
            log.warning(
                "the NATS server does not permit us to listen on %s; asked for again every %g s, or sooner",
                self._subs[min(new)].subject,
                LISTEN_AGAIN_MAX_S,
            )
        if new and (self._listening is None or self._listening.done()):
            self._listening = asyncio.create_task(self._listen_again(), name="wpa-listen-again")
        return bool(new) or not refused

    async def _listen_again(self) -> None:
        wait_s = LISTEN_AGAIN_S
        while self._deaf and not self.is_closed:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LISTEN_AGAIN_MAX_S)
            self._deaf &= self._subs.keys()  # but for those that nobody wants any more
            if self._deaf and self.is_connected:
                await self._ask_for_the_deaf()

    async def _ask_for_the_deaf(self) -> None:
        """Send their SUB again, which does nothing where the server has it, and see which it refuses."""
        asked = set(self._deaf)
        self._still_deaf = set()
        self.lapses += 1
        try:
            for sid in sorted(asked):
                if (wanted := self._subs.get(sid)) is not None:
                    await self._send_subscribe(wanted)
            await barrier(self)
        except (nats.errors.Error, OSError) as error:
            log.debug("asking for subscriptions again: %s", error or type(error).__name__)
            return
        mended = self._subs.keys() & asked - self._still_deaf
        self._deaf &= self._still_deaf
        if not mended:
            return
        subjects = sorted({self._subs[sid].subject for sid in mended})
        log.warning("the NATS server permits us to listen again on %s", ", ".join(subjects))
        if self._reconnected_cb is not None:
            await self._reconnected_cb()  # what came in between is lost, as while a connection is down

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        except Exception as error:
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]  # nats-py would leave it to the garbage collector
            said = _SAID.fullmatch(str(error))
            if said is not None:
                error = NotLetIn(said[1])
            if isinstance(error, NotLetIn):
                self._refused(error)
            raise error
        self.lapses += self._was_in
        self._was_in = True
        self.refusal = ""
        self._told_at = float("-inf")
        self.options["reconnect_time_wait"] = self._usual_wait_s

    def _connect_command(self) -> bytes:
        try:
            return super()._connect_command()
        except Exception as error:
            # The file of the credentials is away, or half written: nats-py would give up for good.
            raise NotLetIn(f"the credentials can't be used: {error or type(error).__name__}") from error

    def _refused(self, error: NotLetIn) -> None:
        self.refusal = str(error)
        self.options["reconnect_time_wait"] = REFUSED_WAIT_S
        now = time.monotonic()
        if not self._was_in or now - self._told_at < TELL_EVERY_S:
            return  # who connects for the first time is told by an exception
        self._told_at = now
        hint = (
            "; a credentials file (WPA_NATS_CREDS) is read anew at each try, "
            "but what has the password in its URL has to be restarted with the new one"
        )
        log.warning(
            "the NATS server at %s does not let us in: %s; tried again every %g s%s",
            self.address,
            error,
            REFUSED_WAIT_S,
            hint if error.about_credentials else "",
        )
