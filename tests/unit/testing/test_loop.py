from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from wpa.testing.loop import LoopClock, VirtualLoop

YEAR_S = 365 * 86_400


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    loop.close()


def test_idle_is_when_nothing_can_run(loop: VirtualLoop) -> None:
    done: list[int] = []

    async def work() -> None:
        for _ in range(1_000):
            await asyncio.sleep(0)
        done.append(1)
        await asyncio.sleep(10)
        done.append(2)

    async def main() -> None:
        task = asyncio.create_task(work())
        await loop.idle()
        assert (done, loop.time()) == ([1], 0)
        assert loop.next_ns is not None
        loop.advance_to(loop.next_ns)
        await loop.idle()
        assert (done, task.done()) == ([1, 2], True)
        assert loop.next_ns is None
        assert loop.time() == pytest.approx(10)

    loop.run_until_complete(main())


def test_what_is_due_is_found_after_years(loop: VirtualLoop) -> None:
    async def main() -> None:
        loop.advance_to(90 * YEAR_S * 1_000_000_000)
        for _ in range(100):
            sleeper = asyncio.create_task(asyncio.sleep(86_400.1))
            while not sleeper.done():
                await loop.idle()
                if loop.next_ns is not None:
                    loop.advance_to(loop.next_ns)

    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1

    loop.watchdog = count
    loop.run_until_complete(main())
    assert turns < 2


def test_a_call_to_a_thread_holds_the_time(loop: VirtualLoop) -> None:
    import time

    async def main() -> None:
        calling = asyncio.create_task(asyncio.to_thread(time.sleep, 0.05))
        late = asyncio.create_task(asyncio.sleep(1))
        await loop.idle()
        assert calling.done()
        assert not late.done()
        late.cancel()

    loop.run_until_complete(main())


def test_a_loop_that_nobody_drives_says_so(loop: VirtualLoop) -> None:
    with pytest.raises(RuntimeError, match="nobody is there to let its time pass"):
        loop.run_until_complete(asyncio.sleep(1))


def test_the_clock_reads_the_loops_time(loop: VirtualLoop) -> None:
    clock = LoopClock(loop, 1_000_000)
    loop.advance_to(2_500_000_000)
    assert (clock.now_ms(), clock.monotonic_s()) == (1_002_500, 2.5)
    assert clock.ns_of(1_002_500) == 2_500_000_000
    loop.advance_to(1)
    assert clock.now_ms() == 1_002_500
