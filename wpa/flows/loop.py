"""The deterministic event loop: asyncio over slots.

It waits for nothing real. :meth:`FlowLoop.turn` runs every callback that is ready, in the order in which they
became ready, and comes back; only a settled slot makes more of them ready. Timers are slots, time is the
moment of the last settlement, so a flow does the same things in the same order whenever it is run over the
same settlements.

Things that asyncio leaves to chance are fixed here: task names count from 1 in each run; tasks and futures
have the same order in a set in each replay (:mod:`wpa.flows.tasks`); tasks live until they are done;
the garbage collector, which may run other people's finalizers, rests during a turn.

A turn happens nested in a task of the host's loop (asyncio's or uvloop's): for its duration this loop is the
thread's running loop and no task of the host's is the current one.

Code that never comes to rest is interrupted by another thread: see :mod:`wpa.flows.watchdog`.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import sys
from asyncio import AbstractEventLoop, Future, Handle, TimerHandle
from asyncio import _get_running_loop as running_loop
from asyncio import _set_running_loop as set_running_loop
from asyncio.tasks import _enter_task as enter_task
from asyncio.tasks import _leave_task as leave_task
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextvars import Context
from random import Random
from typing import Any, Final, NoReturn, TypeVar, TypeVarTuple

from wpa.flows.errors import NotInFlow
from wpa.flows.ledger import Ledger, Slot
from wpa.flows.sites import current_site
from wpa.flows.tasks import FlowFuture, FlowTask, Gathering, Guarded, Steadfast, refusal
from wpa.flows.watchdog import Overrun, Turn, watchdog
from wpa.kernel.program import Settled, Wait
from wpa.model.steptype import StepSignature

__all__ = ["FlowLoop", "Signatures", "completed_by", "current", "running_flow"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
L = TypeVar("L", bound=AbstractEventLoop)

Signatures = Callable[[str], StepSignature | None]
"""Finds the signature of a step type by its name; None where it is not known."""

NEVER_S: Final = 100 * 366 * 86_400.0
"""A delay longer than a century is one that never ends."""

SWEEP_TASKS: Final = 64

log = logging.getLogger("wpa.flows")


class SlotTimer(TimerHandle):
    """A call that a timer slot makes due."""

    __slots__ = ("slot",)

    slot: Slot | None
    _loop: FlowLoop

    def due(self, settled: Settled) -> None:
        """The slot is settled: call now."""
        self._loop.ready(self)


def completed_by(slot: Slot) -> Future[Any] | None:
    """The future that settling an open slot completes, if it does that."""
    told = getattr(slot.deliver, "__self__", None)
    if isinstance(told, SlotTimer):
        told = next((given for given in told._args or () if isinstance(given, Future)), None)  # noqa: SLF001
    return told if isinstance(told, Future) else None


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
        self.overrun = ""
        """The line at which a turn was interrupted because it took too long; empty as long as none was."""
        self._turn = Turn(ledger.info.id, root)
        self._ready: deque[Handle] = deque()
        self._tasks: list[FlowTask[Any]] = []
        self._sweep_at = SWEEP_TASKS
        self._task_count = 0
        self._made = 0
        # Two executions' tasks meet in asyncio's own sets: their hashes have to differ, and to be repeatable.
        digest = hashlib.blake2b(ledger.seed.encode(), digest_size=6).digest()
        self._order_base = int.from_bytes(digest, "big") << 12
        self._random: dict[str, Random] = {}

    # -- running -----------------------------------------------------------------------------

    def turn(self) -> None:
        """Run what is ready, and what that makes ready, until nothing is, or until it takes too long: then
        ``overrun`` says where. Raises KeyboardInterrupt only."""
        self._inside(self._run_ready)

    def discard(self) -> None:
        """Throw the run away. Suspended coroutines get :class:`Discarded`; their ``finally`` blocks run, but
        whatever they await there ends at once, and nothing they ask for is asked."""
        if not self.discarded:
            self.discarded = self.ledger.closed = True
            if self.pending():
                self._inside(self._discard_tasks)
            else:
                self._discard_tasks()  # no code of the flow's is left to run

    def advance_clock(self, now_ms: int) -> None:
        """It is ``now_ms``, since the Unix epoch. Time never goes back, though workers' clocks differ."""
        self.now_ms = max(self.now_ms, now_ms)

    def _inside(self, act: Callable[[], None]) -> None:
        host = running_loop()
        host_task = asyncio.current_task(host) if host is not None else None
        hooks = sys.get_asyncgen_hooks()
        collecting = gc.isenabled()
        gc.disable()  # first, and enabled last: whatever it collects must not find this loop running
        if host is not None and host_task is not None:
            leave_task(host, host_task)
        set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._finalize)
        watch = watchdog()
        turn = self._turn = Turn(self.ledger.info.id, self.root)
        try:
            watch.enter(turn)
            try:
                act()
            finally:
                watch.leave(turn)
        except Overrun:
            pass
        finally:
            self.overrun = self.overrun or turn.site
            sys.set_asyncgen_hooks(*hooks)
            set_running_loop(host)
            if host is not None and host_task is not None:
                enter_task(host, host_task)
            if collecting:
                gc.enable()

    def _run_ready(self) -> None:
        ready = self._ready
        turn = self._turn
        while ready and not turn.site:
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
        return FlowFuture(self._next_order(), self)

    def gather(self, *awaitables: Any, return_exceptions: bool = False, numbered: bool = True) -> Future[Any]:
        """``asyncio.gather``, with a result that has its place in a set: one of its own, if ``numbered``."""
        gathering: Any = asyncio.gather(*awaitables, return_exceptions=return_exceptions)
        if not isinstance(gathering, FlowFuture):
            gathering.__class__ = Gathering
            order = self._next_order() if numbered else self._order_base + self._made
            gathering._order = order  # noqa: SLF001
        return gathering  # type: ignore[no-any-return]

    def _next_order(self) -> int:
        self._made += 1
        return self._order_base + self._made

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **options: Any
    ) -> FlowTask[Any]:
        if not asyncio.iscoroutine(coro):
            raise TypeError(f"a coroutine was expected, got {coro!r}")
        self._task_count = count = self._task_count + 1
        if len(self._tasks) >= self._sweep_at and not self.discarded:
            self.sweep()
        guarded = coro if isinstance(coro, Guarded) else Guarded(coro, self)
        task: FlowTask[Any] = FlowTask(
            guarded, self._next_order(), loop=self, name=name or f"Task-{count}", context=context, **options
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
            slot.deliver = handle.due
            handle.slot = slot
        elif delay != delay:
            raise ValueError("a delay must be a number of seconds, not NaN")
        return handle

    def ready(self, handle: Handle) -> None:
        """Call it next, after what is ready already."""
        self._ready.append(handle)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        if isinstance(handle, SlotTimer) and handle.slot is not None:
            self.ledger.drop(handle.slot)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not (self.discarded or self.ledger.replaying or self._turn.site):
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

    async def settled_in_any_case(self, slot: Slot) -> tuple[Settled, asyncio.CancelledError | None]:
        """Wait until the slot is settled, though whoever waits for it is cancelled.

        Returns how it ended, and the cancel that came meanwhile, which the caller has to raise in the end.
        """
        future: Steadfast[Settled] = Steadfast(loop=self)
        slot.deliver = future.set_result
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await future
            except asyncio.CancelledError as error:
                cancelled = error
        return future.result(), cancelled

    @property
    def random(self) -> Random:
        """The run's own generator, seeded when it was started. In a rerun, chance repeats itself as long as
        the flow is told of what is taken over."""
        return self._drawn_from(self.ledger.seed)

    @property
    def helpers_random(self) -> Random:
        """Likewise, for the code beside the flow's own: what the one draws shifts nothing of the other."""
        return self._drawn_from(f"{self.ledger.seed}.helpers")

    def _drawn_from(self, seed: str) -> Random:
        generator = self._random.get(seed)
        if generator is None:
            generator = self._random[seed] = Random(seed)
        return generator

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
