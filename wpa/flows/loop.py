"""The deterministic event loop: asyncio over slots.

It waits for nothing real. :meth:`FlowLoop.turn` runs every callback that is ready, in the order in which they
became ready, and comes back; only a settled slot makes more of them ready. Timers are slots, time is the
moment of the last settlement, so a flow does the same things in the same order whenever it is run over the
same settlements.

Things that asyncio leaves to chance are fixed here: task names count from 1 in each run; tasks hash by their
number, so that the sets of tasks that ``asyncio.wait`` returns iterate alike in each replay; tasks are kept
alive until they are done; the garbage collector, which may run other people's finalizers, rests during a
turn.

A turn happens nested in a task of the host's loop (asyncio's or uvloop's): for its duration this loop is the
thread's running loop and no task of the host's is the current one.

Nothing here can interrupt code that never awaits: an endless loop in a flow stops the worker that runs it.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import random
import sys
from asyncio import AbstractEventLoop, Future, Handle, TimerHandle
from asyncio import _get_running_loop as running_loop
from asyncio import _set_running_loop as set_running_loop
from asyncio.tasks import _enter_task as enter_task
from asyncio.tasks import _leave_task as leave_task
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Final, NoReturn, TypeVar, TypeVarTuple

from wpa.flows.errors import Discarded, NotDeterministic, NotInFlow
from wpa.flows.ledger import Ledger, Slot
from wpa.flows.sites import current_site, suspended_site
from wpa.kernel.program import Settled, Wait
from wpa.model.steptype import StepSignature

__all__ = ["FlowLoop", "FlowTask", "Signatures", "current", "refusal", "running_flow"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
L = TypeVar("L", bound=AbstractEventLoop)

Signatures = Callable[[str], StepSignature | None]
"""Finds the signature of a step type by its name; None where it is not known."""

NEVER_S: Final = 100 * 366 * 86_400.0
"""A delay longer than a century is one that never ends."""

CLOSING_TRIES: Final = 100
"""How often a coroutine that is thrown away may await once more in its ``finally`` blocks."""

SWEEP_TASKS: Final = 64

log = logging.getLogger("wpa.flows")


def refusal(site: str, does: str) -> NotDeterministic:
    """The error for what a flow may not do: ``does`` reads as in "opens a file (open)"."""
    return NotDeterministic(
        f"{site}: the flow {does}. A flow is run again from its journal and may only await its own calls, "
        'timers and signals; move this into a step (a function with @step("<plugin>.<verb>")) and write '
        'await call("<plugin>.<verb>", ...) in its place'
    )


class Guarded(Coroutine[Any, Any, Any]):
    """A coroutine that may only await what belongs to its own loop."""

    __slots__ = ("__name__", "__qualname__", "_coro", "_loop")

    def __init__(self, coro: Coroutine[Any, Any, Any], loop: FlowLoop) -> None:
        self._coro = coro
        self._loop = loop
        self.__name__: str = getattr(coro, "__name__", type(coro).__name__)
        self.__qualname__: str = getattr(coro, "__qualname__", self.__name__)

    def send(self, value: Any) -> Any:
        return self._ours(self._coro.send(value))

    def throw(self, *error: Any) -> Any:
        return self._ours(self._coro.throw(*error))

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coro.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coro, name)  # cr_frame, cr_await ...: what tracebacks and debuggers look at

    def _ours(self, awaited: Any) -> Any:
        while awaited is not None:
            try:
                if awaited.get_loop() is self._loop:
                    return awaited
                awaited._asyncio_future_blocking = False  # noqa: SLF001  as if nobody had awaited it
            except AttributeError:
                pass
            site = suspended_site(self._coro, self._loop.root)
            does = f"awaits what no slot settles ({type(awaited).__module__}.{type(awaited).__qualname__})"
            awaited = self._coro.throw(refusal(site, does))
        return None

    def discard(self) -> None:
        """End the coroutine without letting it wait for anything any more."""
        for _ in range(CLOSING_TRIES):
            try:
                self._coro.throw(Discarded())
            except KeyboardInterrupt:
                raise
            except BaseException:
                return
        log.warning("%s goes on awaiting though its run is over; it is left behind", self.__qualname__)


class FlowTask(asyncio.Task[T]):
    """A task whose place in a set is the same in each replay of an execution."""

    def __init__(self, coro: Guarded, order: int, **options: Any) -> None:
        self._order = order
        super().__init__(coro, **options)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._order


class SlotTimer(TimerHandle):
    """A call that a timer slot makes due."""

    __slots__ = ("slot",)

    slot: Slot | None


def _refusing(cls: type[L]) -> type[L]:
    """Have a loop refuse all that an event loop can do and it does not define."""
    for name in dir(AbstractEventLoop):
        if not name.startswith("_") and name not in vars(cls):
            setattr(cls, name, _refused(name))
    return cls


def _refused(name: str) -> Callable[..., NoReturn]:
    def refuse(self: FlowLoop, *args: Any, **options: Any) -> NoReturn:
        raise refusal(current_site(self.root), f"asks its event loop for {name}()")

    refuse.__name__ = name
    return refuse


@_refusing
class FlowLoop(AbstractEventLoop):
    """See the module.

    Args:
        ledger: where timers become slots.
        started_ms: the time until the first settlement, in milliseconds since the Unix epoch.
        root: the package that the flow's code belongs to; errors name lines in it.
        signatures: finds a step type's signature by its name; None where none is known.
    """

    def __init__(
        self, ledger: Ledger, started_ms: int, root: str, signatures: Signatures | None = None
    ) -> None:
        self.ledger = ledger
        self.root = root
        self.signatures = signatures
        self.now_ms = started_ms
        self.discarded = False
        self._ready: deque[Handle] = deque()
        self._tasks: list[FlowTask[Any]] = []
        self._sweep_at = SWEEP_TASKS
        self._task_count = 0
        self._seed = ledger.info.seed or ledger.info.id
        # Two executions' tasks meet in asyncio's own sets: their hashes have to differ, and to be repeatable.
        digest = hashlib.blake2b(self._seed.encode(), digest_size=6).digest()
        self._order_base = int.from_bytes(digest, "big") << 12
        self._random: random.Random | None = None

    # -- running -----------------------------------------------------------------------------

    def turn(self) -> None:
        """Run what is ready, and what that makes ready, until nothing is. Raises KeyboardInterrupt only."""
        self._inside(self._run_ready)

    def discard(self) -> None:
        """Throw the run away. Suspended coroutines get :class:`Discarded`; their ``finally`` blocks run, but
        whatever they await there ends at once, and nothing they ask for is asked."""
        if not self.discarded:
            self.discarded = self.ledger.closed = True
            self._inside(self._discard_tasks)

    def advance_clock(self, now_ms: int) -> None:
        """It is ``now_ms``, since the Unix epoch. Time never goes back, though workers' clocks differ."""
        self.now_ms = max(self.now_ms, now_ms)

    def _inside(self, act: Callable[[], None]) -> None:
        host = running_loop()
        host_task = asyncio.current_task(host) if host is not None else None
        hooks = sys.get_asyncgen_hooks()
        collecting = gc.isenabled()
        if host is not None and host_task is not None:
            leave_task(host, host_task)
        set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._finalize)
        gc.disable()
        try:
            act()
        finally:
            if collecting:
                gc.enable()
            sys.set_asyncgen_hooks(*hooks)
            set_running_loop(host)
            if host is not None and host_task is not None:
                enter_task(host, host_task)

    def _run_ready(self) -> None:
        ready = self._ready
        while ready:
            handle = ready.popleft()
            if not handle.cancelled():
                try:
                    handle._run()  # noqa: SLF001  what every event loop calls
                except SystemExit:
                    # The task that raised it holds it: it ends the flow, never the worker.
                    continue

    def _discard_tasks(self) -> None:
        self._ready.clear()
        # What is started by a finally block joins the list while it is being gone through.
        for task in self._tasks:
            if not task.done():
                coro = task.get_coro()
                assert isinstance(coro, Guarded)  # noqa: S101  create_task makes no others
                coro.discard()
        self._ready.clear()
        self._tasks.clear()

    def _finalize(self, generator: AsyncGenerator[Any, Any]) -> None:
        """An asynchronous generator was dropped half-way: let it end as asyncio does, in a task."""
        closing: Any = generator.aclose()
        if self.discarded or running_loop() is not self:
            Guarded(closing, self).discard()
        else:
            self.create_task(closing)

    # -- what asyncio asks of a loop -----------------------------------------------------------

    def time(self) -> float:
        return self.now_ms / 1000

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return running_loop() is self

    def is_closed(self) -> bool:
        return self.discarded

    def create_future(self) -> Future[Any]:
        return Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **options: Any
    ) -> FlowTask[Any]:
        if not asyncio.iscoroutine(coro):
            raise TypeError(f"a coroutine was expected, got {coro!r}")
        self._task_count = count = self._task_count + 1
        if len(self._tasks) >= self._sweep_at and not self.discarded:
            self.sweep()
        order = self._order_base + count
        guarded = coro if isinstance(coro, Guarded) else Guarded(coro, self)
        task: FlowTask[Any] = FlowTask(
            guarded, order, loop=self, name=name or f"Task-{count}", context=context, **options
        )
        self._tasks.append(task)
        return task

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        handle = SlotTimer(self.time() + delay, callback, args, self, context)
        handle.slot = None
        if delay <= 0:
            self._ready.append(handle)
        elif delay < NEVER_S:
            # A thousandth of a millisecond is what sums of floats get wrong, not what anybody meant.
            delay_ms = max(1, -int(-(delay * 1000 - 0.001) // 1))
            slot = self.ledger.open("sleep", "timer", "core.sleep", wait=Wait(delay_ms=delay_ms))
            slot.deliver = lambda _: self._ready.append(handle)
            handle.slot = slot
        elif delay != delay:
            raise ValueError("a delay must be a number of seconds, not NaN")
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        if isinstance(handle, SlotTimer) and handle.slot is not None:
            self.ledger.drop(handle.slot)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.discarded and not self.ledger.replaying:
            log.error("%s: %s", self.ledger.info.id, context["message"], exc_info=context.get("exception"))

    # -- for the flow's own functions ----------------------------------------------------------

    async def settled(self, slot: Slot) -> Settled:
        """Wait until the slot is settled. Whoever stops waiting for it drops it."""
        future: Future[Settled] = Future(loop=self)
        slot.deliver = future.set_result
        try:
            return await future
        except BaseException:
            self.ledger.drop(slot)
            raise

    @property
    def random(self) -> random.Random:
        """The execution's own generator, seeded when it was started."""
        if self._random is None:
            self._random = random.Random(self._seed)
        return self._random

    def pending(self) -> list[FlowTask[Any]]:
        """The tasks that are not done, oldest first."""
        return [task for task in self._tasks if not task.done()]

    def sweep(self) -> None:
        """Let go of the tasks that are done."""
        self._tasks = self.pending()
        self._sweep_at = max(SWEEP_TASKS, 2 * len(self._tasks))


def running_flow() -> FlowLoop | None:
    """The loop of the flow whose code this thread is running right now, if it is running any."""
    loop = running_loop()
    return loop if isinstance(loop, FlowLoop) else None


def current(what: str) -> FlowLoop:
    """The loop of the flow that is running. Raises NotInFlow, which names ``what``, where none is."""
    loop = running_loop()
    if isinstance(loop, FlowLoop):
        return loop
    raise NotInFlow(
        f"{what} was used where no flow is running; run the flow with wpa.testing, or on a worker"
    )
