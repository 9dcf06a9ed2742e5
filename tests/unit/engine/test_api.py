"""What the API answers, and whether it records or queues what is asked: over the ports in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.talk import TENANT, Talk, talking
from wpa.engine.crew import Crew
from wpa.errors import FlowMissing, NotFound, Unavailable
from wpa.model.codec import encode_event
from wpa.model.events import Event
from wpa.ports.journal import Stored

Body = dict[str, Any]

WAITS = {
    "id": "order",
    "version": "1",
    "steps": [
        {"id": "wait", "uses": "core.wait", "with": {"signal": "go"}},
        {"id": "then", "uses": "core.echo", "with": {"n": 1}, "needs": ["wait"]},
    ],
}


class Schedules:
    """Keeps one schedule."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def _change(self, *call: str) -> Body:
        self.calls.append(call)
        if call[-1] != "order":
            raise NotFound("unknown_schedule", f"workflow {call[-1]!r} has no schedule")
        return {"workflow_id": "order", "paused": call[0] == "pause"}

    async def deployed(self, tenant: str, program: Any) -> None:
        self.calls.append(("deployed", tenant, program.id, program.version))

    async def list(self, tenant: str) -> list[Body]:
        return [self._change("list", tenant, "order")]

    async def pause(self, tenant: str, workflow: str) -> Body:
        return self._change("pause", tenant, workflow)

    async def resume(self, tenant: str, workflow: str) -> Body:
        return self._change("resume", tenant, workflow)

    async def trigger(self, tenant: str, workflow: str, execution: str = "") -> Body:
        return self._change("trigger", tenant, workflow) | {"execution_id": execution or "order-now"}

    async def delete(self, tenant: str, workflow: str) -> Body:
        return self._change("delete", tenant, workflow)


async def waiting(talk: Talk, execution: str = "x") -> None:
    await talk.ok("deploy", document=WAITS)
    await talk.start(execution)
    await talk.comes_to(execution, "WAITING")


async def history(talk: Talk, execution: str = "x") -> list[str]:
    events = (await talk.ok("history", execution_id=execution))["events"]
    return [event["event"].removeprefix("workflow_") for event in events]


async def test_what_needs_a_driver_is_queued_and_what_needs_none_is_recorded_at_once() -> None:
    async with talking() as talk:
        await waiting(talk)
        assert (await talk.ok("pause", execution_id="x"))["queued"] is False
        assert (await history(talk))[-1] == "paused"
        assert (await talk.ok("signal", execution_id="x", signal="go"))["queued"] is False
        assert (await history(talk))[-1] == "signalled"
        assert (await talk.ok("resume", execution_id="x"))["queued"] is True
        await talk.comes_to("x", "COMPLETED")


async def test_a_second_time_is_a_duplicate() -> None:
    async with talking() as talk:
        await waiting(talk)
        for verb in ("pause", "pause"):
            reply = await talk.ok(verb, execution_id="x")
        assert reply == {"ok": True, "execution_id": "x", "duplicate": True, "queued": False}
        first = await talk.ok("signal", execution_id="x", signal="go", id="1")
        again = await talk.ok("signal", execution_id="x", signal="go", id="1")
        other = await talk.ok("signal", execution_id="x", signal="go")
        assert [reply["duplicate"] for reply in (first, again, other)] == [False, True, False]
        assert (await talk.ok("status", execution_id="x"))["execution"]["signals"]["count"] == 2


async def test_who_loses_the_append_decides_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking() as talk:
        await waiting(talk)
        await talk.ok("pause", execution_id="x")
        journal = talk.services.ports.journal
        append, between = journal.append, [{"signal": "go", "id": "first"}]

        async def slower(event: Event, after: int) -> int:
            if between:
                await talk.ok("signal", execution_id="x", **between.pop())
            position: int = await append(event, after)
            return position

        monkeypatch.setattr(journal, "append", slower)
        assert not (await talk.ok("signal", execution_id="x", signal="go", id="second"))["queued"]
        stored: list[Stored] = await journal.read(TENANT, "x")
        told = [event.data["signal"]["id"] for _, event in stored if event.event == "workflow_signalled"]
        assert told == ["first", "second"]


async def test_an_execution_that_is_just_being_started_is_waited_for() -> None:
    async with talking() as talk:
        await talk.ok("deploy", document=WAITS)
        asked = asyncio.create_task(talk.ok("signal", execution_id="soon", signal="go"))
        await asyncio.sleep(0.1)
        assert not asked.done()
        await talk.start("soon")
        assert not (await asked)["duplicate"]
        await talk.comes_to("soon", "COMPLETED")


