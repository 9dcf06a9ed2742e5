"""What a server can't say just now is asked for again, and never taken for nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.checker import dump as module
from tests.checker.dump import Unreadable, settled
from tests.checker.facts import Facts

AWAY = {"error": {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}}
NONE = {"error": {"code": 404, "err_code": 10037, "description": "no message found"}}


def stored(sequence: int) -> dict[str, Any]:
    data = base64.b64encode(b"{}").decode()
    subject = "workflow.tasks.acme"
    return {"message": {"subject": subject, "seq": sequence, "time": "2026-11-22T00:00:00Z", "data": data}}


class Leader:
    """Stands in for a connection: the stream's leader answers as it is told; no replica has anything."""

    def __init__(self, answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
        self._answers = answers

    async def request(self, subject: str, payload: bytes, timeout: float) -> Any:
        verb = subject.removeprefix("$JS.API.").rpartition(".")[0]
        return SimpleNamespace(data=json.dumps(self._answers[verb](json.loads(payload or b"{}"))).encode())

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def subscribe(self, subject: str) -> Any:
        async def next_msg(timeout: float) -> Any:
            return SimpleNamespace(headers={"Status": "404"}, data=b"")

        async def unsubscribe() -> None: ...

        return SimpleNamespace(next_msg=next_msg, unsubscribe=unsubscribe)

    async def publish(self, subject: str, payload: bytes, reply: str) -> None: ...


def leader(**answers: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    return Leader({name.replace("_", "."): answer for name, answer in answers.items()})


async def test_a_queue_ends_where_its_leader_has_no_more() -> None:
    connection = leader(STREAM_MSG_GET=lambda asked: stored(1) if asked["seq"] == 1 else NONE)
    assert [one.sequence async for one in module._queued(connection, "WPA_TASKS")] == [1]


async def test_a_queue_without_a_leader_is_not_an_empty_one() -> None:
    connection = leader(STREAM_MSG_GET=lambda asked: AWAY)
    with pytest.raises(Unreadable, match="temporarily unavailable"):
        [one async for one in module._queued(connection, "WPA_TASKS")]


async def test_replicas_that_lag_behind_for_too_long_are_no_end_of_a_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BEHIND_S", 0.3)
    info = {"state": {"last_seq": 1}}
    behind = leader(STREAM_INFO=lambda asked: info, STREAM_MSG_GET=lambda asked: stored(1))
    with pytest.raises(Unreadable, match="no replica"):
        [one async for one in module._kept(behind, "WPA_EVENTS")]
    removed = leader(STREAM_INFO=lambda asked: info, STREAM_MSG_GET=lambda asked: NONE)
    assert [one async for one in module._kept(removed, "WPA_DLQ")] == []


@pytest.mark.parametrize("trouble", [TimeoutError(), Unreadable("no leader")], ids=repr)
async def test_what_can_t_be_read_is_read_again(trouble: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = [trouble, Facts(), trouble, Facts(), Facts(taken_ms=7)]

    async def dump(url: str) -> Facts:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(module, "dump", dump)
    assert (await settled("", within_s=60)).taken_ms == 7
    outcomes = [trouble]
    with pytest.raises(type(trouble)):
        await settled("", within_s=-1)
