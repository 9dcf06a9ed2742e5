"""Patience while nobody answers: a worker that is about to start is soon heard of, one that isn't, soon told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import nats.errors
import pytest

from wpa.client import Client, channel
from wpa.client.channel import NOBODY_PAUSES_S, TRIES, Channel
from wpa.errors import Unavailable


class Connection:
    """Raises what it is told to, one request after the other; then it answers."""

    def __init__(self, *errors: Exception) -> None:
        self.refusal = ""
        self.errors = list(errors)
        self.asked = 0

    async def request(self, subject: str, payload: bytes, timeout: float) -> Any:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return SimpleNamespace(data=b'{"ok":true}')


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited between the tries; nothing is, in fact."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(channel, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    return slept


async def test_a_worker_that_is_there_in_a_moment_is_asked_in_a_moment(slept: list[float]) -> None:
    connection = Connection(*[nats.errors.NoRespondersError()] * 2)
    assert await Channel(connection, "t").request("list") == {"ok": True}  # type: ignore[arg-type]
    assert sum(slept) < 0.2


async def test_where_nobody_listens_it_is_told(slept: list[float]) -> None:
    connection = Connection(*[nats.errors.NoRespondersError()] * 20)
    with pytest.raises(Unavailable, match="no worker answers"):
        await Channel(connection, "t").request("list")  # type: ignore[arg-type]
    assert slept == list(NOBODY_PAUSES_S)


async def test_silence_is_waited_out_a_few_times(slept: list[float]) -> None:
    connection = Connection(*[nats.errors.TimeoutError()] * 20)
    with pytest.raises(Unavailable, match="no answer on"):
        await Channel(connection, "t").request("list")  # type: ignore[arg-type]
    assert connection.asked == TRIES
    assert slept == []


async def test_who_is_refused_is_told_so_the_first_time(slept: list[float]) -> None:
    connection = Connection(*[nats.errors.TimeoutError()] * 20)
    connection.refusal = "Authorization Violation"
    with pytest.raises(Unavailable, match="does not let us in: Authorization Violation"):
        await Channel(connection, "t").request("list")  # type: ignore[arg-type]
    assert connection.asked == 1


async def test_a_start_that_may_have_been_taken_is_told_its_id(slept: list[float]) -> None:
    answers = [nats.errors.TimeoutError(), *[nats.errors.NoRespondersError()] * 20]
    with pytest.raises(Unavailable, match=r"any more; it may have been started.* again under the id mine"):
        await Client(Connection(*answers), "t").start("w", execution_id="mine")  # type: ignore[arg-type]
