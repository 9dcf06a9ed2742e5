"""Steps in processes of their own: they can be killed, and may crash, without anybody else noticing.

Each child runs :mod:`wpa.engine.child`, one attempt at a time, and is kept for the next. Frames go over
its standard input and output: four bytes of length, then MessagePack; inputs and outputs travel in them as
JSON, encoded once. A cancelled or timed-out attempt ends its child and everything that the child started:
SIGTERM, so that ``finally`` blocks run, then SIGKILL. A child whose parent dies ends itself likewise.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import struct
import sys
from typing import Any

import msgspec

from wpa.engine.context import Context, StepCall
from wpa.errors import StepFailed
from wpa.ports.steps import StepType

__all__ = ["Child", "ProcessPool", "end_child", "end_of"]

FRAME_BYTES_MAX = 512 * 1024 * 1024
TERM_GRACE_S = 0.5
"""From SIGTERM to SIGKILL."""
EXIT_GRACE_S = 1.0
"""How long a child that has closed its output may take to be gone."""

Child = asyncio.subprocess.Process


class ProcessPool:
    """At most ``size`` children; more attempts wait for their turn."""

    def __init__(self, size: int) -> None:
        self._room = asyncio.Semaphore(size)
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._closed = False

    async def run(self, found: StepType, call: StepCall, context: Context) -> bytes:
        """Make one attempt in a child and return the step's output, as JSON.

        Raises StepFailed for whatever went wrong in the child, its death included.
        """
        request = _request(found, call)
        async with self._room:
            child = await self._take()
            self._busy.add(child)
            frame: dict[str, Any] | None = None
            try:
                frame = await _converse(child, request, context)
            finally:
                self._busy.discard(child)
                # Only a child that answered is known to be at the start of a new request.
                if frame is None or self._closed:
                    await end_child(child)
                else:
                    self._idle.append(child)
        if frame["kind"] == "done":
            output: bytes = frame["output"]
            return output
        raise StepFailed(
            frame["message"], type=frame["type"], retryable=frame["retryable"], details=frame["details"]
        )

    async def _take(self) -> Child:
        self._check_open()
        while self._idle:
            child = self._idle.pop()
            if child.returncode is None:
                return child
        # Modules are found where this process finds them, whatever folder it was started in.
        path = [str(entry) for entry in sys.path]
        start = f"import sys; sys.path[:] = {path!r}; from wpa.engine.child import main; main()"
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-c",
            start,
            str(logging.getLogger("wpa.step").getEffectiveLevel()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # A group of its own: Ctrl-C is for the worker, and a kill reaches what the step forked.
            start_new_session=True,
        )
        try:
            self._check_open()  # again: making it took a while
        except StepFailed:
            await end_child(child)
            raise
        return child

    def _check_open(self) -> None:
        if self._closed:
            raise StepFailed("the worker has stopped", type="WorkerStopped")

    async def aclose(self) -> None:
        """End every child."""
        self._closed = True
        children = [*self._idle, *self._busy]
        self._idle.clear()
        await asyncio.gather(*(end_child(child) for child in children))


def _request(found: StepType, call: StepCall) -> bytes:
    try:
        inputs = msgspec.json.encode(call.inputs)
    except (TypeError, ValueError, RecursionError) as error:
        raise StepFailed(f"inputs: {error}", type="InvalidInput", retryable=False) from None
    request = {
        "module": found.fn.__module__,
        "qualname": found.fn.__qualname__,
        "call": msgspec.structs.replace(call, inputs=None),
        "inputs": inputs,
    }
    return msgspec.msgpack.encode(request)


async def _converse(child: Child, request: bytes, context: Context) -> dict[str, Any]:
    """Send the request; pass on what the step says; return the last frame."""
    assert child.stdin is not None  # noqa: S101  both are pipes, see _take
    assert child.stdout is not None  # noqa: S101
    try:
        child.stdin.write(struct.pack(">I", len(request)) + request)
        await child.stdin.drain()
        while True:
            (size,) = struct.unpack(">I", await child.stdout.readexactly(4))
            if size > FRAME_BYTES_MAX:
                message = f"the step sent {size} bytes; the most is {FRAME_BYTES_MAX}"
                raise StepFailed(message, type="OutputTooLarge", retryable=False)
            frame: dict[str, Any] = msgspec.msgpack.decode(await child.stdout.readexactly(size))
            if frame["kind"] in ("done", "failed"):
                return frame
            await _pass_on(frame, context)
    except (asyncio.IncompleteReadError, BrokenPipeError, ConnectionResetError):
        raise StepFailed(f"the step's process died ({await end_of(child)})", type="ProcessDied") from None


async def _pass_on(frame: dict[str, Any], context: Context) -> None:
    kind = frame["kind"]
    if kind == "progress":
        await context.progress(frame["percentage"], frame["message"], **frame["data"])
    elif kind == "heartbeat":
        context.heartbeat()
    elif kind == "emit":
        await context.emit(frame["subject"], msgspec.Raw(frame["data"]))
    elif kind == "log":
        logging.getLogger(frame["name"]).log(frame["level"], "%s", frame["message"], extra=frame["extra"])


async def end_of(child: Child) -> str:
    """How a child has ended that has closed its output."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(child.wait(), EXIT_GRACE_S)
    code = child.returncode
    if code is None:
        return "it closed its output"
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


async def end_child(child: Child) -> None:
    """End a child and what it started. A second cancellation cuts the wait short, and leaves nothing."""
    if child.returncode is None:
        _signal(child, signal.SIGTERM)
        try:
            await asyncio.wait_for(child.wait(), TERM_GRACE_S)
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            _signal(child, signal.SIGKILL)
            raise
    # In any case: what the child had started may be there still.
    _signal(child, signal.SIGKILL)
    await child.wait()


def _signal(child: Child, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
