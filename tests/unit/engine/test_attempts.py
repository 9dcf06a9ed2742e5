from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from wpa.adapters.memory import VirtualClock
from wpa.engine.attempts import Attempts


async def test_a_wait_that_news_has_ended_does_not_end_the_next_one() -> None:
    clock = VirtualClock()
    services: Any = SimpleNamespace(clock=clock, loop=asyncio.get_running_loop())
    attempts = Attempts(services)

    async def wait_twice() -> None:
        assert await attempts.next(10) is None
        assert attempts.take_news()
        assert await attempts.next(10) is None

    waiting = asyncio.create_task(wait_twice())
    await clock.advance(1)
    attempts.wake()
    await clock.advance(9.9)
    assert not waiting.done()  # else a driver would look around again and again, at once
    await clock.advance(0.2)
    assert waiting.done()
    await waiting
