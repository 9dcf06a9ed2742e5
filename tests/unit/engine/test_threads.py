from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from wpa.engine.threads import ThreadPool

HANGING = """
import asyncio, threading
from wpa.engine.threads import ThreadPool

async def main():
    pool = ThreadPool(1)
    task = asyncio.ensure_future(pool.run(threading.Event().wait, lambda: None))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    pool.close()

asyncio.run(main())
print("ended")
"""


def never() -> None:
    raise AssertionError("it was not abandoned")


async def test_no_more_threads_than_were_allowed_and_they_are_used_again() -> None:
    pool = ThreadPool(2)
    names: set[str] = set()
    now = peak = 0
    lock = threading.Lock()

    def work() -> str:
        nonlocal now, peak
        with lock:
            now += 1
            peak = max(peak, now)
        time.sleep(0.01)
        with lock:
            now -= 1
            names.add(threading.current_thread().name)
        return "done"

    assert await asyncio.gather(*(pool.run(work, never) for _ in range(20))) == ["done"] * 20
    assert peak == 2
    assert len(names) == 2
    pool.close()


async def test_one_thread_is_enough_for_one_call_after_the_other() -> None:
    pool = ThreadPool(8)
    names = set()
    for _ in range(10):
        names.add(await pool.run(lambda: threading.current_thread().name, never))
        await asyncio.sleep(0.002)  # let the thread say that it is idle
    assert len(names) == 1
    pool.close()


async def test_errors_of_all_kinds_come_back() -> None:
    pool = ThreadPool(1)

    def leave() -> None:
        raise SystemExit(3)

    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(SystemExit):
        await pool.run(leave, never)
    with pytest.raises(KeyError):
        await pool.run(fail, never)
    assert await pool.run(lambda: 1, never) == 1
    pool.close()


async def test_what_has_not_begun_is_cancelled_and_what_has_is_abandoned() -> None:
    pool = ThreadPool(1)
    gate, abandoned, ran = threading.Event(), [], []
    first = asyncio.create_task(pool.run(gate.wait, lambda: abandoned.append("first")))
    second = asyncio.create_task(pool.run(lambda: ran.append("second"), lambda: abandoned.append("second")))
    await asyncio.sleep(0.05)
    for task in (second, first):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert abandoned == ["first"]
    gate.set()
    assert await pool.run(lambda: "free again", never) == "free again"
    assert ran == []
    pool.close()


async def test_closing_forgets_what_waits_and_refuses_what_comes() -> None:
    pool = ThreadPool(1)
    gate = threading.Event()
    running = asyncio.create_task(pool.run(gate.wait, never))
    waiting = asyncio.create_task(pool.run(lambda: None, never))
    await asyncio.sleep(0.05)
    pool.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    assert await running is True
    with pytest.raises(RuntimeError):
        await pool.run(lambda: None, never)


def test_a_thread_that_hangs_does_not_keep_the_worker_from_ending() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "ended\n"
