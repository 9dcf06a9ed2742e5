"""The process that a worker lives in: ended where it can't go on, not doubled by what a step does to it."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import sys
import threading
import traceback
import weakref
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from wpa.adapters.nats.transport import Transport

__all__ = ["STUCK_STATUS", "end_forks", "ended_when_stuck"]

STUCK_STATUS: Final = 70
"""The exit status of a worker whose event loop stood still (``EX_SOFTWARE`` in sysexits.h)."""
LOOKS: Final = 10
"""So often, one after the other, the loop is found where it was before it counts as stuck."""
LOCKED_FACTOR: Final = 2
"""After so many times as long it is ended by the interpreter's own timer, which needs no lock to run."""

log = logging.getLogger("wpa.engine")


@contextlib.asynccontextmanager
async def ended_when_stuck(after_s: float) -> AsyncIterator[None]:
    """In here, end the process when its event loop has stood still for ``after_s`` seconds, and say where.

    A step that blocks the loop for good keeps its worker from everything: other tenants, time-outs, SIGTERM.
    Its tasks move on to the next worker, and it blocks that one, too. Ended, the worker counts as lost: the
    step gives up after ``lost_attempts_max`` of them, and whatever started the worker starts it again.

    A process that was starved, or stopped for a while, is not ended for that: what is counted is how often
    another thread finds the loop where it was. Where that thread can't run either, because C code keeps the
    interpreter's lock, it is time that counts, and twice as much of it; a stop of that length ends it, too.
    """
    every_s, turns, over = after_s / LOOKS, 0, threading.Event()
    loop_thread = threading.get_ident()

    put_off = partial(faulthandler.dump_traceback_later, after_s * LOCKED_FACTOR, exit=True)

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(every_s / 2)

    def look() -> None:
        seen, still = 0, 0
        while not over.wait(every_s):
            put_off()
            seen, still = turns, still + 1 if seen == turns else 0
            if still >= LOOKS:
                _end(after_s, loop_thread)
        faulthandler.cancel_dump_traceback_later()

    put_off()
    turning = asyncio.create_task(turn(), name="wpa-turn")
    watching = threading.Thread(target=look, name="wpa-watchdog", daemon=True)
    watching.start()
    try:
        yield
    finally:
        turning.cancel()
        over.set()


def _end(after_s: float, thread: int) -> None:
    frame = sys._current_frames().get(thread)  # noqa: SLF001
    where = "".join(traceback.format_stack(frame)) if frame is not None else "nobody knows where\n"
    log.critical(
        "the event loop has stood still for %g s, and this worker ends: its tasks move on. What is innermost "
        "blocks it; await something there, or make the step a plain function, which runs in a thread:\n%s",
        after_s, where,
    )  # fmt: skip
    logging.shutdown()
    os._exit(STUCK_STATUS)


def end_forks(transport: Transport) -> None:
    """See to it that a process which a step forks off does not go on as this worker.

    The child of an ``os.fork()`` in a coroutine comes back to a copy of the event loop, with the worker's
    own connection in its hands: what it reads from that is missing in the worker. So the child loses the
    connection, and ends at the loop's next turn. A child that never comes back to the loop, as those of
    multiprocessing, goes on; it has no use for the connection.
    """
    loop = asyncio.get_running_loop()
    found = weakref.ref(transport)

    def in_child() -> None:
        transport = found()
        if transport is not None and not loop.is_closed():
            transport.disown()
            loop.call_soon(os._exit, 0)

    os.register_at_fork(after_in_child=in_child)
