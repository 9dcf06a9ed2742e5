"""Getting a connection: told at once where nobody listens, or where we are not let in."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import nats.errors

from wpa.connection import Connection, NotLetIn, barrier, without_password
from wpa.errors import Unavailable

__all__ = ["connect", "flush"]

WITHIN_S: Final = 10.0
TRIES: Final = 3


async def connect(url: str, *, creds: Path | None = None) -> Connection:
    """Connect to one of the servers in ``url``, separated by commas; reconnects by itself for ever, with
    the credentials as they are then.

    Raises Unavailable where no server answers, or where it refuses us.
    """
    refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def on_error(error: Exception) -> None:
        """Errors of the connection come back from the calls that they concern, but for a refusal:
        nats-py, told to reconnect for ever, would knock at a closed door for ever."""
        if not refused.done() and isinstance(error, NotLetIn):
            refused.set_result(str(error))

    for tried in range(TRIES):
        if await _reachable(url):
            break
        # It may be starting, or starting again.
        await asyncio.sleep(0.3 * (tried + 1))
    else:
        raise Unavailable(
            f"no NATS server answers at {without_password(url)}; "
            "start one with `wpa dev`, or name it with --nats URL"
        )
    options: dict[str, Any] = {"user_credentials": str(creds)} if creds else {}
    connection = Connection()
    connecting = asyncio.ensure_future(
        connection.connect(
            [server.strip() for server in url.split(",")],
            name="wpa client",
            connect_timeout=3,
            error_cb=on_error,
            reconnect_time_wait=0.2,
            max_reconnect_attempts=-1,
            allow_reconnect=True,
            **options,
        )
    )
    either: set[asyncio.Future[Any]] = {connecting, refused}
    try:
        await asyncio.wait(either, timeout=WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            why = refused.result() if refused.done() else f"no answer within {WITHIN_S:g} s"
            raise Unavailable(f"the NATS server at {without_password(url)} does not let us in: {why}")
        connecting.result()
        return connection
    except (OSError, TimeoutError, ValueError, nats.errors.Error) as error:
        why = str(error) or type(error).__name__
        raise Unavailable(f"can't connect to {without_password(url)}: {why}") from error
    finally:
        connecting.cancel()


async def flush(nc: Connection) -> None:
    """See :func:`wpa.connection.barrier`. Raises Unavailable where it raises."""
    try:
        await barrier(nc)
    except (nats.errors.Error, OSError) as error:
        raise Unavailable(f"the NATS server does not answer: {error or type(error).__name__}") from error


async def _reachable(url: str) -> bool:
    """Whether anything listens at one of the URL's servers: nats-py retries for long before it says no."""
    for part in url.split(","):
        if part.strip().startswith(("ws://", "wss://")):
            return True  # the port may be implied; nats-py will see
        address = part.strip().rpartition("@")[2].removeprefix("nats://").removeprefix("tls://").rstrip("/")
        host, _, port = address.rpartition(":") if ":" in address else (address, "", "4222")
        try:
            async with asyncio.timeout(3):
                _, writer = await asyncio.open_connection(host.strip("[]") or "127.0.0.1", int(port))
        except (OSError, TimeoutError, ValueError, OverflowError):
            continue
        writer.close()
        return True
    return False