@pytest.mark.parametrize(
    ("verb", "request_", "code", "words"),
    [
        ("signal", {"signal": "go"}, "bad_request", "$.execution_id is missing"),
        ("signal", {"execution_id": "x"}, "bad_request", "$.signal is missing"),
        ("signal", {"execution_id": "x", "signal": []}, "bad_request", "must be a string, not an array"),
        ("signal", {"execution_id": "x", "signal": "goo"}, "bad_signal", "did you mean 'go'"),
        ("answer", {"execution_id": "x", "approved": True}, "bad_request", "wpa approvals list"),
        ("answer", {"execution_id": "x", "step": "a"}, "bad_request", "$.approved must be true or false"),
        ("answer", {"execution_id": "x", "step": "a", "approved": 1}, "bad_request", "not a number"),
        ("answer", {"execution_id": "x", "step": "a", "approved": True}, "not_waiting", "none is open"),
        ("cancel", {"execution_id": "x", "compensate": "no"}, "not_a_task", "$.compensate: "),
        ("pause", {"execution_id": "x", "reason": 5}, "not_a_task", "$.reason: "),
        ("pause", {"execution_id": "x", "metadata": 5}, "not_a_task", "$.metadata: "),
        ("pause", {"execution_id": "x", "metadata": {"user_id": "a\nb"}}, "invalid_name", "user_id"),
        ("resume", {"execution_id": "nobody"}, "unknown_execution", "no execution nobody"),
        ("migrate", {"execution_id": "x"}, "bad_request", "wpa definitions"),
        ("migrate", {"execution_id": "x", "version": "7"}, "unknown_version", "the latest is '1'"),
        ("retry", {"execution_id": ["x"]}, "bad_request", "$.execution_id must be a string"),
        ("retry", {"execution_id": "a.b"}, "invalid_name", "execution id 'a.b'"),
        ("rerun", {"execution_id": "x", "from_step": 5}, "bad_request", "$.from_step must be a string"),
        ("rerun", {"execution_id": "x", "from_step": "zzz"}, "unknown_step", "it has: wait"),
        ("rerun", {"execution_id": "x", "metadata": {"roles": 5}}, "bad_request", "$.metadata"),
        ("rerun", {"execution_id": "x", "new_execution_id": "x"}, "bad_request", "needs another"),
        ("rerun", {"execution_id": "x", "input": {"n": 2**63}}, "bad_number", "$.input.n is an integer"),
        ("approvals", {"limit": 0}, "bad_request", "$.limit"),
        ("list", {"status": 5}, "bad_request", "$.status must be a string"),
        ("list", {"status": "asleep"}, "bad_request", "one of RUNNING, WAITING"),
        ("schedule_pause", {"workflow_id": "order"}, "not_served", "keeps no schedules"),
        ("workers", {}, "not_served", "ask another"),
    ],
)
async def test_what_is_asked_badly_is_refused_with_the_place_and_the_remedy(
    verb: str, request_: Body, code: str, words: str
) -> None:
    async with talking() as talk:
        await waiting(talk)
        error = await talk.refused(verb, **request_)
        assert error.code == code
        assert words in error.message
        assert "$.payload" not in error.message
        assert (await history(talk))[-1] == "waiting"


async def test_a_list_says_what_is_waited_for_and_filters_by_every_status() -> None:
    async with talking() as talk:
        await waiting(talk)
        await waiting(talk, "paused")
        await waiting(talk, "gone")
        await talk.ok("pause", execution_id="paused")
        await talk.ok("signal", execution_id="paused", signal="go")  # its last event says nothing of a pause
        await talk.ok("terminate", execution_id="gone")
        await talk.comes_to("gone", "CANCELLED")
        rows = {row["execution_id"]: row for row in (await talk.ok("list"))["executions"]}
        assert {name: row["status"] for name, row in rows.items()} == {
            "x": "WAITING",
            "paused": "PAUSED",
            "gone": "CANCELLED",
        }
        assert rows["x"]["waiting_for"] == [{"slot": "wait", "step": "wait", "kind": "signal", "name": "go"}]
        for status, names in (("waiting", ["x"]), ("PAUSED", ["paused"]), ("RUNNING", []), ("FAILED", [])):
            found = (await talk.ok("list", status=status))["executions"]
            assert [row["execution_id"] for row in found] == names


async def test_a_status_is_shown_even_where_the_definition_can_not_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with talking() as talk:
        await waiting(talk)
        whole = (await talk.ok("status", execution_id="x"))["execution"]

        async def gone(*_: Any) -> Any:
            raise NotFound("unknown_version", "it was here yesterday")

        monkeypatch.setattr(talk.services.library, "program", gone)
        found = (await talk.ok("status", execution_id="x"))["execution"]
        assert found["blocked"]["type"] == "unknown_version"
        assert [step["step"] for step in found["steps"]] == ["wait"]
        assert (found["status"], found["waiting_for"]) == (whole["status"], whole["waiting_for"])


