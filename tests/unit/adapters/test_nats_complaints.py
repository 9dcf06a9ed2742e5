from __future__ import annotations

import asyncio

import pytest

from tests.waiting import until
from wpa.adapters.nats.answers import NoAnswer, Refused
from wpa.adapters.nats.complaints import Complaints
from wpa.adapters.nats.wire_parser import Message
from wpa.errors import Unavailable

NAMES = b'{"type": "io.nats.jetstream.api.v1.stream_names_response", "total": 1, "streams": ["WPA_EVENTS"]}'
INFO = b'{"type": "io.nats.jetstream.api.v1.stream_info_response", "config": {"name": "WPA_EVENTS"}}'
NO_LEADER = b'{"error": {"code": 503, "err_code": 10009, "description": "no leader"}}'


class Server:
    """Answers what it is given to answer, by the last word of the subject; else nothing."""

    def __init__(self, **answers: bytes) -> None:
        self.answers = answers
        self.asked: list[tuple[str, bytes]] = []

    async def request(self, subject: str, payload: bytes) -> Message:
        self.asked.append((subject, payload))
        answer = self.answers.get(subject.rpartition(".")[2])
        if answer is None:
            raise Unavailable("no answer")
        return Message(subject, "", answer, b"")


async def said(server: Server, error: Unavailable, caplog: pytest.LogCaptureFixture) -> str:
    """What is logged about a write that failed."""
    complaints = Complaints(server.request)
    complaints.failed("wpa.journal.acme.x1", error)
    complaints.failed("wpa.journal.acme.x2", error)
    await until(lambda: caplog.messages)
    await asyncio.sleep(0)
    complaints.close()
    (line,) = caplog.messages
    return line


async def test_a_stream_that_takes_nothing_while_its_server_answers_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(NAMES=NAMES, WPA_EVENTS=INFO)
    line = await said(server, NoAnswer("no answer within 5.0 s"), caplog)
    assert line.startswith("writes fail and are tried again (1 so far): no answer within 5.0 s; ")
    assert "WPA_EVENTS takes no writes" in line
    assert "its disk is full" in line
    assert "or one of its nodes stood still" in line
    assert line.endswith("or too few of them are up")
    assert server.asked[0] == ("$JS.API.STREAM.NAMES", b'{"subject":"wpa.journal.acme.x1"}')


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"NAMES": NAMES},
        {"NAMES": NAMES, "WPA_EVENTS": NO_LEADER},
        {"NAMES": b'{"total": 0, "streams": null}'},
        {"NAMES": b"none"},
    ],
)
async def test_where_more_is_silent_than_a_stream_nothing_is_guessed(
    answers: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    line = await said(Server(**answers), NoAnswer("no answer within 5.0 s"), caplog)
    assert line == "writes fail and are tried again (1 so far): no answer within 5.0 s"


async def test_what_the_server_says_needs_no_guess(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(NAMES=NAMES, WPA_EVENTS=INFO)
    line = await said(server, Refused("insufficient storage resources available", 10047), caplog)
    assert line.endswith("insufficient storage resources available (10047)")
    assert server.asked == []
