"""What the API answers, and what is recorded of whatever is asked, is as the published schemas say."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.golden.dialogue import FILES, play
from tests.unit.schemas import CLOSED_EVENTS, EVENTS, complaints, component, validator
from tests.unit.talk import Talk, talking
from wpa.model.api import VERBS
from wpa.model.event_data import EVENT_DATA
from wpa.model.live_events import LIVE_EVENTS

GOLDEN_KINDS = {event.event for path in FILES for event in play(json.loads(path.read_text())).journal}
PLAN = {
    "id": "order",
    "version": "1",
    "steps": [
        {"id": "reserve", "uses": "core.echo", "with": {"n": 1}, "compensate": {"uses": "core.noop"}},
        {"id": "wait", "uses": "core.fail", "with": {"until_attempt": 2}, "needs": ["reserve"],
         "retry": {"backoff": {"initial": "1ms"}}},
        {"id": "ship", "uses": "core.fail", "with": {"retryable": False, "message": "no such street"},
         "needs": ["wait"], "if": "input.refused"},
    ],
}  # fmt: skip


class Held(Talk):
    """Every request and every reply is held to its schema."""

    async def __call__(self, verb: str, **request: Any) -> dict[str, Any]:
        reply = await super().__call__(verb, **request)
        shapes = VERBS[verb]
        if reply["ok"]:
            assert complaints(component(shapes.request.__name__), request) == []
        assert complaints(component(shapes.reply.__name__ if reply["ok"] else "Refusal"), reply) == []
        return reply


WAITS = {
    "id": "waits",
    "version": "1",
    "steps": [
        {"id": "first", "uses": "core.noop", "compensate": {"uses": "core.noop"}},
        {"id": "paid", "uses": "core.wait", "with": {"signal": "paid"}, "needs": ["first"]},
        {
            "id": "review",
            "uses": "core.approval",
            "needs": ["paid"],
            "with": {"users": ["ada"], "escalate": [{"after": "1ms", "users": ["bob"]}], "message": "well?"},
        },
        {"id": "late", "uses": "core.wait", "needs": ["review"],
         "with": {"signal": "never", "timeout": "1ms", "default": 0}},
        {"id": "sub", "uses": "core.workflow", "with": {"workflow": "child"}, "needs": ["late"]},
        {"id": "nap", "uses": "core.sleep", "with": {"for": "1h"}, "needs": ["sub"]},
    ],
}  # fmt: skip
CHILD = {"id": "child", "version": "1", "steps": [{"id": "a", "uses": "core.echo", "with": {"n": 1}}]}
FLAKY = {
    "id": "flaky",
    "version": "1",
    "timeout": "1h",
    "steps": [
        {"id": "a", "uses": "core.noop"},
        {"id": "b", "uses": "core.fail", "with": {"until_attempt": 2}, "retry": {"max_attempts": 1},
         "needs": ["a"]},
    ],
}  # fmt: skip


async def asks_of_every_kind(talk: Held) -> None:
    """Everything that can be asked of executions, of three plans."""
    for document in (WAITS, CHILD, FLAKY):
        await talk.ok("deploy", document=document)
    ada = {"user_id": "ada", "roles": ["manager"]}
    await talk.start("x", "waits")
    await talk.comes_to("x", "WAITING")
    await talk.ok("pause", execution_id="x", reason="look", metadata=ada)
    await talk.ok("signal", execution_id="x", signal="paid", payload={"n": 1}, id="s1")
    await talk.comes_to("x", "PAUSED")
    await talk.ok("list", status="PAUSED")
    await talk.ok("resume", execution_id="x")
    while not (await talk.ok("approvals"))["approvals"]:
        await asyncio.sleep(0.005)
    while "bob" not in (await talk.ok("approvals", limit=5))["approvals"][0]["approval"]["users"]:
        await asyncio.sleep(0.005)
    await talk.refused("answer", execution_id="x", step="review", approved=True)
    await talk.ok("answer", execution_id="x", step="review", approved=True, comment="ok", metadata=ada)
    while (
        not (found := await talk.comes_to("x", "WAITING"))["children"]
        or found["waiting_for"][0]["step"] != "nap"
    ):
        await asyncio.sleep(0.005)
    await talk.ok("deploy", document={**WAITS, "version": "2"})
    await talk.ok("migrate", execution_id="x", version="2", metadata=ada)
    while (await talk.comes_to("x", "WAITING"))["version"] != "2":
        await asyncio.sleep(0.005)
    await talk.ok("list", status="WAITING")
    await talk.ok("cancel", execution_id="x", reason="enough")
    await talk.comes_to("x", "CANCELLED")

    await talk.run("f", "flaky")
    await talk.ok("retry", execution_id="f", reason="again")
    await talk.comes_to("f", "COMPLETED")
    again = await talk.ok("rerun", execution_id="f", from_step="b", new_execution_id="g", metadata=ada)
    assert again["execution_id"] == "g"
    await talk.comes_to("g", "FAILED")
    begins = "2999-01-01T00:00:00Z"
    await talk.ok("start", workflow_id="child", execution_id="later", start_at=begins)
    await talk.comes_to("later", "WAITING")
    await talk.ok("terminate", execution_id="later")
    await talk.comes_to("later", "CANCELLED")


class TestApi:
    async def test_it_has_the_described_verbs(self) -> None:
        async with talking(Held) as talk:
            assert sorted(talk.api.verbs) == sorted(VERBS)

    async def test_replies_are_as_described(self) -> None:
        async with talking(Held) as talk:
            assert (await talk("validate", document=PLAN))["problems"] == []
            assert (await talk("validate", document={"id": 5}))["problems"]
            assert (await talk("deploy", document=PLAN, deployed_by="ana"))["created"] is True
            assert (await talk("deploy", document={}))["error"]["code"] == "invalid_definition"
            assert (await talk("definition", workflow_id="order"))["document"] == PLAN
            assert [row["latest"] for row in (await talk("definitions"))["definitions"]] == [True]

            done = await talk.run("good", refused=False)
            assert (done["status"], done["progress"]["skipped"]) == ("COMPLETED", 1)
            undone = await talk.run("bad", refused=True)
            assert (undone["status"], undone["undone"]) == ("ROLLED_BACK", ["reserve"])

            history = await talk("history", execution_id="bad")
            assert history["events"][-1]["event"] == "workflow_rolled_back"
            every = await talk("events", after=0)
            assert (every["events"][-1], every["more"]) == (history["events"][-1], False)
            assert await talk("events") == {"ok": True, "events": [], "more": False, "next": every["next"]}
            rows = (await talk("list", limit=5))["executions"]
            assert [row["execution_id"] for row in rows] == ["bad", "good"]
            assert (await talk("status", execution_id="nobody"))["error"]["code"] == "unknown_execution"

    async def test_everything_seen_on_the_event_subjects_is_as_described(self) -> None:
        async with talking(Held) as talk:
            await talk("deploy", document=PLAN)
            await talk.run("bad", refused=True)
        names = set()
        for subject, body in talk.seen:
            names.add(body["event"])
            assert body["event"] in (LIVE_EVENTS if subject.endswith(".live") else EVENT_DATA)
            assert complaints(EVENTS, body) == []
        assert {"step_started", "workflow_started", "workflow_step_failed", "workflow_rolled_back"} <= names

    async def test_whatever_is_asked_is_answered_and_recorded_as_described(self) -> None:
        async with talking(Held) as talk, asyncio.timeout(30):
            await asks_of_every_kind(talk)
        names = set()
        for subject, body in talk.seen:
            if not subject.endswith(".live"):
                names.add(body["event"])
                own = {"$ref": f"#/$defs/{body['event']}", "$defs": CLOSED_EVENTS["$defs"]}
                assert complaints(validator(own), body) == []
        assert set(EVENT_DATA) - names - GOLDEN_KINDS == {"workflow_continued"}  # only flows do

    async def test_dead_letters_are_as_described(self) -> None:
        async with talking(Held) as talk:
            await talk("deploy", document=PLAN)
            tasks = talk.services.ports.tasks
            await tasks.publish("acme", b'{"type": "workflow_start", "payload": NaN}', {"Traceparent": "t"})
            async with asyncio.timeout(10):
                while not (letters := (await talk("dlq_list", limit=10))["letters"]):
                    await asyncio.sleep(0.01)
            assert letters[0]["code"] == "not_json"
            letter = (await talk("dlq_show", sequence=letters[0]["sequence"]))["letter"]
            assert letter["text"] == '{"type": "workflow_start", "payload": NaN}'
            assert (await talk("dlq_retry", sequence=letters[0]["sequence"]))["ok"]
            assert (await talk("dlq_show", sequence=letters[0]["sequence"]))["error"][
                "code"
            ] == "unknown_letter"
