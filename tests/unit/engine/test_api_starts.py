"""What an accepted start comes to, whatever is deployed, or started under its id, before a worker takes it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from tests.unit.talk import TENANT, Body, Talk, talking
from wpa.engine.door import VERSION_HEADER

PLAN: Body = {"id": "order", "version": "1", "steps": [{"id": "a", "uses": "core.noop"}]}
STRICTER: Body = PLAN | {"version": "2", "input": {"type": "object", "required": ["currency"]}}
CHAIN: Body = {
    "id": "order",
    "version": "1",
    "steps": [
        {"id": "a", "uses": "core.echo", "with": {"n": 1}},
        {"id": "b", "uses": "core.noop", "needs": ["a"]},
        {"id": "c", "uses": "core.noop", "needs": ["b"]},
    ],
}

HELD: Body = {
    "id": "order",
    "version": "1",
    "steps": [
        {"id": "a", "uses": "core.noop", "compensate": {"uses": "core.noop"}},
        {"id": "hold", "uses": "core.wait", "with": {"signal": "go"}, "needs": ["a"]},
    ],
}


def begin_after(talk: Talk, monkeypatch: pytest.MonkeyPatch, *before: Body) -> None:
    """What is queued from now on is queued after ``before`` has been deployed, too."""
    tasks, documents = talk.services.ports.tasks, list(before)
    publish = tasks.publish

    async def later(tenant: str, data: bytes, headers: dict[str, str]) -> int:
        while documents:
            await talk.ok("deploy", document=documents.pop(0))
        sequence: int = await publish(tenant, data, headers)
        return sequence

    monkeypatch.setattr(tasks, "publish", later)


async def letters(talk: Talk) -> list[str]:
    return [letter["code"] for letter in (await talk.ok("dlq_list"))["letters"]]


async def a_letter(talk: Talk) -> str:
    """The code of the first dead letter, once there is one."""
    async with asyncio.timeout(10):
        while not (codes := await letters(talk)):
            await asyncio.sleep(0.005)
    return codes[-1]


def order(execution: str, **more: Any) -> Body:
    return {"workflow_id": "order", "execution_id": execution, **more}


async def test_it_runs_on_the_version_that_it_was_checked_against(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking() as talk:
        await talk.ok("deploy", document=PLAN)
        begin_after(talk, monkeypatch, STRICTER)
        answer = await talk.ok("start", **order("x"))
        assert (answer["version"], answer["duplicate"]) == ("1", False)
        assert (await talk.comes_to("x", "COMPLETED"))["version"] == "1"
        assert await letters(talk) == []


async def test_started_again_it_is_known_though_what_is_deployed_now_would_refuse_it() -> None:
    async with talking() as talk:
        await talk.ok("deploy", document=PLAN)
        await talk.ok("start", **order("x"))
        await talk.comes_to("x", "COMPLETED")
        await talk.ok("deploy", document=STRICTER)
        again = await talk.ok("start", **order("x"))
        assert (again["version"], again["duplicate"]) == ("1", True)
        assert (await talk.refused("start", **order("y"))).code == "invalid_input"


async def test_a_task_that_was_only_published_takes_the_version_deployed_last() -> None:
    async with talking() as talk:
        for document in (PLAN, PLAN | {"version": "2"}):
            await talk.ok("deploy", document=document)
        task = msgspec.json.encode(order("x", type="workflow_start"))
        await talk.services.ports.tasks.publish(TENANT, task, {})
        assert (await talk.comes_to("x", "COMPLETED"))["version"] == "2"


async def test_a_version_in_a_header_is_checked_as_one_in_a_task() -> None:
    async with talking() as talk:
        await talk.ok("deploy", document=PLAN)
        task = msgspec.json.encode(order("x", type="workflow_start"))
        await talk.services.ports.tasks.publish(TENANT, task, {VERSION_HEADER: "1.>"})
        assert await a_letter(talk) == "invalid_name"


async def test_of_two_under_one_id_that_were_both_accepted_the_loser_is_a_dead_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with talking() as talk:
        await talk.ok("deploy", document=PLAN)
        tasks, both = talk.services.ports.tasks, asyncio.Barrier(2)
        publish = tasks.publish

        async def together(tenant: str, data: bytes, headers: dict[str, str]) -> int:
            async with both:  # each was looked up before either was stored
                sequence: int = await publish(tenant, data, headers)
                return sequence

        monkeypatch.setattr(tasks, "publish", together)
        asked = [order("x", payload={"input_data": {"n": n}}) for n in (1, 2)]
        answers = await asyncio.gather(*(talk.ok("start", **one) for one in asked))
        assert [answer["duplicate"] for answer in answers] == [False, False]
        assert await a_letter(talk) == "conflict"
        state = await talk.comes_to("x", "COMPLETED")
        shown = (await talk.ok("dlq_show", sequence=1))["letter"]
        lost = json.loads(shown["text"])["payload"]["input_data"]
        assert sorted([state["input"]["n"], lost["n"]]) == [1, 2]


async def test_what_has_to_travel_inline_is_measured_before_it_is_accepted() -> None:
    async with talking() as talk:
        await talk.ok("deploy", document=PLAN)
        payload = {"variables": {"text": "x" * 100_000}}
        assert (await talk.refused("start", **order("x", payload=payload))).code == "over_limit"


async def test_a_fork_is_tried_before_it_is_accepted() -> None:
    async with talking() as talk:
        await talk.ok("deploy", document=CHAIN)
        await talk.run("old")
        for fork, code in (
            ({"execution_id": "nobody"}, "unknown_execution"),
            ({"execution_id": "old", "step": "z"}, "unknown_step"),
        ):
            assert (await talk.refused("start", **order("x", fork=fork))).code == code
        await talk.ok("start", **order("x", fork={"execution_id": "old", "step": "b"}))
        assert (await talk.comes_to("x", "COMPLETED"))["forked_from"] == "old"


async def test_what_an_execution_has_done_is_its_own_until_it_ends() -> None:
    async with talking() as talk:
        await talk.ok("deploy", document=HELD)
        await talk.start("old")
        await talk.comes_to("old", "WAITING")
        rerun = {"execution_id": "old", "from_step": "hold", "new_execution_id": "new"}
        assert (await talk.refused("rerun", **rerun)).code == "not_ended"
        await talk.send("cancel", "old")
        await talk.comes_to("old", "CANCELLED")
        error = await talk.refused("rerun", **rerun)
        assert (error.code, "`wpa rerun old --from a`" in error.message) == ("undone", True)
        await talk.ok("rerun", **rerun | {"from_step": "a"})
        await talk.comes_to("new", "WAITING")


async def test_a_rerun_from_another_step_is_another_start() -> None:
    async with talking() as talk:
        await talk.ok("deploy", document=CHAIN)
        await talk.run("old")
        rerun = {"execution_id": "old", "new_execution_id": "new"}
        assert not (await talk.ok("rerun", from_step="b", **rerun))["duplicate"]
        await talk.comes_to("new", "COMPLETED")
        assert (await talk.ok("rerun", from_step="b", **rerun))["duplicate"]
        for from_step in ("c", ""):
            assert (await talk.refused("rerun", from_step=from_step, **rerun)).code == "conflict"
        assert (await talk.refused("start", **order("new", version="1"))).code == "conflict"
