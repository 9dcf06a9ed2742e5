"""The step runner: one attempt at one step, whatever the step does.

Guarantees: :meth:`StepRunner.run` answers with a result for everything that user code may do (raise,
hang, exit, die, return nonsense); only cancellation passes through. A time-out cancels the attempt: an
async step by asyncio cancellation, a process by killing it; a thread can't be stopped, so its attempt is
abandoned and what it still returns is ignored. Neither threads nor processes run on the event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from wpa.engine.context import Context, StepCall
from wpa.engine.processes import ProcessPool
from wpa.errors import StepFailed
from wpa.model.events import Failure
from wpa.ports.clock import Clock
from wpa.ports.live import Live
from wpa.ports.steps import StepCatalog, StepType

__all__ = ["StepCall", "StepResult", "StepRunner", "failure_of"]

MESSAGE_CHARS_MAX = 2_000
DETAILS_BYTES_MAX = 16 * 1024
ABANDON_AFTER_S = 2.0
"""How long a cancelled step may take to stop before it is left behind."""

log = logging.getLogger("wpa.step")
_ENCODER = msgspec.json.Encoder()


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
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="wpa-step")
        self._processes = ProcessPool(processes)
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def run(self, call: StepCall) -> StepResult:
        """Make one attempt. Never raises but CancelledError."""
        found = self._catalog.get(call.uses)
        if found is None:
            message = f"no plugin of this worker has step type {call.uses!r}; see `wpa plugins`"
            return StepResult(error=Failure(type="UnknownStepType", message=message, retryable=False))
        try:
            arguments = found.bind(call.inputs)
            if call.timeout_s is None:
                returned = await self._call(found, call, arguments)
            else:
                returned = await self._call_within(found, call, arguments, call.timeout_s)
            output = found.dump(returned)
            raw = _encode(output)
        except asyncio.CancelledError:
            if (current := asyncio.current_task()) is not None and current.cancelling():
                raise
            error = Failure(type="Cancelled", message="the step cancelled itself")
            return StepResult(error=error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit in a step must not end the worker
            return StepResult(error=failure_of(error))
        if type(output) in (dict, list):
            # What later steps see is what the journal will say: keys are strings, tuples are lists.
            output = msgspec.json.decode(raw)
        return StepResult(output=output, raw=raw)

    async def _call(self, found: StepType, call: StepCall, arguments: dict[str, Any]) -> Any:
        loop = asyncio.get_running_loop()
        if found.isolation == "process":
            context = Context(call, self._live, self._clock, self._worker, loop)
            return await self._processes.run(found, call, context)
        if found.takes_context:
            context = Context(call, self._live, self._clock, self._worker, loop)
            if found.isolation == "async":
                return await found.fn(context, **arguments)
            return await self._in_thread(loop, found, (context,), arguments)
        if found.isolation == "async":
            return await found.fn(**arguments)
        return await self._in_thread(loop, found, (), arguments)

    async def _in_thread(
        self, loop: asyncio.AbstractEventLoop, found: StepType, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        copied = contextvars.copy_context()

        def call() -> tuple[Any, BaseException | None]:
            # A StopIteration or SystemExit can't travel through a future; carry it as a value.
            try:
                return copied.run(found.fn, *args, **kwargs), None
            except BaseException as error:
                return None, error

        value, error = await loop.run_in_executor(self._threads, call)
        if isinstance(error, StopIteration):
            # A coroutine may not raise it; the step's author shall still read what it was.
            raise StepFailed(str(error), type="StopIteration")
        if error is not None:
            raise error
        return value

    async def _call_within(
        self, found: StepType, call: StepCall, arguments: dict[str, Any], timeout_s: float
    ) -> Any:
        """Like ``_call``, within a time-out that holds even where user code swallows cancellation."""
        task = asyncio.ensure_future(self._call(found, call, arguments))
        try:
            done, _ = await asyncio.wait((task,), timeout=timeout_s)
            if done:
                return task.result()
            message = f"the attempt took longer than {timeout_s:g} s"
            raise StepFailed(message, type="Timeout", retryable=True)
        finally:
            if not task.done():
                await self._cancel(task, call)

    async def _cancel(self, task: asyncio.Future[Any], call: StepCall) -> None:
        task.cancel()
        _, stuck = await asyncio.wait((task,), timeout=ABANDON_AFTER_S)
        if stuck and isinstance(task, asyncio.Task):
            log.warning("%s.%s: step %s ignores its cancellation", call.tenant, call.execution, call.step)
            self._abandoned.add(task)
            task.add_done_callback(self._abandoned.discard)
        elif not task.cancelled():
            task.exception()  # retrieved: it has been reported as a time-out

    async def aclose(self) -> None:
        """End the processes; leave threads that still run behind."""
        for task in self._abandoned:
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._processes.aclose()


def _encode(output: Any) -> bytes:
    try:
        raw = _ENCODER.encode(output)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"the step returned what JSON can't hold: {error}"
        raise StepFailed(message, type="InvalidOutput", retryable=False) from None
    # The encoder writes NaN and Infinity as null; data that changes on its way is worse than an error.
    if output is not None and b"null" in raw and not _finite(output):
        message = "the step returned NaN or Infinity, which JSON can't hold"
        raise StepFailed(message, type="InvalidOutput", retryable=False)
    return raw


def _finite(value: Any) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is dict:
        return all(_finite(item) for item in value.values())
    return type(value) not in (list, tuple) or all(_finite(item) for item in value)


def failure_of(error: BaseException) -> Failure:
    """How an exception is recorded. Anything that is no StepFailed is retried by policy."""
    if isinstance(error, StepFailed):
        return Failure(
            type=error.type,
            message=error.message[:MESSAGE_CHARS_MAX],
            retryable=error.retryable,
            details=_plain(error.details),
        )
    try:
        message = str(error)
    except Exception:  # a hostile __str__
        message = "(its message can't be shown)"
    return Failure(type=type(error).__name__, message=message[:MESSAGE_CHARS_MAX])


def _plain(details: dict[str, Any]) -> dict[str, Any]:
    try:
        encoded = _ENCODER.encode(details)
        if len(encoded) > DETAILS_BYTES_MAX:
            return {"$omitted": {"size": len(encoded)}}
        plain: dict[str, Any] = msgspec.json.decode(encoded)
    except (TypeError, ValueError, RecursionError):
        return {"repr": repr(details)[:MESSAGE_CHARS_MAX]}
    return plain
