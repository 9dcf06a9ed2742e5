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
import types
from asyncio import events
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Final, TypeVar

__all__ = ["SimClock", "SimLoop"]

NS: Final = 1_000_000_000
CALLS_MAX: Final = 200_000
"""In virtual time, hanging is being busy for ever: a run that makes so many calls comes to no end."""

T = TypeVar("T")


class _Call(list[Any]):
    """A callback and its arguments; nothing, once it is cancelled.

    A run makes hundreds of them. A list is made at C speed, and what asyncio's handles have more than that (a
    context, a record of where they come from) nobody here asks for.
    """

    __slots__ = ()

    def cancel(self) -> None:
        self.clear()


class _Task(asyncio.Task[Any]):
    """A task whose hash is its number: sets of tasks have one order, whatever their addresses are."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], loop: SimLoop, context: Context | None) -> None:
        self._number = next(loop.numbers)
        super().__init__(coroutine, loop=loop, name="sim", context=context)

    def __hash__(self) -> int:
        return self._number


def _end(nap: asyncio.Future[None]) -> None:
    if not nap.done():
        nap.set_result(None)


def _make(done: asyncio.Future[T], func: Callable[..., T], args: tuple[Any, ...]) -> None:
    if done.cancelled():
        return
    try:
        done.set_result(func(*args))
    except Exception as error:
        done.set_exception(error)


class SimLoop(asyncio.AbstractEventLoop):
    """See the module. What drives it is no coroutine: it calls :meth:`run_ready` and :meth:`advance_to`.

    It is the thread's running loop from its making until it is closed. Callbacks share one context: what is
    simulated keeps nothing in context variables, but for flows, whose tasks have contexts of their own.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self.numbers = itertools.count()
        self.troubles: list[str] = []
        """What nobody was there to be told of: errors in callbacks, exceptions that were never looked at."""
        self._ready: list[_Call] = []
        self._timers: list[tuple[int, int, _Call]] = []
        self._tasks: list[_Task] = []
        self._calls_left = CALLS_MAX
        self._closed = False
        events._set_running_loop(self)

    # -- for whoever drives it ---------------------------------------------------------------

    def run_ready(self) -> None:
        """Run all that can run at this moment. Raises AssertionError when that comes to no end."""
        timers = self._timers
        while True:
            while timers and timers[0][0] <= self.now_ns:
                self._ready.append(heapq.heappop(timers)[2])
            ready = self._ready
            if not ready:
                return
            self._ready = []
            self._calls_left -= len(ready)
            assert self._calls_left > 0, "it comes to no end"
            for call in ready:
                if call:
                    callback, arguments = call
                    callback(*arguments)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What ``coroutine`` returns, which waits for nothing; what follows from it at this moment has happened."""
        try:
            while coroutine.send(None) is None:
                pass  # it would give way to others: there are none but those that come next
        except StopIteration as end:
            self.run_ready()
            return end.value  # type: ignore[no-any-return]
        raise AssertionError(f"{coroutine} waits")

    @property
    def next_ns(self) -> int | None:
        """When the first of the timers is due; None: there is none."""
        timers = self._timers
        while timers and not timers[0][2]:  # cancelled
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
    ) -> _Call:
        call = _Call((callback, args))
        self._ready.append(call)
        return call

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Call:
        call = _Call((callback, args))
        # Rounded up, but for the error of the multiplication: nothing is early.
        heapq.heappush(self._timers, (self.now_ns + int(delay * NS + 0.99), next(self.numbers), call))
        return call

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Call:
        return self.call_later(when - self.now_ns / NS, callback, *args)

    @types.coroutine
    def sleep(self, seconds: float) -> Generator[Any, None, None]:
        """As ``asyncio.sleep``, without looking for what is known here."""
        if seconds <= 0:
            yield
            return
        over: asyncio.Future[None] = asyncio.Future(loop=self)
        timer = self.call_later(seconds, _end, over)
        try:
            yield from over
        finally:
            timer.cancel()

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: object = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        task = _Task(coro, self, context)
        self._tasks.append(task)
        return task

    def run_in_executor(  # type: ignore[override]  # the same, without the arguments' types
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """There are no threads: the call is made in one go, when others have had their turn."""
        done: asyncio.Future[T] = asyncio.Future(loop=self)
        self.call_soon(_make, done, func, args)
        return done

    get_debug = staticmethod(bool)
    """No. It is asked for with each future and task; this is an answer without a frame."""

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
        events._set_running_loop(None)
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
        await self._loop.sleep(seconds)

    def ns_of(self, at_ms: int) -> int:
        """The loop's time, in nanoseconds, at a moment in milliseconds since the Unix epoch."""
        return (at_ms - self.epoch_ms) * 1_000_000
