"""A TCP proxy between a worker and its server, for all that networks do.

It forwards until it is told otherwise. Every fault ends with :meth:`Proxy.heal`, or by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Self

CHUNK = 64 * 1024


class Proxy:
    """One listening port, any number of connections.

    Args:
        target: the server's port on loopback.
        seed: of the delays.
    """

    def __init__(self, target: int, seed: int = 0) -> None:
        self._target = target
        self._chance = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = {"up": asyncio.Event(), "down": asyncio.Event()}
        """Which ways let bytes pass: up to the server, down to the client."""
        self._refusing = False
        self.delay_s = 0.0
        """The longest delay of a chunk, in seconds."""
        self.port = 0
        self.heal()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    # -- faults ------------------------------------------------------------------------------

    def heal(self) -> None:
        """Forward everything, at once."""
        self._refusing, self.delay_s = False, 0.0
        for way in self._open.values():
            way.set()

    def cut(self) -> None:
        """Close every connection; new ones are welcome."""
        for pipe in list(self._pipes):
            pipe.transport.abort()

    def refuse(self) -> None:
        """Close every connection, and each new one."""
        self._refusing = True
        self.cut()

    def half_open(self) -> None:
        """Say nothing any more, either way, and close nothing: a cable that was pulled."""
        for way in self._open.values():
            way.clear()

    def drop_replies(self) -> None:
        """What is sent arrives; the answers never do. Ends with the connections: cut."""
        self._open["down"].clear()

    # -- forwarding --------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._pipes |= {writer, up_writer}
        for way, source, sink in (("up", reader, up_writer), ("down", up_reader, writer)):
            task = asyncio.create_task(self._forward(way, source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, way: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await source.read(CHUNK):
                if self.delay_s:
                    await asyncio.sleep(self._chance.random() * self.delay_s)
                await self._open[way].wait()
                sink.write(data)
                await sink.drain()
        self._pipes.discard(sink)
        sink.transport.abort()
