"""A lean event loop whose time passes only when it is told to: no selector, no threads, no signals.

A simulated run is tens of thousands of callbacks and no input or output, so what a general loop does at each
turn (ask the operating system, keep its own record of what it calls) would be most of the run's time. Here,
callbacks run in the order in which they were called for, timers in the order of their moments, and all that
runs at one moment has run before the next one comes. Whatever asyncio offers on top of ``call_soon``,
``call_at`` and futures works as ever; nothing else of a loop is there.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Final, TypeVar

__all__ = ["SimClock", "SimLoop"]

NS: Final = 1_000_000_000
CALLS_MAX: Final = 200_000
"""In virtual time, hanging is being busy for ever: a run that makes so many calls comes to no end."""

T = TypeVar("T")


class _Call(asyncio.Handle):
    """Like its base class, without the record that it keeps for a loop in debug mode."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self._callback, self._args, self._context = callback, args, context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True


class _Timer(asyncio.TimerHandle):
    __slots__ = ()

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context
    ) -> None:
        self._when, self._scheduled = when, True
        self._callback, self._args, self._context = callback, args, context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True


class _Task(asyncio.Task[Any]):
    """A task whose hash is its number: sets of tasks have one order, whatever their addresses are."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], loop: SimLoop, context: Context | None) -> None:
        self._number = next(loop.numbers)
        super().__init__(coroutine, loop=loop, name="sim", context=context)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.AbstractEventLoop):
    """See the module. What drives it is no coroutine: it calls :meth:`run_ready` and :meth:`advance_to`."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.numbers = itertools.count()
        self.troubles: list[str] = []
        """What nobody was there to be told of: errors in callbacks, exceptions that were never looked at."""
        self._ready: deque[_Call | _Timer] = deque()
        self._timers: list[tuple[int, int, _Timer]] = []
        self._tasks: list[_Task] = []
        self._calls_left = CALLS_MAX
        self._closed = False

    # -- for whoever drives it ---------------------------------------------------------------

    def run_ready(self) -> None:
        """Run all that can run at this moment. Raises AssertionError when that comes to no end."""
        ready, timers = self._ready, self._timers
        events._set_running_loop(self)
        try:
            while True:
                while timers and timers[0][0] <= self.now_ns:
                    ready.append(heapq.heappop(timers)[2])
                if not ready:
                    return
                self._calls_left -= len(ready)
                assert self._calls_left > 0, "it comes to no end"
                for _ in range(len(ready)):
                    call = ready.popleft()
                    if not call._cancelled:
                        call._context.run(call._callback, *call._args)
        finally:
            events._set_running_loop(None)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What ``coroutine`` returns, which may wait for others' turns, but not for time to pass."""
        task = self.create_task(coroutine)
        self.run_ready()
        return task.result()

    @property
    def next_ns(self) -> int | None:
        """When the first of the timers is due; None: there is none."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def advance_to(self, moment_ns: int) -> None:
        """Let time pass at once; what was due on the way runs late. Never goes back."""
        self.now_ns = max(self.now_ns, moment_ns)

    @property
    def unfinished(self) -> list[asyncio.Task[Any]]:
        """The tasks that have not ended."""
        return [task for task in self._tasks if not task.done()]

    # -- for asyncio -------------------------------------------------------------------------

    def time(self) -> float:
        return self.now_ns / NS

    def call_soon(  # type: ignore[override]  # the same, without the arguments' types
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        call = _Call(callback, args, context or copy_context())
        self._ready.append(call)
        return call

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now_ns / NS + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, context or copy_context())
        # Rounded up, but for the error of the multiplication: nothing is early.
        heapq.heappush(self._timers, (int(when * NS + 0.99), next(self.numbers), timer))
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: object = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        task = _Task(coro, self, context)
        self._tasks.append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._closed

    def is_closed(self) -> bool:
        return self._closed

    def allow_more(self) -> None:
        """Begin to count the calls anew."""
        self._calls_left = CALLS_MAX // 10

    def close(self) -> None:
        """Forget what has not run."""
        self._closed = True
        self._ready.clear()
        self._timers.clear()
        self._tasks.clear()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.troubles.append(f"{context.get('message')}: {error!r}" if error else str(context["message"]))


class SimClock:
    """See :class:`wpa.ports.clock.Clock`: a clock on a wall, which may be wrong, and may be set.

    Args:
        loop: whose time it shows.
        epoch_ms: what it shows at first, in milliseconds since the Unix epoch.
    """

    def __init__(self, loop: SimLoop, epoch_ms: int) -> None:
        self._loop = loop
        self.epoch_ms = epoch_ms

    def now_ms(self) -> int:
        return self.epoch_ms + self._loop.now_ns // 1_000_000

    def monotonic_s(self) -> float:
        return self._loop.now_ns / NS

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def ns_of(self, at_ms: int) -> int:
        """The loop's time, in nanoseconds, at a moment in milliseconds since the Unix epoch."""
        return (at_ms - self.epoch_ms) * 1_000_000
