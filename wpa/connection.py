"""nats-py's client, made to come back where a server refuses it.

nats-py tries for ever to reconnect to a server that went away, but closes for good when the server itself
says why it ends a connection: the password has changed, the credentials' time is over, there are too many
connections. Here the one is done like the other, with the credentials read anew at each try.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any, Final

import nats.errors
from nats.aio.client import Client

__all__ = ["Connection", "NotLetIn"]

REFUSED_WAIT_S: Final = 2.0
"""Between two tries at a server that refuses us, which logs each of them."""
TELL_EVERY_S: Final = 30.0
NOT_PERMITTED: Final = "permissions violation"
"""What the server says of one subject; it does not end the connection."""

# What nats-py makes of the server's "-ERR".
_SAID = re.compile(r"nats: '(.*)'\s*", re.DOTALL)
_CREDENTIALS = re.compile(r"authoriz|authentic|credentials", re.IGNORECASE)

log = logging.getLogger("wpa.nats")


class NotLetIn(nats.errors.Error):
    """The server refuses a connection, in its own words; or there are no credentials to show it."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.about_credentials = bool(_CREDENTIALS.search(words))


class Connection(Client):
    """Belongs to the running event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.refusal = ""
        """Why a server did not let us in when it was last asked to; "" since one has."""
        self._was_in = False
        self._usual_wait_s = 0.0
        self._told_at = float("-inf")

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
        self._err = nats.errors.Error(f"nats: {words}")
        if NOT_PERMITTED not in words:
            log.warning("the NATS server ends the connection: %s", words)
        await self._error_cb(self._err)

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
