"""So many at a time, that the event loop's rounds stay short."""

from __future__ import annotations

import asyncio

from wpa.engine.pace import AT_LEAST, LONG_S, SHORT_S, Pace

MOST = 500


def test_long_rounds_let_fewer_begin_and_short_ones_more() -> None:
    pace = Pace(MOST, lambda: 0.0, lambda: None)
    for _ in range(200):
        pace.took(LONG_S * 4)
    assert pace.limit == AT_LEAST
    for _ in range(200):
        pace.took(SHORT_S / 4)
    assert pace.limit == MOST


def test_one_long_round_among_short_ones_changes_little() -> None:
    pace = Pace(MOST, lambda: 0.0, lambda: None)
    for number in range(100):
        pace.took(LONG_S * 2 if number % 20 == 19 else SHORT_S / 4)
    assert pace.limit > AT_LEAST


def test_what_is_allowed_is_never_less_than_asked_for_nor_more() -> None:
    pace = Pace(4, lambda: 0.0, lambda: None)
    assert [driving for driving in range(8) if pace.room(driving)] == [0, 1, 2, 3]
    for _ in range(200):
        pace.took(LONG_S * 4)
    assert pace.room(3)
    assert not pace.room(4)


async def test_what_waits_is_begun_when_rounds_are_short_again() -> None:
    again = asyncio.Event()
    pace = Pace(MOST, lambda: 0.0, again.set)
    for _ in range(200):
        pace.took(LONG_S * 4)
    assert not pace.room(AT_LEAST)
    async with asyncio.timeout(5):
        await again.wait()
    pace.close()


async def test_a_round_is_what_the_loop_works_until_it_comes_round() -> None:
    worked_s = 0.0
    looked = 0

    def again() -> None:
        nonlocal looked
        looked += 1

    def clock() -> float:
        nonlocal worked_s
        worked_s += LONG_S * 4
        return worked_s

    pace = Pace(MOST, clock, again)
    async with asyncio.timeout(5):
        while pace.limit > AT_LEAST:
            pace.room(MOST)
            await asyncio.sleep(0)
    assert looked >= 1
    pace.close()
