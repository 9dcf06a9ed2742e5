"""Who asks is patient, and for longer while something is broken: nobody may be there to answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from tests.checker.calls import Caller

ASKED = ("signal", "acme", "x", {})
SOON_S, LATER_S = 0.3, 1.2


class Answers:
    """Stands in for a connection: nobody answers for a while, then somebody says yes."""

    def __init__(self, silent_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + silent_s

    async def request(self, subject: str, payload: bytes, timeout: float) -> Any:
        if self._loop.time() < self._until:
            raise TimeoutError
        return SimpleNamespace(data=json.dumps({"ok": True}).encode())


def caller(silent_s: float) -> Caller:
    connection: Any = Answers(silent_s)
    return Caller(connection)


@contextmanager
def disturbed(who: Caller) -> Iterator[None]:
    """Something is broken again and again."""

    async def disturb() -> None:
        while True:
            who.disturb()
            await asyncio.sleep(SOON_S / 3)

    task = asyncio.create_task(disturb())
    yield
    task.cancel()


async def test_it_is_asked_again_for_a_while() -> None:
    who = caller(silent_s=SOON_S)
    call = await who.ask(*ASKED, within_s=60)
    assert (call.outcome, len(who.calls) > 1) == ("ok", True)


async def test_without_an_answer_it_is_given_up() -> None:
    call = await caller(silent_s=60).ask(*ASKED, within_s=SOON_S)
    assert (call.outcome, call.code) == ("unknown", "TimeoutError")


async def test_nobody_loses_patience_while_something_is_broken() -> None:
    who = caller(silent_s=LATER_S)
    with disturbed(who):
        call = await who.ask(*ASKED, within_s=SOON_S)
    assert call.outcome == "ok"


async def test_afterwards_patience_ends_again() -> None:
    who = caller(silent_s=60)
    with disturbed(who):
        asking = asyncio.create_task(who.ask(*ASKED, within_s=SOON_S))
        await asyncio.sleep(LATER_S)
        assert not asking.done()
    async with asyncio.timeout(30):
        assert (await asking).outcome == "unknown"


@pytest.mark.parametrize("told", [{}, {"error": {"code": "unavailable", "message": "nobody leads"}}])
async def test_the_words_of_a_refusal_are_kept(told: dict[str, Any]) -> None:
    class Refuses:
        async def request(self, subject: str, payload: bytes, timeout: float) -> Any:
            return SimpleNamespace(data=json.dumps({"ok": not told, **told}).encode())

    connection: Any = Refuses()
    call = await Caller(connection).ask(*ASKED)
    wanted = ("unknown", "unavailable", "nobody leads") if told else ("ok", "", "")
    assert (call.outcome, call.code, call.why) == wanted
