"""What keeps the server of ``wpa dev`` and ``wpa server`` serving: after its death, and after a full disk."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

from wpa.cli.common import err, shown
from wpa.errors import PlatformError

__all__ = ["keep_alive", "keep_writable"]

RESTART_FIRST_S, RESTART_MAX_S, RESTART_FORGET_S = 0.2, 5.0, 60.0
LOOK_EVERY_S: Final = 2.0
FULL: Final = ("no space left", "disk quota exceeded")
"""Write errors that end when somebody makes room."""


class Server(Protocol):
    """What is asked of :class:`wpa.adapters.nats.server.EmbeddedServer`."""

    async def wait(self) -> int: ...
    async def restart(self) -> None: ...
    async def end(self) -> None: ...
    async def write_error(self) -> str: ...
    def lacks_room(self) -> str: ...


async def keep_alive(server: Server, stop: asyncio.Event) -> None:
    """Start the server again whenever it has ended, until ``stop``."""
    delay = RESTART_FIRST_S
    while True:
        began = time.monotonic()
        status = await server.wait()
        if stop.is_set():
            return
        if time.monotonic() - began > RESTART_FORGET_S:
            delay = RESTART_FIRST_S
        err.print(f"[red]the NATS server ended (exit status {status}); starting it again[/]")
        await asyncio.sleep(delay)
        delay = min(delay * 2, RESTART_MAX_S)
        try:
            await server.restart()
        except PlatformError as error:
            err.print(f"[red]{shown(str(error))}[/]", soft_wrap=True)


async def keep_writable(server: Server) -> None:
    """Tell of a server that can't write; end one whose disk was full, as soon as there is room again.

    :func:`keep_alive` starts it again then, and only that helps: it remembers a failed write while it runs.
    """
    told = ""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        error = await server.write_error()
        full = any(reason in error for reason in FULL)
        lacking = server.lacks_room()
        if error and error != told:
            _tell(error, lacking, full=full)
        told = error
        if full and not lacking:
            await server.end()


def _tell(error: str, lacking: str, *, full: bool) -> None:
    """What is wrong, what it means, and what to do."""
    if not full:
        todo = "see to the disk, then stop this command and start it again"
    elif lacking:
        todo = f"{lacking}; the server is started again by itself then"
    else:
        todo = "there is room by now, and the server is started again"
    err.print(
        f"[red]the NATS server can't write:[/] {shown(error)}; it stores nothing more there until it is "
        f"started again (what it has acknowledged is safe): {shown(todo)}",
        soft_wrap=True,
    )
