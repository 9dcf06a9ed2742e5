"""The inside of a step's process: read a call, make the attempt, write the result, again.

Run as ``python -m wpa.engine.child`` by :mod:`wpa.engine.processes`. Standard output carries frames, so
what a step prints goes to standard error. The end of standard input is the end of the parent.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import os
import struct
import sys
import threading
from typing import Any, BinaryIO

import msgspec

from wpa.engine.context import StepCall
from wpa.errors import StepFailed
from wpa.ports.steps import StepType

__all__ = ["ChildContext", "main"]


class _Request(msgspec.Struct):
    module: str
    qualname: str
    call: StepCall


class _Pipe:
    """Frames, from whichever thread."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def send(self, frame: dict[str, Any]) -> None:
        data = msgspec.msgpack.encode(frame)
        with self._lock:
            self._out.write(struct.pack(">I", len(data)) + data)
            self._out.flush()


class ChildContext:
    """See :class:`wpa.ports.steps.StepContext`; what it publishes, the parent publishes for it."""

    def __init__(self, call: StepCall, pipe: _Pipe) -> None:
        self.tenant, self.workflow, self.execution = call.tenant, call.workflow, call.execution
        self.step, self.attempt = call.step, call.attempt
        self.idempotency_key, self.metadata = call.idempotency_key, call.metadata
        fields = {
            name: getattr(call, name) for name in ("tenant", "workflow", "execution", "step", "attempt")
        }
        self.log = logging.LoggerAdapter(logging.getLogger("wpa.step"), fields)
        self._pipe = pipe

    def progress_sync(self, percentage: float, message: str = "", **data: Any) -> None:
        frame = {"kind": "progress", "percentage": float(percentage), "message": str(message), "data": data}
        self._pipe.send(frame)

    async def progress(self, percentage: float, message: str = "", **data: Any) -> None:
        self.progress_sync(percentage, message, **data)

    async def emit(self, subject: str, data: Any) -> str:
        raise StepFailed("a step in a process can't emit; use isolation='async'", retryable=False)

    def heartbeat(self) -> None:
        self._pipe.send({"kind": "heartbeat"})


def _find(module: str, qualname: str) -> StepType:
    target: Any = importlib.import_module(module)
    for part in qualname.split("."):
        target = getattr(target, part)
    found = target.__wpa_step__
    if not isinstance(found, StepType):
        raise TypeError(f"{module}.{qualname} is no step")
    return found


def _attempt(request: _Request, pipe: _Pipe) -> dict[str, Any]:
    from wpa.engine.runner import failure_of

    try:
        found = _find(request.module, request.qualname)
        arguments = found.bind(request.call.inputs)
        context = (ChildContext(request.call, pipe),) if found.takes_context else ()
        output = found.fn(*context, **arguments)
        if inspect.isawaitable(output):
            output = asyncio.run(_awaited(output))
        return {"kind": "done", "output": found.dump(output)}
    except BaseException as error:
        failure = failure_of(error)
        return {"kind": "failed", **msgspec.structs.asdict(failure)}


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def main() -> None:
    # Keep the frames' pipe to ourselves; user code that prints gets standard error.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    pipe = _Pipe(out)
    source = sys.stdin.buffer
    decoder = msgspec.msgpack.Decoder(_Request)
    while len(head := source.read(4)) == 4:
        (size,) = struct.unpack(">I", head)
        frame = _attempt(decoder.decode(source.read(size)), pipe)
        try:
            pipe.send(frame)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            message = f"the step returned what JSON can't hold: {error}"
            pipe.send(
                {
                    "kind": "failed",
                    "type": "InvalidOutput",
                    "message": message,
                    "retryable": False,
                    "details": {},
                }
            )


if __name__ == "__main__":
    main()
