"""Alarms, rung by the clock: what the server's message schedules do."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import NamedTuple

from wpa.ports.clock import Clock

__all__ = ["Schedules"]


class _Entry(NamedTuple):
    """What is kept under one (tenant, name)."""

    number: int
    body: bytes
    headers: dict[str, str]


class Schedules:
    """One entry for each (tenant, name); ``ring`` is called with (tenant, body, headers) when it is due."""

    def __init__(self, clock: Clock, ring: Callable[[str, bytes, dict[str, str]], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._due: list[tuple[int, int, tuple[str, str]]] = []
        """A heap of (moment, number, key). Whose number is not the entry's was replaced, or cleared."""
        self._counter = 0
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_at = 0

    def set(self, tenant: str, name: str, at_ms: int, body: bytes, headers: dict[str, str]) -> None:
        """Ring once at ``at_ms``, or at the loop's next turn where that has passed."""
        self._put((tenant, name), at_ms, _Entry(self._number(), body, headers))

    def clear(self, tenant: str, name: str) -> None:
        self._entries.pop((tenant, name), None)

    @property
    def next_ms(self) -> int | None:
        """When the next alarm is due; None: none is set."""
        while self._due and not self._is_current(self._due[0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    @property
    def has_alarms(self) -> bool:
        """Whether anything but a workflow's schedule is to ring: those set the next alarm for ever."""
        return any(not name.endswith(".schedule") for _, name in self._entries)

    def _is_current(self, due: tuple[int, int, tuple[str, str]]) -> bool:
        """Whether what was to ring has not been replaced, or cleared, since."""
        _, number, key = due
        entry = self._entries.get(key)
        return entry is not None and entry.number == number

    def _number(self) -> int:
        self._counter += 1
        return self._counter

    def _put(self, key: tuple[str, str], at_ms: int, entry: _Entry) -> None:
        self._entries[key] = entry
        heapq.heappush(self._due, (at_ms, entry.number, key))
        self._set_alarm()

    def _set_alarm(self) -> None:
        if not self._due:
            return
        at_ms = self._due[0][0]
        if self._alarm is not None:
            if self._alarm_at <= at_ms:
                return  # should it wake too early, it is set again
            self._alarm.cancel()
        self._alarm_at = at_ms
        self._alarm = asyncio.ensure_future(self._wake())

    async def _wake(self) -> None:
        await self._clock.sleep((self._alarm_at - self._clock.now_ms()) / 1_000)
        self._alarm = None
        now = self._clock.now_ms()
        while self._due and self._due[0][0] <= now:
            _, number, key = heapq.heappop(self._due)
            entry = self._entries.get(key)
            if entry is None or entry.number != number:
                continue
            del self._entries[key]
            self._ring(key[0], entry.body, entry.headers)
        self._set_alarm()
