"""A world of its own for each test: one virtual loop, one memory server, one worker at a time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Final, TypeVar

import msgspec

from wpa.adapters.memory import MemoryServer, open_ports
from wpa.kernel.program import Program
from wpa.model.ids import DEFAULT_TENANT
from wpa.model.state import Parent
from wpa.ports import Ports
from wpa.ports.steps import StepType
from wpa.settings import Settings
from wpa.testing.catalog import Steps
from wpa.testing.errors import HIDDEN, TestKitError, Unmocked
from wpa.testing.faults import Faults
from wpa.testing.journal import Failures
from wpa.testing.loop import LoopClock, VirtualLoop
from wpa.testing.node import Node

__all__ = ["TENANT", "World"]

__tracebackhide__ = HIDDEN

TENANT: Final = DEFAULT_TENANT
INBOX: Final = "_INBOX.test"

T = TypeVar("T")


class _ChildStart(msgspec.Struct):
    """As much of the task that starts a child as tells that it is one."""

    workflow_id: str
    execution_id: str
    parent: Parent


def _in_a_loop() -> bool:
    """Whether an event loop runs in this thread: whether the test is ``async def``."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class World:
    """Runs what it is asked to on its loop, and lets time pass.

    Its methods that are not coroutines may be called from plain tests and from ``async def`` ones: there, the
    loop runs in a thread while the test waits, because a thread has one running loop only.

    Args:
        real, mocks: see :class:`wpa.testing.catalog.Steps`.
        flows: the programs that are no plans, by workflow.
        epoch_ms: what time it is at first, in milliseconds since the Unix epoch.
        queues: the worker groups whose steps are run.
        patience_s: real seconds that one call may take.
        faults: the points at which the worker may die; another takes its place at once.
    """

    def __init__(
        self,
        *,
        real: Mapping[str, StepType],
        mocks: Mapping[str, Any],
        flows: Mapping[str, Program],
        epoch_ms: int,
        queues: set[str],
        patience_s: float,
        faults: Faults | None = None,
    ) -> None:
        self._loop = VirtualLoop()
        self.clock = LoopClock(self._loop, epoch_ms)
        self.server = MemoryServer(self.clock)
        self.answers: dict[str, Any] = {}
        """What was answered to the tasks that were sent, by the inbox that each named."""
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="wpa-test-step")
        self.steps = Steps(
            real,
            mocks,
            failures=Failures(self.server, TENANT).count,
            now_ms=self.clock.now_ms,
            faults=faults,
            complain=self._complain,
            threads=self._threads,
        )
        self._flows = flows
        self._faults = faults
        self._patient_until = 0.0
        self._loop.watchdog = self._watch
        self._patience_s = patience_s
        self._settings = Settings.model_validate({"queues": ",".join(sorted(queues))})
        self._complaint: BaseException | None = None
        self._letters_read = 0
        self._later: list[tuple[int, int, Callable[[], Awaitable[None]]]] = []
        """A heap of what is to be done at a moment of the loop's time: (moment, number, what)."""
        self._numbers = itertools.count()
        self._workers = itertools.count(1)
        self._node: Node | None = None
        self._replacing: asyncio.Task[None] | None = None
        self.ports: Ports = self.run(open_ports(self.server))
        """A connection to the server that is nobody's but the test's."""
        self.run(self._open())

    # -- the outside -------------------------------------------------------------------------

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What ``coroutine`` returns, run on the world's loop."""
        if self._loop.is_closed():
            coroutine.close()
            raise TestKitError("the environment is closed: its test is over")
        self._patient_until = time.monotonic() + self._patience_s
        try:
            if not _in_a_loop():
                return self._loop.run_until_complete(coroutine)
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(copy_context().run, self._loop.run_until_complete, coroutine).result()
        except TestKitError as error:
            # It tells all there is to tell; the way that it took through the loop is of no use to a reader.
            raise error.with_traceback(None) from None

    def close(self) -> None:
        """End the worker, and leave nothing behind. Idempotent."""
        if self._loop.is_closed():
            return
        self._loop.watchdog = None
        self.run(self._end())
        self._loop.close()
        self._threads.shutdown(wait=False)

    def inbox(self) -> str:
        """A subject for one answer."""
        return f"{INBOX}.{next(self._numbers)}"

    async def publish(self, data: bytes, inbox: str = "") -> None:
        """A task, as anybody might send it. Its answer, if one comes, is found in ``answers``."""
        headers = {"Wpa-Reply": inbox} if inbox else {}
        await self.ports.tasks.publish(TENANT, data, headers)

    def at(self, moment_ms: int, action: Callable[[], Awaitable[None]]) -> None:
        """Do something at a moment, in milliseconds since the Unix epoch."""
        heapq.heappush(self._later, (self.clock.ns_of(moment_ms), next(self._numbers), action))

    # -- time --------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Let everything happen that happens at this moment."""
        await self.until(lambda: False, self.clock.now_ms())

    async def until(self, done: Callable[[], bool], limit_ms: int | None = None) -> bool:
        """Let time pass until ``done``, which is asked whenever a moment is over.

        Args:
            done: pure; what is waited for.
            limit_ms: the last moment, in milliseconds since the Unix epoch. None: as long as anything is
                still to come by itself, other than what a schedule starts.

        Returns whether it is done. Raises TestKitError for what the test has to mend, and after more than
        the world's patience.
        """
        loop = self._loop
        limit = None if limit_ms is None else max(loop.now_ns, self.clock.ns_of(limit_ms))
        while True:
            await loop.idle()
            self._check()
            if await self._do_due():
                continue
            if done():
                return True
            moment = self._next_ns()
            if limit is not None and (moment is None or moment > limit):
                loop.advance_to(limit)
                return False
            if moment is None or (limit is None and not self._anything_to_come):
                return False
            loop.advance_to(moment)

    async def _do_due(self) -> bool:
        """Do what the test wanted to be done by now. Whether there was anything."""
        due = False
        while self._later and self._later[0][0] <= self._loop.now_ns:
            due = True
            await heapq.heappop(self._later)[2]()
        return due

    def _next_ns(self) -> int | None:
        """The next moment at which anything can happen; None: nothing comes by itself.

        While the worker has a task in hand, its timers count. At rest, only the server's alarms do, and what
        the test wants: a worker with nothing in hand may as well sleep through it.
        """
        moments = [self._later[0][0]] if self._later else []
        alarm = self.server.schedules.next_ms
        alarm_ns = None if alarm is None else self.clock.ns_of(alarm)
        # An alarm that is due and has not rung waits for what is left of a millisecond: one of the timers.
        if self.in_hand or (alarm_ns is not None and alarm_ns <= self._loop.now_ns):
            if self._loop.next_ns is not None:
                moments.append(self._loop.next_ns)
        elif alarm_ns is not None:
            moments.append(alarm_ns)
        return min(moments) if moments else None

    @property
    def _anything_to_come(self) -> bool:
        """Whether a moment can come that is not a schedule's: those come for ever."""
        return bool(self._later or self.in_hand or self.server.schedules.has_alarms)

    @property
    def in_hand(self) -> list[str]:
        """The subjects that hold tasks which are not acked yet, without the queues that nobody serves."""
        served = {f"workflow.steps.{TENANT}.{queue}" for queue in self._settings.queue_names}
        held = [*self.server.tasks.subjects, *self.server.due.subjects]
        return [subject for subject in held if subject in served or ".steps." not in subject]

    def _watch(self) -> None:
        """Raise when a call has taken too long. In virtual time, hanging is being busy for ever."""
        if time.monotonic() < self._patient_until:
            return
        held = ", ".join(self.in_hand) or "nothing"
        last = self.steps.calls[-3:]
        raise TestKitError(
            f"after {self._patience_s:g} s of real time, nothing has come of it; tasks in hand: {held}; the "
            f"last steps begun: {', '.join(f'{call.step} ({call.uses})' for call in last) or 'none'}. Does a "
            "step, or a mock, wait for something that never comes?"
        )

    def _check(self) -> None:
        self._read_letters()
        if self._complaint is not None:
            raise self._complaint
        node = self._node
        if node is not None and node.task.done() and not node.dead:
            node.task.result()
            raise TestKitError("the worker has ended by itself")

    def _complain(self, error: BaseException) -> None:
        if self._complaint is None:
            self._complaint = error

    def _read_letters(self) -> None:
        """Complain of children whose start was refused: their parents would wait until somebody mends it."""
        for letter in self.server.dead.read(f"workflow.dlq.{TENANT}", self._letters_read):
            self._letters_read = letter.sequence
            try:
                task = msgspec.json.decode(letter.data, type=_ChildStart)
            except msgspec.DecodeError:  # another task: whoever sent it was answered
                continue
            code, reason = letter.headers["Wpa-Code"], letter.headers["Wpa-Reason"]
            told = f"{task.parent.execution_id} starts workflow {task.workflow_id} as {task.execution_id}"
            if code == "unknown_workflow":
                self._complain(
                    Unmocked(
                        f"{told}, and the test says nothing of it: give the workflow itself after the one "
                        f"under test, or child({task.workflow_id!r}, output) in its place"
                    )
                )
            else:
                self._complain(TestKitError(f"{told}, and is refused: {code}: {reason}"))

    # -- workers -----------------------------------------------------------------------------

    async def _open(self) -> None:
        self.server.subscribe(f"{INBOX}.*", self._on_answer)
        await self._new_worker()
        await self._loop.idle()

    def _on_answer(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        # The first one counts: a worker that died may have answered already.
        self.answers.setdefault(subject, msgspec.json.decode(data))

    async def _new_worker(self) -> None:
        name = f"worker-{next(self._workers)}"
        self._node = await Node.start(
            name, self.server, self.steps, self._settings, self._flows, self._faults
        )
        if self._faults is not None:
            self._faults.watch(self._die)

    def _die(self) -> None:
        """The worker dies, and another takes its place."""
        if self._node is not None:
            self._node.die()
        self._replacing = asyncio.get_running_loop().create_task(self._new_worker())

    async def _end(self) -> None:
        node = self._node
        if node is not None:
            node.die()
        # What is cancelled may need its time to stop; it is let pass.
        me = asyncio.current_task()
        for _ in range(1_000):
            left = [task for task in asyncio.all_tasks() if task is not me]
            if not left:
                break
            for task in left:
                task.cancel()
            await self._loop.idle()
            if self._loop.next_ns is not None:
                self._loop.advance_to(self._loop.next_ns)
        if node is not None:
            await node.aclose()
