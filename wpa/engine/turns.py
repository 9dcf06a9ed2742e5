"""Whose turn it is: those who ask something of one execution do so one after the other, within a worker.

Each of them loads the state, decides, and appends by compare-and-set. A thousand at once would all load it
for the one whose append wins, and all over again for the next. In line, each goes on from what the one
before it left. Other workers have lines of their own: what keeps the journal right is the compare-and-set.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from wpa.engine.loading import Loaded

__all__ = ["Line", "Turns"]


class Line:
    """Those who want to ask something of one execution."""

    __slots__ = ("known", "length", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.length = 0
        self.known: Loaded | None = None
        """The execution as the one before left it. Others may have appended since."""

    def take_known(self) -> Loaded | None:
        """What the one before left; its state belongs to whoever takes it."""
        known, self.known = self.known, None
        return known


class Turns:
    """The lines of a worker. A line, and what is known in it, lasts as long as somebody stands in it."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], Line] = {}

    @contextlib.asynccontextmanager
    async def turn(self, tenant: str, execution: str) -> AsyncIterator[Line]:
        """Wait for one's turn, in order of arrival; it ends with the block."""
        key = (tenant, execution)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line()
        line.length += 1
        try:
            async with line.lock:
                yield line
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[key]

    def waited_for(self, tenant: str, execution: str) -> bool:
        """Whether somebody is about to ask something of the execution."""
        return (tenant, execution) in self._lines
