"""Places that are shared: nobody waits behind another's queue."""

from __future__ import annotations

import asyncio

from wpa.adapters.nats.places import Places


class Guest:
    """Somebody who takes places, and lets go of them when told to."""

    def __init__(self, places: Places, who: str, order: list[str]) -> None:
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._stay(places, who, order))

    async def _stay(self, places: Places, who: str, order: list[str]) -> None:
        async with places.of(who):
            order.append(who)
            await self.leave.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_has_the_fewest_is_next() -> None:
    places, order = Places(2), list[str]()
    busy = [Guest(places, "busy", order) for _ in range(5)]
    await settle()
    other = Guest(places, "other", order)
    await settle()
    assert order == ["busy", "busy"]
    busy[0].leave.set()
    await settle()
    assert order[2:] == ["other"]
    other.leave.set()
    await settle()
    assert order[3:] == ["busy"]
    for guest in busy:
        guest.leave.set()
    await asyncio.gather(*(guest.task for guest in busy))
    assert order == ["busy", "busy", "other", "busy", "busy", "busy"]


async def test_who_gives_up_takes_no_place_with_him() -> None:
    places, order = Places(1), list[str]()
    first = Guest(places, "a", order)
    await settle()
    waits, gives_up, is_given = (Guest(places, who, order) for who in ("a", "b", "c"))
    await settle()
    gives_up.task.cancel()
    await settle()
    first.leave.set()
    await asyncio.sleep(0)  # the place is given to one of them in this turn, who gives up in the same
    waits.leave.set()
    await settle()
    is_given.task.cancel()
    await asyncio.gather(waits.task, is_given.task, gives_up.task, return_exceptions=True)
    last = Guest(places, "d", order)
    await settle()
    assert order[-1] == "d"
    last.leave.set()
    await last.task


async def test_a_place_that_comes_when_its_taker_is_cancelled_goes_to_the_next() -> None:
    places, order = Places(1), list[str]()
    first = Guest(places, "a", order)
    await settle()
    second, third = Guest(places, "b", order), Guest(places, "c", order)
    await settle()
    first.leave.set()
    while first.task.done() is False:
        await asyncio.sleep(0)
    second.task.cancel()  # it has the place by now, and does not know it yet, or does
    await settle()
    third.leave.set()
    await third.task
    assert order[-1] == "c"
