"""The inside of a step's process: read a call, make the attempt, write the result, again.

Started by :mod:`wpa.engine.processes`. Standard input and output carry frames, so both are moved out of
user code's way: what a step prints goes to standard error, and it reads nothing. The end of standard input
is the end of the parent, noticed at once, also in the middle of a step: another worker is about to run the
same step again, so this attempt ends, and with it all that it started.
"""

from __future__ import annotations

import io
import logging
import os
import queue
import signal
import struct
import sys
import threading
import time
from importlib import import_module
from types import FrameType
from typing import Any, BinaryIO, NoReturn

import msgspec

from wpa.engine.context import StepCall, bound_logger, emission
from wpa.engine.outcome import failure_of, settle, taken
from wpa.errors import StepFailed
from wpa.ports.steps import StepType

__all__ = ["ChildContext", "main"]

ORPHAN_GRACE_S = 1.0
BOUND_FIELDS = ("tenant", "workflow", "execution", "step", "attempt")


class _Request(msgspec.Struct):
    module: str
    qualname: str
    call: StepCall
    inputs: bytes


class _Terminated(BaseException):
    """SIGTERM: unwind, so that ``finally`` blocks run, and exit."""


class _Pipe:
    """Frames, from whichever thread."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def send(self, frame: dict[str, Any]) -> None:
        """Raises TypeError or ValueError for what can't be encoded; nothing is sent then."""
        data = msgspec.msgpack.encode(frame)
        with self._lock:
            self._out.write(struct.pack(">I", len(data)) + data)
            self._out.flush()


class _Forward(logging.Handler):
    """Hands log records to the parent, where logging is set up."""

    def __init__(self, pipe: _Pipe) -> None:
        super().__init__()
        self._pipe = pipe
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            extra = {name: getattr(record, name) for name in BOUND_FIELDS if hasattr(record, name)}
            frame = {"name": record.name, "level": record.levelno, "message": self.format(record)}
            self._pipe.send({"kind": "log", "extra": extra, **frame})
        except Exception:
            self.handleError(record)


class ChildContext:
    """See :class:`wpa.ports.steps.StepContext`; what it publishes, the parent publishes for it."""

    def __init__(self, call: StepCall, pipe: _Pipe) -> None:
        self.tenant, self.workflow, self.execution = call.tenant, call.workflow, call.execution
        self.step, self.attempt = call.step, call.attempt
        self.idempotency_key, self.metadata = call.idempotency_key, call.metadata
        self.log = bound_logger(call)
        self.cancelled = False  # a process is ended, it needn't look
        self._pipe = pipe

    def progress_sync(self, percentage: float, message: str = "", **data: Any) -> None:
        frame = {"kind": "progress", "percentage": float(percentage), "message": str(message)}
        try:
            self._pipe.send({**frame, "data": data})
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            self.log.warning("progress is published without its data: %s", error)
            self._pipe.send({**frame, "data": {}})

    async def progress(self, percentage: float, message: str = "", **data: Any) -> None:
        self.progress_sync(percentage, message, **data)

    async def emit(self, subject: str, data: Any) -> str:
        whole, raw = emission(self.tenant, subject, data)
        self._pipe.send({"kind": "emit", "subject": subject, "data": raw})
        return whole

    def heartbeat(self) -> None:
        self._pipe.send({"kind": "heartbeat"})


def _find(module: str, qualname: str) -> StepType:
    target: Any = import_module(module)
    for part in qualname.split("."):
        target = getattr(target, part)
    found = target.__wpa_step__
    if not isinstance(found, StepType):
        raise TypeError(f"{module}.{qualname} is no step")
    return found


def _attempt(request: _Request, pipe: _Pipe) -> dict[str, Any]:
    try:
        try:
            found = _find(request.module, request.qualname)
        except _Terminated:
            raise
        except BaseException as error:
            message = f"{request.module}.{request.qualname} can't be imported in a process: {error!r}"
            raise StepFailed(message, type="ImportFailed") from error
        arguments = found.bind(taken(found, request.call.trim, msgspec.json.decode(request.inputs)))
        context = (ChildContext(request.call, pipe),) if found.takes_context else ()
        _, raw = settle(found, found.fn(*context, **arguments))
        return {"kind": "done", "output": raw}
    except _Terminated:
        raise
    except BaseException as error:
        failure = failure_of(error)
        return {
            "kind": "failed",
            "type": failure.type,
            "message": failure.message,
            "retryable": failure.retryable,
            "details": failure.details,
        }


def _listen(source: BinaryIO, requests: queue.SimpleQueue[_Request]) -> None:
    """Read requests, in a thread of its own, so that the parent's end is noticed during a step."""
    decoder = msgspec.msgpack.Decoder(_Request)
    while len(head := source.read(4)) == 4:
        (size,) = struct.unpack(">I", head)
        body = source.read(size)
        if len(body) < size:
            break
        requests.put(decoder.decode(body))
    _end_group()


def _end_group() -> NoReturn:
    """End this process and what it started, the way the parent would have."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGTERM)
        time.sleep(ORPHAN_GRACE_S)
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Terminated


def main() -> None:
    """Serve requests until the parent says SIGTERM, or is gone."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    source = os.fdopen(os.dup(0), "rb")
    out = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what is printed before a crash is what is needed most
    pipe = _Pipe(out)
    logging.basicConfig(level=int(sys.argv[1]), handlers=[_Forward(pipe)])
    requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(source, requests), daemon=True).start()
    try:
        while True:
            pipe.send(_attempt(requests.get(), pipe))
    except _Terminated:
        # Without the interpreter's own ending, which would wait for whatever threads the step left.
        os._exit(143)
    except BrokenPipeError:
        _end_group()
