"""Threads for steps that block.

Python waits at its exit for every thread of the standard library's pool, so one step that never returns
would keep a worker alive for ever, past its grace period. These are daemon threads: a worker that has
drained ends, whatever its steps are doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Job", "ThreadPool"]


class Job:
    """One call on its way to a thread. ``begun`` says whether cancelling it can still prevent it."""

    __slots__ = ("begun", "call", "cancelled", "future", "loop")

    def __init__(self, call: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.call = call
        self.loop = loop
        self.future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        self.begun = False
        self.cancelled = False


class ThreadPool:
    """At most ``size`` threads, made when they are needed; further calls wait for their turn."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0
        self._closed = False

    async def run(self, call: Callable[[], Any], abandoned: Callable[[], None]) -> Any:
        """Run ``call`` in a thread and return, or raise, what it does.

        A cancelled call that has begun can't be stopped: ``abandoned`` is called, and what it still
        returns is ignored. Its thread is free again when it returns. Raises RuntimeError once closed.
        """
        if self._closed:
            raise RuntimeError("the thread pool is closed")
        job = Job(call, asyncio.get_running_loop())
        self._jobs.put(job)
        if not self._idle.acquire(blocking=False) and self._count < self._size:
            self._count += 1
            name = f"wpa-step-{self._count}"
            threading.Thread(target=_work, args=(self._jobs, self._idle), name=name, daemon=True).start()
        try:
            value, error = await job.future
        except asyncio.CancelledError:
            job.cancelled = True
            if job.begun:
                abandoned()
            raise
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """Take no more calls, forget those that wait, and let idle threads end. Waits for nobody."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                waiting = self._jobs.get_nowait()
                if waiting is not None:
                    waiting.future.cancel()
        for _ in range(self._count):
            self._jobs.put(None)


def _work(jobs: queue.SimpleQueue[Job | None], idle: threading.Semaphore) -> None:
    while (job := jobs.get()) is not None:
        job.begun = True
        if not job.cancelled:
            # An error is carried as a value: futures refuse StopIteration, and SystemExit would end the loop.
            try:
                outcome: tuple[Any, BaseException | None] = job.call(), None
            except BaseException as error:
                outcome = None, error
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                job.loop.call_soon_threadsafe(_settle, job.future, outcome)
            del outcome
        del job  # an idle thread must not keep a large output alive
        idle.release()


def _settle(
    future: asyncio.Future[tuple[Any, BaseException | None]], outcome: tuple[Any, BaseException | None]
) -> None:
    if not future.done():
        future.set_result(outcome)
