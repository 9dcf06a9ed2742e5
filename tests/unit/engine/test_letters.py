"""Dead letters that are queued again: once each, however often that is asked and whatever is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.room import Body, Room
from wpa.engine.door import ONCE_HEADER, VERSION_HEADER
from wpa.errors import Unavailable

PLAN = {
    "id": "w",
    "version": "1",
    "signals": {"later": {}},
    "steps": [{"id": "rest", "uses": "core.sleep", "with": {"for": "1h"}}],
}
START = b'{"type": "workflow_start", "workflow_id": "w"}'


@pytest.fixture
def room() -> Iterator[Room]:
    with Room() as room:
        yield room


def buried(room: Room, data: bytes) -> int:
    """The number of the dead letter that a task becomes."""
    room.run(room.publish(data))
    room.run(room.settled())
    letter: Body = room.run(room.ok("dlq_list"))["letters"][0]
    return int(letter["sequence"])


def test_the_log_does_not_say_what_a_task_holds(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    secret = "hunter2"
    schema = {"type": "object", "properties": {"password": {"type": "string", "pattern": "^[A-Z]+$"}}}
    room.run(room.ok("deploy", document={**PLAN, "input": schema}))
    task = {**json.loads(START), "payload": {"input_data": {"password": secret}}}
    room.run(room.publish(json.dumps(task).encode()))
    room.run(room.settled())
    (letter,) = room.run(room.ok("dlq_list"))["letters"]
    assert secret in letter["message"]
    (line,) = (line for line in caplog.messages if "is rejected" in line)
    assert "invalid_input at $.payload.input_data.password; `wpa dlq list` says why" in line
    assert secret not in caplog.text


def executions(room: Room) -> list[str]:
    return sorted(row["execution_id"] for row in room.run(room.ok("list"))["executions"])


def asked_again(room: Room, letter: int) -> Body:
    answer = room.run(room.ask("dlq_retry", json.dumps({"sequence": letter}).encode()))
    room.run(room.settled())
    return answer


def lost_once(monkeypatch: pytest.MonkeyPatch, port: Any, call: str) -> None:
    """The worker, or its connection, is gone before this call of a port is made."""

    async def lost(*_: Any) -> None:
        monkeypatch.undo()
        raise Unavailable("gone")

    monkeypatch.setattr(port, call, lost)


def test_who_asks_again_is_answered_the_same(room: Room) -> None:
    letter = buried(room, START)
    room.run(room.ok("deploy", document=PLAN))
    first = asked_again(room, letter)
    assert first["ok"]
    assert asked_again(room, letter) == first
    assert len(executions(room)) == 1
    assert room.run(room.ok("dlq_list"))["letters"] == []


def test_a_letter_that_never_was_is_unknown(room: Room) -> None:
    assert asked_again(room, 7)["error"]["code"] == "unknown_letter"


@pytest.mark.parametrize(("port", "call"), [("records", "put"), ("tasks", "discard")])
def test_what_was_queued_before_a_crash_is_done_once(
    room: Room, monkeypatch: pytest.MonkeyPatch, port: str, call: str
) -> None:
    letter = buried(room, START)
    room.run(room.ok("deploy", document=PLAN))
    lost_once(monkeypatch, getattr(room.services.ports, port), call)
    assert asked_again(room, letter)["error"]["code"] == "unavailable"
    assert asked_again(room, letter)["ok"]
    assert len(executions(room)) == 1
    assert room.run(room.ok("dlq_list"))["letters"] == []


def test_a_signal_that_is_queued_twice_is_one(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    signal = b'{"type": "workflow_signal", "execution_id": "x1", "payload": {"signal": "later"}}'
    letter = buried(room, signal)
    room.run(room.ok("deploy", document=PLAN))
    room.run(room.ok("start", workflow_id="w", execution_id="x1"))
    lost_once(monkeypatch, room.services.ports.records, "put")
    assert not asked_again(room, letter)["ok"]
    assert asked_again(room, letter)["ok"]
    status = room.run(room.ok("status", execution_id="x1"))["execution"]
    assert status["signals"]["count"] == 1


def test_what_is_refused_again_keeps_its_name(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    letter = buried(room, START)
    lost_once(monkeypatch, room.services.ports.records, "put")
    asked_again(room, letter)
    asked_again(room, letter)
    letters = [row["sequence"] for row in room.run(room.ok("dlq_list"))["letters"]]
    assert len(letters) == 2
    room.run(room.ok("deploy", document=PLAN))
    for each in letters:
        assert asked_again(room, each)["ok"]
    assert len(executions(room)) == 1


def test_a_letter_of_a_stream_that_was_made_anew_is_another(room: Room) -> None:
    letter = buried(room, START)
    room.run(room.ok("deploy", document=PLAN))
    first = asked_again(room, letter)
    room.server.dead = type(room.server.dead)(room.server.clock)
    assert buried(room, b"not JSON") == letter
    assert asked_again(room, letter)["task_sequence"] != first["task_sequence"]
    assert [row["code"] for row in room.run(room.ok("dlq_list"))["letters"]] == ["not_json"]


def test_a_start_is_not_kept_to_the_version_that_it_was_accepted_for(room: Room) -> None:
    room.run(room.publish(START, {VERSION_HEADER: "gone"}))
    room.run(room.settled())
    (letter,) = room.run(room.ok("dlq_list"))["letters"]
    room.run(room.ok("deploy", document=PLAN))
    assert asked_again(room, letter["sequence"])["ok"]
    assert len(executions(room)) == 1


def test_a_start_keeps_its_key(room: Room) -> None:
    key = {ONCE_HEADER: "message 7"}
    start = START.replace(b"}", b', "execution_id": "x"}')
    room.run(room.publish(start, key))
    room.run(room.settled())
    (letter,) = room.run(room.ok("dlq_list"))["letters"]
    room.run(room.ok("deploy", document=PLAN))
    assert asked_again(room, letter["sequence"])["ok"]
    room.run(room.publish(start.replace(b"}", b', "payload": {"input_data": {"n": 1}}}'), key))
    room.run(room.settled())
    assert len(executions(room)) == 1
    assert room.run(room.ok("dlq_list"))["letters"] == []


def test_only_the_last_ones_are_remembered(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wpa.engine.receipts.RECEIPTS_MAX", 2)
    room.run(room.ok("deploy", document=PLAN))
    bad = b'{"type": "workflow_signal", "execution_id": "none", "payload": {"signal": "s"}}'
    numbers = []
    for _ in range(3):
        numbers.append(buried(room, bad))
        assert asked_again(room, numbers[-1])["ok"]
        room.letters()
    assert [asked_again(room, number)["ok"] for number in numbers] == [False, True, True]
