"""What is heard is given in order up to a gap; what comes behind it is left to the journal."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from wpa.client import feed
from wpa.client.feed import MESSAGE_BYTES, Feed


class Connection:
    """Hands what is published to whoever has subscribed."""

    lapses = 0

    def __init__(self) -> None:
        self.hears: Any = None

    async def subscribe(self, subject: str, cb: Any) -> Any:
        self.hears = cb

    async def publish(self, position: int, live: bool = False, data: bytes | None = None) -> None:
        subject = "workflow.events.t.x" + (".live" if live else "")
        data = data if data is not None else json.dumps({"n": position}).encode()
        headers = None if live else {"Nats-Sequence": str(position)}
        await self.hears(SimpleNamespace(subject=subject, data=data, headers=headers))


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture
async def events(connection: Connection) -> Feed:
    events = Feed(connection)  # type: ignore[arg-type]
    connection.hears = events._take
    return events


async def positions(events: Feed) -> list[int]:
    """Of all that is given before it says that nothing is there, or that something was missed."""
    found = []
    while (heard := await events.next(0.01)) is not None:
        found.append(heard.position)
    return found


async def test_what_comes_behind_a_lost_connection_is_not_given(connection: Connection, events: Feed) -> None:
    await connection.publish(1)
    connection.lapses += 1
    await connection.publish(5)
    await connection.publish(0, live=True)
    assert await positions(events) == [1, 0]
    assert events.resume()
    await connection.publish(6)
    assert await positions(events) == [6]
    assert not events.resume()


async def test_no_more_is_kept_than_there_is_room_for(
    connection: Connection, events: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "KEPT_BYTES_MAX", 3 * (MESSAGE_BYTES + 20))
    for position in range(1, 6):
        await connection.publish(position)
    assert (await events.next(0)).position == 1  # type: ignore[union-attr]
    await connection.publish(6)  # there is room again, but 4 and 5 are missing
    assert await positions(events) == [2, 3]
    assert events.resume()
    await connection.publish(7)
    assert await positions(events) == [7]


async def test_live_events_that_find_no_room_are_no_gap(
    connection: Connection, events: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "KEPT_BYTES_MAX", MESSAGE_BYTES + 20)
    await connection.publish(1)
    await connection.publish(0, live=True)
    assert await positions(events) == [1]
    assert not events.resume()


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"5"])
async def test_what_is_no_event_is_left_out(connection: Connection, events: Feed, data: bytes) -> None:
    await connection.publish(1, data=data)
    await connection.publish(2)
    assert await positions(events) == [2]
