"""The step runner: one attempt at one step, whatever the step does.

Guarantees: :meth:`StepRunner.run` answers with a result for everything that user code may do (raise,
hang, exit, die, return nonsense); only cancellation passes through, and user code can't swallow it. A
time-out cancels the attempt: an async step by asyncio cancellation, a process by ending it; a thread can't
be stopped, so its attempt is abandoned and what it still returns is ignored. Neither threads nor processes
run on the event loop, nor does the work on what they return.

The time-out counts from the call, so an attempt that waits for a free thread or process uses it up too.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from functools import cached_property
from typing import Any

import msgspec

from wpa.engine.context import Context, StepCall
from wpa.engine.outcome import decode, failure_of, settle, taken
from wpa.engine.processes import ProcessPool
from wpa.engine.threads import ThreadPool
from wpa.errors import StepFailed
from wpa.model.events import Failure
from wpa.ports.clock import Clock
from wpa.ports.live import Live
from wpa.ports.steps import StepCatalog, StepType

__all__ = ["StepCall", "StepResult", "StepRunner", "failure_of"]

ABANDON_AFTER_S = 2.0
"""How long a cancelled step may take to stop before it is left behind."""

log = logging.getLogger("wpa.step")


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended. ``raw`` is ``output`` as JSON, encoded once."""

    output: Any = None
    raw: bytes | None = None
    error: Failure | None = None


class StepRunner:
    """Runs steps of every isolation. Close it with :meth:`aclose`."""

    def __init__(
        self, catalog: StepCatalog, live: Live, clock: Clock, worker: str, threads: int, processes: int
    ) -> None:
        self._catalog = catalog
        self._live = live
        self._clock = clock
        self._worker = worker
        self._threads = ThreadPool(threads)
        self._processes = ProcessPool(processes)
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._closed = False

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        # To ask for it is a system call in Python 3.11.
        return asyncio.get_running_loop()

    def has(self, name: str) -> bool:
        """Whether a plugin of this worker has the step type."""
        return self._catalog.get(name) is not None

    async def run(self, call: StepCall) -> StepResult:
        """Make one attempt. Never raises but CancelledError."""
        found = self._catalog.get(call.uses)
        if found is None:
            message = f"no plugin of this worker has step type {call.uses!r}; see `wpa plugins`"
            return StepResult(error=Failure(type="UnknownStepType", message=message, retryable=False))
        if self._closed:
            return StepResult(error=Failure(type="WorkerStopped", message="the worker has stopped"))
        output: Any = None
        raw: bytes | None = None
        failure: Failure | None = None
        try:
            if call.timeout_s is None:
                output, raw = await self._attempt(found, call)
            else:
                output, raw = await self._attempt_within(found, call, call.timeout_s)
        except GeneratorExit:
            raise  # nobody waits for an answer any more
        except BaseException as caught:  # SystemExit in a step must not end the worker
            # What is kept is not the exception: it holds this frame, which would hold it in turn.
            failure = _failure(caught)
        task = asyncio.current_task(self._loop)
        if task is not None and task.cancelling():
            raise asyncio.CancelledError  # even where the step swallowed it, or made another error of it
        return StepResult(output=output, raw=raw, error=failure)

    async def _attempt(self, found: StepType, call: StepCall) -> tuple[Any, bytes]:
        """The output, plain and encoded. Raises whatever the step does."""
        if found.isolation == "async" and not found.takes_context:
            return settle(found, await found.fn(**found.bind(taken(found, call.trim, call.inputs))))
        context = Context(call, self._live, self._clock, self._worker, self._loop)
        try:
            if found.isolation == "async":
                context.runs_in(asyncio.current_task(self._loop))
                return settle(
                    found, await found.fn(context, **found.bind(taken(found, call.trim, call.inputs)))
                )
            if found.isolation == "process":
                raw = await self._processes.run(found, call, context)
                return decode(raw), raw
            return await self._in_thread(found, call, context)
        finally:
            context.close()

    async def _in_thread(self, found: StepType, call: StepCall, context: Context) -> tuple[Any, bytes]:
        copied = contextvars.copy_context()

        def attempt() -> tuple[Any, bytes]:
            # All of it in the thread: large inputs and outputs must not stall the event loop.
            arguments = found.bind(taken(found, call.trim, call.inputs))
            args = (context,) if found.takes_context else ()
            try:
                returned = copied.run(found.fn, *args, **arguments)
            except StopIteration as error:
                # A coroutine may not raise it; the step's author shall still read what it was.
                raise StepFailed(str(error), type="StopIteration") from error
            return settle(found, returned)

        def abandoned() -> None:
            log.warning(
                "%s.%s: step %s (%s) still blocks its thread; the attempt is abandoned",
                call.tenant, call.execution, call.step, call.uses,
            )  # fmt: skip

        result: tuple[Any, bytes] = await self._threads.run(attempt, abandoned)
        return result

    # -- time-outs ---------------------------------------------------------------------------

    async def _attempt_within(self, found: StepType, call: StepCall, timeout_s: float) -> tuple[Any, bytes]:
        """Like ``_attempt``, within a time-out that holds even where user code swallows cancellation."""
        task = asyncio.ensure_future(self._contained(found, call))
        try:
            done, _ = await asyncio.wait((task,), timeout=timeout_s)
            if not done:
                message = f"the attempt took longer than {timeout_s:g} s"
                raise StepFailed(message, type="Timeout", retryable=True)
            outcome = task.result()
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome
        finally:
            if not task.done():
                await self._cancel(task, call)

    async def _contained(self, found: StepType, call: StepCall) -> tuple[Any, bytes] | BaseException:
        """An attempt whose error is a value: SystemExit, raised in a task of its own, would end the loop."""
        try:
            return await self._attempt(found, call)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            return error

    async def _cancel(self, task: asyncio.Task[Any], call: StepCall) -> None:
        task.cancel()
        _, stuck = await asyncio.wait((task,), timeout=ABANDON_AFTER_S)
        if stuck:
            log.warning("%s.%s: step %s ignores its cancellation", call.tenant, call.execution, call.step)
            self._abandoned.add(task)
            task.add_done_callback(self._abandoned.discard)

    async def aclose(self) -> None:
        """End the processes; leave threads that still run behind."""
        self._closed = True
        for task in self._abandoned:
            task.cancel()
        self._threads.close()
        await self._processes.aclose()


def _failure(error: BaseException) -> Failure:
    if isinstance(error, asyncio.CancelledError):
        return Failure(type="Cancelled", message="the step cancelled itself")
    return failure_of(error)
