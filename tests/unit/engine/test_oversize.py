"""What the server takes no message for: it ends with a reason, whoever asked for it, and nothing is tried for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.talk import TENANT, Talk, talking
from wpa.errors import TooLarge
from wpa.kernel.oversize import NAMES_MAX
from wpa.model.codec import encode_event
from wpa.model.events import Event

Body = dict[str, Any]

ITEMS = 300
LONG = "reserve-the-seat-of-each-of-the-passengers"
MOST = 6_000
"""Bytes of an event: fewer than the names of all items have."""


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    async with talking() as talk:
        yield talk


def narrow(talk: Talk, monkeypatch: pytest.MonkeyPatch, *events: str, most: int = MOST) -> None:
    """Have the journal take no more than ``most`` bytes of ``events``; of all of them, where none is named."""
    journal = talk.services.ports.journal
    append = journal.append

    async def appended(event: Event, after: int) -> int:
        size = len(encode_event(event))
        if size > most and (not events or event.event.removeprefix("workflow_") in events):
            raise TooLarge(f"{size} bytes for its journal; the server takes {most}")
        return await append(event, after)

    monkeypatch.setattr(journal, "append", appended)


def saga(*then: Body) -> Body:
    items = {"in": "${input.items}", "concurrency": 5}
    reserve = {"id": LONG, "uses": "core.noop", "foreach": items, "compensate": {"uses": "core.noop"}}
    return {"id": "order", "version": "1", "steps": [reserve, *({**step, "needs": [LONG]} for step in then)]}


FAILS: Body = {"id": "boom", "uses": "core.fail", "with": {"retryable": False}}
AGAIN: Body = {"max_attempts": 1_000, "backoff": {"initial": "100ms", "factor": 1}}
TRIES: Body = {"id": "try", "uses": "core.fail", "retry": AGAIN}
WAITS: Body = {"id": "wait", "uses": "core.wait", "with": {"signal": "go"}}


async def events(talk: Talk, execution: str = "x") -> list[Body]:
    found: list[Body] = (await talk.ok("history", execution_id=execution))["events"]
    return found


async def test_a_rollback_too_long_to_be_written_down_fails_and_says_so(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(talk, monkeypatch)
    await talk.ok("deploy", document=saga(FAILS))
    ended = await talk.run("x", items=list(range(ITEMS)))
    assert (ended["status"], ended["error"]["type"], ended["failed_step"]) == ("FAILED", "OverLimit", "boom")
    assert ended["error"]["message"].startswith("workflow_compensating can't be recorded: ")
    assert f"the server takes {MOST}" in ended["error"]["message"]
    assert f"not_undone has {ITEMS} names, of which these are {NAMES_MAX}" in ended["error"]["message"]
    assert ended["not_undone"] == [LONG] * NAMES_MAX
    assert [event["event"] for event in await events(talk)].count("workflow_recovered") == 0
    monkeypatch.undo()  # a server that takes more
    await talk.ok("retry", execution_id="x")
    again = await talk.comes_to("x", "ROLLED_BACK")
    assert len(again["undone"]) == ITEMS


@pytest.mark.parametrize("verb", ["cancel", "terminate"])
async def test_one_at_rest_that_names_too_many_steps_at_its_end_can_be_ended(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    await talk.ok("deploy", document=saga(WAITS))
    await talk.start("x", items=list(range(ITEMS)))
    await talk.comes_to("x", "WAITING")
    narrow(talk, monkeypatch)
    await talk.ok(verb, execution_id="x")
    ended = await talk.comes_to("x", "CANCELLED")
    assert f"not_undone has {ITEMS} names, of which these are {NAMES_MAX}" in ended["error"]["message"]
    assert len(ended["not_undone"]) == NAMES_MAX


async def test_one_that_is_driven_can_be_ended_as_well(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    await talk.ok("deploy", document=saga(TRIES))
    await talk.start("x", items=list(range(ITEMS)))
    async with asyncio.timeout(20):
        while "workflow_step_failed" not in [event["event"] for event in await events(talk)]:
            await asyncio.sleep(0.01)
    narrow(talk, monkeypatch)
    assert not (await talk.ok("terminate", execution_id="x"))["queued"]
    ended = await talk.comes_to("x", "CANCELLED")
    assert f"not_undone has {ITEMS} names, of which these are {NAMES_MAX}" in ended["error"]["message"]


async def test_what_a_step_came_to_and_what_it_opens(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(talk, monkeypatch, "step_completed", "completed")
    steps = [{"id": "make", "uses": "core.echo", "with": {"text": "x" * MOST}}]
    await talk.ok("deploy", document={"id": "order", "version": "1", "steps": steps})
    ended = await talk.run("x")
    assert (ended["status"], ended["error"]["type"]) == ("FAILED", "OverLimit")
    assert ended["error"]["message"].startswith("workflow_step_completed of make can't be recorded: ")


async def test_a_start_becomes_a_dead_letter(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(talk, monkeypatch)
    await talk.ok("deploy", document=saga())
    await talk.services.ports.tasks.publish(
        TENANT,
        b'{"type": "workflow_start", "workflow_id": "order", "execution_id": "x",'
        b'"payload": {"input_data": {"items": ["' + b"x" * MOST + b'"]}}}',
        {},
    )
    letters: list[Body] = []
    while not letters:
        letters = (await talk.ok("dlq_list"))["letters"]
    assert letters[0]["code"] == "over_limit"
    assert f"the server takes {MOST}" in letters[0]["message"]
    assert (await talk.refused("status", execution_id="x")).code == "unknown_execution"


async def test_an_ask_becomes_a_dead_letter(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    await talk.ok("deploy", document=saga(WAITS))
    await talk.start("x", items=[1])
    await talk.comes_to("x", "WAITING")
    narrow(talk, monkeypatch)
    await talk.send("signal", "x", signal="go", payload={"text": "x" * MOST})
    letters: list[Body] = []
    while not letters:
        letters = (await talk.ok("dlq_list"))["letters"]
    assert letters[0]["code"] == "over_limit"
    assert (await talk("status", execution_id="x"))["execution"]["status"] == "WAITING"


async def test_the_start_of_a_child_is_rejected_and_its_parent_told(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = talk.services.ports.tasks
    publish = tasks.publish

    async def published(tenant: str, data: bytes, headers: dict[str, str]) -> int:
        if len(data) > MOST:
            raise TooLarge(f"{len(data)} bytes for workflow.tasks.acme; the server takes {MOST}")
        return await publish(tenant, data, headers)

    call = {"workflow": "child", "input": {"text": "${input.text + input.text}"}}
    await talk.ok("deploy", document={"id": "child", "version": "1", "steps": [WAITS]})
    steps = [{"id": "sub", "uses": "core.workflow", "with": call}]
    await talk.ok("deploy", document={"id": "order", "version": "1", "steps": steps})
    monkeypatch.setattr(tasks, "publish", published)
    ended = await talk.run("x", text="x" * (MOST * 2 // 3))
    assert (ended["status"], ended["error"]["type"]) == ("FAILED", "ChildFailed")
    assert "over_limit" in ended["error"]["message"]
    assert f"the server takes {MOST}" in ended["error"]["message"]
    letters = (await talk.ok("dlq_list"))["letters"]
    assert [letter["code"] for letter in letters] == ["over_limit"]


async def test_a_request_is_refused_for_good(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def publish(*_: Any) -> int:
        raise TooLarge("9 MB; the server takes 8")

    await talk.ok("deploy", document=saga())
    monkeypatch.setattr(talk.services.ports.tasks, "publish", publish)
    error = await talk.refused("start", workflow_id="order", execution_id="x", payload={"input_data": {}})
    assert (error.code, error.message) == ("over_limit", "9 MB; the server takes 8")