async def test_what_another_worker_has_the_code_for_is_not_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking() as talk:
        await waiting(talk)
        others: list[Body] = []

        async def roster() -> list[Body]:
            if not others:
                raise Unavailable("the server is away")
            return others

        async def elsewhere(*_: Any) -> Any:
            raise FlowMissing("order")

        async def blocked() -> Any:
            return (await talk.ok("status", execution_id="x"))["execution"]["blocked"]

        services = talk.services
        services.crew = Crew("w1", services.runner.has, services.clock, roster)
        monkeypatch.setattr(services.library, "program", elsewhere)
        assert (await blocked())["type"] == "FlowMissing"
        others.append({"worker": "w2", "flows": ["another"]})
        assert (await blocked())["type"] == "FlowMissing"
        others.append({"worker": "w3", "flows": ["order"]})
        assert await blocked() is None


async def test_who_is_asked_is_not_made_up_where_the_code_is_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = {
        "id": "ask",
        "uses": "core.approval",
        "with": {"roles": ["finance"], "count": 2, "message": "Sell?"},
    }
    async with talking() as talk:
        await talk.ok("deploy", document={"id": "asks", "version": "1", "steps": [step]})
        await talk.start("x", "asks")
        await talk.comes_to("x", "WAITING")
        (row,) = (await talk.ok("approvals"))["approvals"]
        assert (row["approval"]["roles"], "unknown" in row["approval"]) == (["finance"], False)

        async def elsewhere(*_: Any) -> Any:
            raise FlowMissing("asks")

        monkeypatch.setattr(talk.services.library, "program", elsewhere)
        (row,) = (await talk.ok("approvals"))["approvals"]
        assert row["approval"]["unknown"] is True
        (slot,) = (await talk.ok("status", execution_id="x"))["execution"]["waiting_for"]
        assert slot["approval"]["unknown"] is True


async def test_a_rerun_with_an_input_that_leads_elsewhere_is_refused_at_once() -> None:
    branches = {
        "id": "order",
        "version": "1",
        "steps": [
            {"id": "a", "uses": "core.echo", "with": {"n": 1}, "if": "input.go"},
            {"id": "b", "uses": "core.noop", "needs": ["a"]},
        ],
    }
    async with talking() as talk:
        await talk.ok("deploy", document=branches)
        assert (await talk.run("x", go=True))["status"] == "COMPLETED"
        error = await talk.refused("rerun", execution_id="x", from_step="b", input={"go": False})
        assert error.code == "does_not_fit"
        assert "recorded: step a" in error.message
        done = await talk.ok("rerun", execution_id="x", from_step="b", new_execution_id="y")
        assert done["forked_from"] == "x"
        assert (await talk.comes_to("y", "COMPLETED"))["forked_from"] == "x"


async def test_schedules_are_set_up_with_a_deploy_and_steered() -> None:
    schedules = Schedules()

    async def roster() -> list[Body]:
        return [{"worker": "w2"}, {"worker": "w1"}]

    async with talking(schedules=schedules, roster=roster) as talk:
        for _ in range(2):
            await talk.ok("deploy", document=WAITS)
        assert schedules.calls == [("deployed", TENANT, "order", "1")] * 2
        assert (await talk.ok("schedule_pause", workflow_id="order"))["schedule"]["paused"] is True
        assert (await talk.ok("schedule_resume", workflow_id="order"))["schedule"]["paused"] is False
        assert (await talk.ok("schedule_trigger", workflow_id="order"))["execution_id"] == "order-now"
        named = {"workflow_id": "order", "new_execution_id": "n1"}
        assert (await talk.ok("schedule_trigger", **named))["execution_id"] == "n1"
        named["new_execution_id"] = "n.1"
        assert (await talk.refused("schedule_trigger", **named)).code == "invalid_name"
        assert (await talk.ok("schedule_delete", workflow_id="order"))["schedule"]
        assert len((await talk.ok("schedule_list"))["schedules"]) == 1
        assert (await talk.refused("schedule_delete", workflow_id="other")).code == "unknown_schedule"
        assert (await talk.refused("schedule_delete", workflow_id="a.b")).code == "invalid_name"
        assert [row["worker"] for row in (await talk.ok("workers"))["workers"]] == ["w1", "w2"]


async def test_a_retry_is_answered_when_the_execution_is_under_way_again() -> None:
    step = {"id": "a", "uses": "core.fail", "with": {"until_attempt": 2}, "retry": {"max_attempts": 1}}
    async with talking() as talk:
        await talk.ok("deploy", document={"id": "order", "version": "1", "steps": [step]})
        assert (await talk.run("x"))["status"] == "FAILED"
        await talk.ok("retry", execution_id="x")
        assert (await talk.ok("status", execution_id="x"))["execution"]["status"] != "FAILED"


async def test_who_ended_an_execution_is_seen_in_its_status() -> None:
    async with talking() as talk:
        await waiting(talk)
        await talk.ok("terminate", execution_id="x", reason="wrong one", metadata={"user_id": "ada"})
        found = await talk.comes_to("x", "CANCELLED")
        assert found["cancel"] == {"compensate": False, "reason": "wrong one", "by": {"user_id": "ada"}}
        assert (found["wake_at"], found["waiting_for"]) == (None, [])
        stored = await talk.services.ports.journal.read(TENANT, "x")
        assert b"wrong one" in encode_event(stored[-1][1])
