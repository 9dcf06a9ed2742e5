"""Steps in processes of their own: they can be killed, and may crash, without anybody else noticing.

Each child runs :mod:`wpa.engine.child`, one attempt at a time, and is kept for the next. Frames go over
its standard input and output: four bytes of length, then MessagePack. A cancelled or timed-out attempt
kills its child and everything that the child started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys
from typing import Any

import msgspec

from wpa.engine.context import Context, StepCall
from wpa.errors import StepFailed
from wpa.ports.steps import StepType

__all__ = ["ProcessPool"]

FRAME_BYTES_MAX = 512 * 1024 * 1024


class ProcessPool:
    """At most ``size`` children; more attempts wait for their turn."""

    def __init__(self, size: int) -> None:
        self._room = asyncio.Semaphore(size)
        self._idle: list[asyncio.subprocess.Process] = []
        self._busy: set[asyncio.subprocess.Process] = set()

    async def run(self, found: StepType, call: StepCall, context: Context) -> Any:
        """Make one attempt in a child and return what the step returned, as plain data.

        Raises StepFailed for whatever went wrong in the child, its death included.
        """
        async with self._room:
            child = await self._take()
            self._busy.add(child)
            healthy = False
            try:
                result = await self._converse(child, found, call, context)
                healthy = True
                return result
            except StepFailed as error:
                healthy = error.type != "ProcessDied"
                raise
            finally:
                self._busy.discard(child)
                if healthy:
                    self._idle.append(child)
                else:
                    await _kill(child)

    async def _take(self) -> asyncio.subprocess.Process:
        while self._idle:
            child = self._idle.pop()
            if child.returncode is None:
                return child
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "wpa.engine.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # A group of its own: Ctrl-C is for the worker, and a kill reaches what the step forked.
            start_new_session=True,
        )

    async def _converse(
        self, child: asyncio.subprocess.Process, found: StepType, call: StepCall, context: Context
    ) -> Any:
        request = {
            "module": found.fn.__module__,
            "qualname": found.fn.__qualname__,
            "call": call,
        }
        data = msgspec.msgpack.encode(request)
        assert child.stdin is not None  # noqa: S101  both are pipes, see _take
        assert child.stdout is not None  # noqa: S101
        try:
            child.stdin.write(struct.pack(">I", len(data)) + data)
            await child.stdin.drain()
            while True:
                (size,) = struct.unpack(">I", await child.stdout.readexactly(4))
                if size > FRAME_BYTES_MAX:
                    raise StepFailed(f"the step sent {size} bytes", type="ProcessDied", retryable=False)
                frame = msgspec.msgpack.decode(await child.stdout.readexactly(size))
                if frame["kind"] == "progress":
                    await context.progress(frame["percentage"], frame["message"], **frame["data"])
                elif frame["kind"] == "heartbeat":
                    context.heartbeat()
                elif frame["kind"] == "done":
                    return frame["output"]
                else:
                    raise StepFailed(
                        frame["message"],
                        type=frame["type"],
                        retryable=frame["retryable"],
                        details=frame["details"],
                    )
        except (asyncio.IncompleteReadError, BrokenPipeError, ConnectionResetError):
            code = await child.wait()
            why = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            raise StepFailed(f"the step's process died ({why})", type="ProcessDied") from None

    async def aclose(self) -> None:
        """Kill every child."""
        children = [*self._idle, *self._busy]
        self._idle.clear()
        await asyncio.gather(*(_kill(child) for child in children))


async def _kill(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
