"""No answer has more bytes than the server takes, and nothing is out of reach for that."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.talk import Body
from tests.unit.talk import talking as any_talking
from tests.unit.test_api_schemas import Held
from wpa.client import Client
from wpa.engine.pages import Page, fitting, page_by_key
from wpa.model.limits import Limits
from wpa.settings import Settings
from wpa.wire import ENVELOPE_BYTES, limits_of

ANSWER_BYTES = 16 * 1024
PAUSES = {
    "id": "pauses",
    "version": "1",
    "steps": [{"id": "a", "uses": "core.wait", "with": {"signal": "go"}}],
}
ASKS = {
    "id": "asks",
    "version": "1",
    "steps": [
        {
            "id": "a",
            "uses": "core.approval",
            "foreach": {"in": "input.texts", "concurrency": 50},
            "with": {"message": "${item}"},
        }
    ],
}


class Measured(Held):
    """No reply is larger than allowed, and each is as its schema says."""

    async def __call__(self, verb: str, **request: Any) -> Body:
        reply = await super().__call__(verb, **request)
        assert size(reply) <= ANSWER_BYTES + ENVELOPE_BYTES
        return reply


class Asking(Client):
    """A client that asks the API directly."""

    def __init__(self, talk: Measured) -> None:
        self._talk = talk

    async def request(self, verb: str, body: Body | None = None) -> Body:
        return await self._talk.ok(verb, **(body or {}))


def talking(**given: Any) -> Any:
    return any_talking(Measured, Limits(answer_bytes_max=ANSWER_BYTES), **given)


def size(value: Any) -> int:
    return len(msgspec.json.encode(value))


def test_an_answer_may_have_what_the_server_takes() -> None:
    assert limits_of(Settings(), 256 * 1024).answer_bytes_max == 255 * 1024


class TestPage:
    def test_it_takes_what_fits_and_no_row_more_than_was_asked_for(self) -> None:
        page = Page(30)
        assert page.add_all([{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}]) == 3  # eight bytes, with the comma
        page = Page(1_000_000, rows_max=2)
        assert page.add_all([{"a": 1}, {"a": 2}, {"a": 3}]) == 2

    def test_the_first_row_is_taken_whatever_it_has(self) -> None:
        page = Page(100)
        assert page.add({"id": "x", "text": "y" * 1_000})
        assert not page.add({"id": "z"})
        (row,) = page.rows
        assert (row["id"], row["cut"]) == ("x", size({"id": "x", "text": "y" * 1_000}))
        assert row["text"].startswith("yyyy")
        assert row["text"].endswith("… (1000 characters)")

    def test_a_row_may_be_larger_than_a_page_if_the_server_takes_it(self) -> None:
        page = Page(8 * 1024 * 1024)
        large = {"text": "x" * 3_000_000}
        assert page.add(large)
        assert page.rows == [large]
        assert not page.add({"a": 1})

    def test_by_key(self) -> None:
        rows = [(f"k{n}", {"n": n}) for n in range(9)]
        found, body = [], {}
        for _ in range(5):
            page, where = page_by_key(reversed(rows), body, 20)
            found += [row["n"] for row in page]
            body = {"after": where["next"]}
        assert (found, where) == (list(range(9)), {"more": False, "next": ""})


class TestFitting:
    def test_what_fits_is_the_row_itself(self) -> None:
        row = {"a": [1, 2]}
        assert fitting(row, size(row)) is row

    def test_what_is_short_stays(self) -> None:
        row = {"id": "x", "names": ["n"] * 500, "error": {"type": "E", "message": "\0" * 500}, "n": 1}
        cut = fitting(row, 500)
        assert (cut["id"], cut["n"], cut["error"]["type"]) == ("x", 1, "E")
        assert 0 < len(cut["names"]) < 500
        assert set(cut["names"]) == {"n"}
        assert cut["error"]["message"].endswith("(500 characters)")

    def test_an_object_of_too_many_members_is_left_out(self) -> None:
        row = {"id": "x", "output": {str(n): n for n in range(1_000)}}
        assert fitting(row, 500)["output"] == {"$omitted": {"size": size(row["output"])}}

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner, max_size=8),
            max_leaves=200,
        ),
        st.integers(200, 2_000),
    )
    def test_whatever_it_is_it_fits(self, value: Any, most: int) -> None:
        row = {"id": "x", "value": value}
        cut = fitting(row, most)
        assert size(cut) <= most
        assert ("cut" in cut) is (size(row) > most)


class TestHistory:
    async def test_every_event_is_told_in_pages_that_fit(self) -> None:
        async with talking() as talk:
            await talk.ok("deploy", document=PAUSES)
            await talk.start("x", "pauses")
            await talk.comes_to("x", "WAITING")
            for number in range(30):
                verb = ("pause", "resume")[number % 2]
                await talk.ok(verb, execution_id="x", reason="r" * 1_000)
            await talk.ok("pause", execution_id="x", reason="again")
            await talk.ok("signal", execution_id="x", signal="go", payload={"text": "s" * 20_000})
            await talk.ok("resume", execution_id="x", reason="last")
            await talk.comes_to("x", "COMPLETED")
            events = await Asking(talk).history("x")
            assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
            assert sum(event["data"].get("reason") == "r" * 1_000 for event in events) == 30
            assert [event["event"] for event in events if "cut" in event] == [
                "workflow_signalled",
                "workflow_step_completed",
                "workflow_completed",
            ]
            (resumed,) = (event for event in events if event["data"].get("reason") == "last")
            assert "cut" not in resumed
            few = await talk.ok("history", execution_id="x", limit=2)
            assert (len(few["events"]), few["more"]) == (2, True)
            rest = await talk.ok("history", execution_id="x", after=2, position=few["next"], limit=1)
            assert rest["events"] == events[2:3]

    async def test_without_a_position_it_is_found_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("wpa.engine.api_executions.READ_AT_ONCE", 2)
        async with talking() as talk:
            await talk.ok("deploy", document=PAUSES)
            await talk.start("x", "pauses")
            await talk.comes_to("x", "WAITING")
            for verb in ("pause", "resume", "pause"):
                await talk.ok(verb, execution_id="x")
            events = (await talk.ok("history", execution_id="x"))["events"]
            assert (await talk.ok("history", execution_id="x", after=3))["events"] == events[3:]
            assert (await talk.ok("history", execution_id="x", after=9_999))["events"] == []
            assert (await talk.refused("history", execution_id="y")).code == "unknown_execution"


class TestApprovals:
    async def test_all_that_wait_are_found(self) -> None:
        async with talking() as talk:
            await talk.ok("deploy", document=ASKS)
            asked = {f"e{n}": [f"{n} {'m' * 3_000}"] for n in range(12)}
            asked["many"] = [f"{n} {'m' * 2_000}" for n in range(20)]
            asked["large"] = ["contract " * 20_000, "well?"]
            for execution, texts in asked.items():
                await talk.start(execution, "asks", texts=texts)
                await talk.comes_to(execution, "WAITING")
            found: dict[str, list[str]] = {execution: [] for execution in asked}
            for row in await Asking(talk).approvals(limit=None):
                message = row["approval"]["message"]
                if "cut" in row:
                    assert message.endswith("(180000 characters)")
                    message = asked["large"][0]
                found[row["execution_id"]].append(message)
            assert {execution: sorted(texts) for execution, texts in found.items()} == {
                execution: sorted(texts) for execution, texts in asked.items()
            }

    async def test_those_of_one_execution_go_on_after_a_slot_that_is_answered_by_then(self) -> None:
        async with talking() as talk:
            await talk.ok("deploy", document=ASKS)
            texts = [f"{n:02} {'m' * 2_000}" for n in range(20)]
            await talk.start("many", "asks", texts=texts)
            await talk.comes_to("many", "WAITING")
            first = await talk.ok("approvals", execution_id="many")
            assert (first["more"], first["looked_at"]) == (False, 1)
            assert first["rest"]["after"] in {row["slot"] for row in first["approvals"]}
            await talk.ok("answer", execution_id="many", step=first["rest"]["after"], approved=True)
            await talk.comes_to("many", "WAITING")
            rows, page = first["approvals"], first
            while "rest" in page:
                page = await talk.ok("approvals", **page["rest"])
                rows += page["approvals"]
            assert sorted(row["approval"]["message"] for row in rows) == texts


class TestOthers:
    async def test_definitions_however_many(self) -> None:
        async with talking() as talk:
            for number in range(40):
                document = {**PAUSES, "id": f"p{number % 4}", "version": f"{number}"}
                await talk.ok("deploy", document=document, deployed_by="somebody " * 40)
            await talk.ok("deploy", document=ASKS, deployed_by="x" * ANSWER_BYTES)
            rows = await Asking(talk).definitions()
            assert len({(row["workflow_id"], row["version"]) for row in rows}) == len(rows) == 41
            assert [row["workflow_id"] for row in rows] == sorted(row["workflow_id"] for row in rows)
            assert [row["workflow_id"] for row in rows if "cut" in row] == ["asks"]
            assert {row["version"] for row in rows if row["latest"]} == {"1", "36", "37", "38", "39"}

    async def test_dead_letters_however_long_their_reasons(self) -> None:
        async with talking() as talk:
            tasks = talk.services.ports.tasks
            buried = []
            for number in range(30):
                reason = {"Wpa-Code": "not_json", "Wpa-Reason": "r" * (30_000 if number == 17 else 1_000)}
                buried.append(await tasks.bury("acme", b"x" * 20_000, reason))
            client = Asking(talk)
            letters = await client.dlq_list()
            assert [letter["sequence"] for letter in letters] == buried[::-1]
            assert [letter["sequence"] for letter in letters if "cut" in letter] == [buried[17]]
            assert letters[0]["message"] == "r" * 1_000
            assert [letter["sequence"] for letter in await client.dlq_list(13)] == buried[:-14:-1]

    async def test_a_dead_letter_is_shown_with_what_there_is_room_for(self) -> None:
        async with talking() as talk:
            tasks = talk.services.ports.tasks
            small = await tasks.bury("acme", b"x" * 1_000, {"Wpa-Code": "not_json"})
            large = await tasks.bury("acme", b"\0" * 20_000, {"Wpa-Code": "not_json"})
            shown = (await talk.ok("dlq_show", sequence=small))["letter"]
            assert (shown["text"], "cut" in shown) == ("x" * 1_000, False)
            assert shown["base64"].startswith("eHh4")
            shown = (await talk.ok("dlq_show", sequence=large))["letter"]
            assert (shown["base64"], shown["size"], shown["code"]) == (None, 20_000, "not_json")
            assert shown["text"].endswith("(20000 characters)")

    async def test_workers_and_schedules(self) -> None:
        async def roster() -> list[Body]:
            about = {"host": "h", "pid": 1, "version": "1", "started_at": "2026-11-20T10:00:00.000Z"}
            types = [f"core.step_{n}" for n in range(100)]
            return [{"worker": f"w{n:03}", **about, "step_types": types} for n in range(50)]

        class Schedules:
            async def list(self, tenant: str) -> list[Body]:
                return [{"workflow_id": f"s{n:03}", "cron": "x" * 900} for n in range(50)]

        async with talking(roster=roster, schedules=Schedules()) as talk:
            client = Asking(talk)
            assert [row["worker"] for row in await client.workers()] == [f"w{n:03}" for n in range(50)]
            assert [row["workflow_id"] for row in await client.schedules()] == [f"s{n:03}" for n in range(50)]

    async def test_the_first_of_very_many_problems(self) -> None:
        document = {"id": "bad", "version": "1", "steps": [{"id": f"s{n}", "uses": 5} for n in range(900)]}
        async with talking() as talk:
            checked = await talk.ok("validate", document=document)
            assert checked["cut"] > ANSWER_BYTES
            assert 50 < len(checked["problems"]) < 900
            reply = await talk("deploy", document=document)
            assert (reply["error"]["code"], reply["ok"]) == ("invalid_definition", False)
            assert reply["error"]["problems"][0] == checked["problems"][0]

    async def test_status_of_one_with_very_many_steps(self) -> None:
        steps = [{"id": f"s{n:03}", "uses": "core.noop"} for n in range(200)]
        async with talking() as talk:
            await talk.ok("deploy", document={"id": "long", "version": "1", "steps": steps})
            ended = await talk.run("x", "long", text="x" * 3_000)
            assert ended["progress"]["completed"] == 200
            assert ended["cut"] > ANSWER_BYTES
            assert [step["step"] for step in ended["steps"]] == [
                f"s{n:03}" for n in range(len(ended["steps"]))
            ]
            assert ended["steps"]
