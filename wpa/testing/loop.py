"""An event loop whose time passes only when it is told to.

Everything on it that waits (``asyncio.sleep``, time-outs, ``call_later``) waits for the loop's own time. So
the engine runs here unchanged, and a day takes as long as what happens in it. :meth:`VirtualLoop.idle` tells
exactly when all that can run at one moment has run: when the loop has nothing left to do but wait.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any, Final, TypeVar

__all__ = ["LoopClock", "VirtualLoop"]

_NS: Final = 1_000_000_000
RESOLUTION_S: Final = 1e-6
WATCHED_EVERY: Final = 2_000
"""Turns of the loop."""

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Tells the loop when it is about to wait, and for how long, instead of waiting."""

    def __init__(self, on_turn: Callable[[], None], before_waiting: Callable[[float | None], bool]) -> None:
        super().__init__()
        self._on_turn = on_turn
        self._before_waiting = before_waiting

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._on_turn()
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0) or self._before_waiting(timeout):
            return ready
        return super().select(None)


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module. Time stands still while a call to a thread (``asyncio.to_thread``) is under way."""

    def __init__(self) -> None:
        super().__init__(_Selector(self._on_turn, self._before_waiting))
        # asyncio's own, a nanosecond, is less than the step from one float to the next after three months:
        # what is due would then never be found to be. This one is good for a hundred years.
        self._clock_resolution = RESOLUTION_S
        self.watchdog: Callable[[], None] | None = None
        """Called now and then while the loop is busy at one moment; what it raises stops the loop."""
        self._turns = 0
        self._now_ns = 0
        self._next_s: float | None = None
        self._idle: asyncio.Future[None] | None = None
        self._in_threads = 0

    def time(self) -> float:
        return self._now_ns / _NS

    @property
    def now_ns(self) -> int:
        """The loop's time in nanoseconds; it began at 0."""
        return self._now_ns

    @property
    def next_ns(self) -> int | None:
        """When the first of what waits for its time is due, as :meth:`idle` found it; None: nothing does."""
        return None if self._next_s is None else self._now_ns + max(1, round(self._next_s * _NS))

    async def idle(self) -> None:
        """Return when all that can run at this moment has run. One caller at a time."""
        self._idle = self.create_future()
        await self._idle

    def advance_to(self, moment_ns: int) -> None:
        """Let time pass at once; what was due on the way runs late. Never goes back."""
        self._now_ns = max(self._now_ns, moment_ns)
        self._next_s = None

    def run_in_executor(  # type: ignore[override]  # the same, without the arguments' types
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._in_threads += 1
        future.add_done_callback(self._left_thread)
        return future

    def _left_thread(self, future: asyncio.Future[Any]) -> None:
        self._in_threads -= 1

    def _on_turn(self) -> None:
        self._turns += 1
        if self._turns >= WATCHED_EVERY:
            self._turns = 0
            if self.watchdog is not None:
                self.watchdog()

    def _before_waiting(self, timeout: float | None) -> bool:
        """Nothing is ready. Whether somebody was told, and is ready now; False: really wait, for a thread."""
        if self._in_threads:
            return False
        if self._idle is None or self._idle.done():
            raise RuntimeError("the virtual loop waits, but nobody is there to let its time pass")
        self._next_s = timeout
        self._idle.set_result(None)
        return True


class LoopClock:
    """See :class:`wpa.ports.clock.Clock`: the loop's time, as it would be read in a world of its own."""

    def __init__(self, loop: VirtualLoop, epoch_ms: int) -> None:
        self._loop = loop
        self._epoch_ms = epoch_ms

    def now_ms(self) -> int:
        return self._epoch_ms + self._loop.now_ns // 1_000_000

    def monotonic_s(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def ns_of(self, at_ms: int) -> int:
        """The loop's time, in nanoseconds, at a moment in milliseconds since the Unix epoch."""
        return (at_ms - self._epoch_ms) * 1_000_000
