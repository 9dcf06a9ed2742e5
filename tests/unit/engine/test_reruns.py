"""Work that stands belongs to one execution: of several reruns, one takes it over."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tests.unit.talk import TENANT, Body, Talk, talking
from wpa.engine import forks
from wpa.model.limits import Limits

RESERVE: Body = {"id": "reserve", "uses": "core.echo", "with": {"n": 1}, "compensate": {"uses": "core.noop"}}
HOLD: Body = {"id": "hold", "uses": "core.wait", "with": {"signal": "go"}, "needs": ["reserve"]}
PLAN: Body = {"id": "order", "version": "1", "steps": [RESERVE, HOLD]}
HARMLESS: Body = PLAN | {"steps": [{k: v for k, v in RESERVE.items() if k != "compensate"}, HOLD]}


async def ended(talk: Talk, document: Body = PLAN) -> None:
    """``one`` has ended at ``hold``, and what it has reserved stands."""
    await talk.ok("deploy", document=document)
    await talk.start("one")
    await talk.comes_to("one", "WAITING")
    await talk.ok("terminate", execution_id="one")
    await talk.comes_to("one", "CANCELLED")


async def rerun(talk: Talk, new: str, old: str = "one", step: str = "hold") -> Body:
    asked = {"execution_id": old, "from_step": step, "new_execution_id": new}
    return await talk("rerun", **asked)


async def publish(talk: Talk, start: Body) -> None:
    data = msgspec.json.encode({"type": "workflow_start", **start})
    await talk.services.ports.tasks.publish(TENANT, data, {})


async def letters(talk: Talk) -> list[Body]:
    """The dead letters, once there are any."""
    async with asyncio.timeout(10):
        while not (found := (await talk.ok("dlq_list"))["letters"]):
            await asyncio.sleep(0.005)
    return list(found)


async def test_what_a_rerun_has_taken_over_and_undone_no_other_goes_on_from() -> None:
    async with talking() as talk:
        await ended(talk)
        assert (await rerun(talk, "two"))["ok"]
        await talk.comes_to("two", "WAITING")
        await talk.ok("cancel", execution_id="two")
        assert (await talk.comes_to("two", "CANCELLED"))["undone"] == ["reserve"]
        error = (await rerun(talk, "three"))["error"]
        assert error["code"] == "taken_over"
        assert "two" in error["message"]
        assert (await rerun(talk, "three", old="two"))["error"]["code"] == "undone"


async def test_of_two_reruns_one_takes_over_what_can_be_undone() -> None:
    async with talking() as talk:
        await ended(talk)
        for _ in range(2):  # asked again, it is the same one
            assert (await rerun(talk, "two"))["ok"]
        assert (await rerun(talk, "three"))["error"]["code"] == "taken_over"
        # Published, it is refused by whoever takes it.
        fork = {"execution_id": "one", "step": "hold"}
        await publish(talk, {"workflow_id": "order", "execution_id": "three", "fork": fork})
        assert [letter["code"] for letter in await letters(talk)] == ["taken_over"]
        await talk.comes_to("two", "WAITING")
        assert (await rerun(talk, "two"))["duplicate"] is True
        assert (await rerun(talk, "four", step="reserve"))["ok"]  # nothing is taken over


async def test_who_has_taken_over_may_be_rerun_in_turn() -> None:
    async with talking() as talk:
        await ended(talk)
        assert (await rerun(talk, "two"))["ok"]
        await talk.comes_to("two", "WAITING")
        await talk.ok("terminate", execution_id="two")
        await talk.comes_to("two", "CANCELLED")
        assert (await rerun(talk, "three", old="two"))["ok"]
        await talk.comes_to("three", "WAITING")


async def test_what_nothing_undoes_may_be_taken_over_again_and_again() -> None:
    async with talking() as talk:
        await ended(talk, HARMLESS)
        for new in ("two", "three"):
            assert (await rerun(talk, new))["ok"]
            await talk.comes_to(new, "WAITING")


async def test_who_never_began_has_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking() as talk:
        await ended(talk)
        await forks.take(talk.services, TENANT, "one", "never")
        assert (await rerun(talk, "two"))["error"]["code"] == "taken_over"
        monkeypatch.setattr(forks, "BEGINS_WITHIN_MS", 0)
        assert (await rerun(talk, "two"))["ok"]
        await talk.comes_to("two", "WAITING")
        assert await forks.taker(talk.services, TENANT, "one") == "two"


async def test_what_was_taken_over_is_not_tried_again_in_place() -> None:
    failing: Body = {"id": "hold", "uses": "core.fail", "with": {"message": "no"}, "needs": ["reserve"]}
    async with talking() as talk:
        await talk.ok("deploy", document=PLAN | {"steps": [RESERVE, failing | {"on_error": "fail"}]})
        await talk.start("one")
        await talk.comes_to("one", "FAILED")
        assert (await rerun(talk, "two"))["ok"]
        await talk.comes_to("two", "FAILED")
        refused = await talk.refused("retry", execution_id="one")
        assert refused.code == "not_retryable"
        assert "two has taken over" in refused.message
        await talk.ok("retry", execution_id="two")


async def test_what_is_too_much_to_be_taken_over_is_refused_at_once() -> None:
    long = {"uses": "core.echo", "with": {"text": "x" * 40_000}}
    steps = [{"id": "a", **long}, {"id": "b", **long, "needs": ["a"]}, HOLD | {"needs": ["b"]}]
    async with talking(limits=Limits(answer_bytes_max=60_000)) as talk:
        await ended(talk, PLAN | {"steps": steps})
        assert (await rerun(talk, "two"))["error"]["code"] == "over_limit"
        assert (await rerun(talk, "two", step="b"))["ok"]
