"""The published schemas: generated, up to date, and true of what the engine really takes and says."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.golden.dialogue import FILES, play
from tests.unit.model.test_codec import BAD_NAMES, MINIMAL, envelopes
from wpa.adapters.memory import MemoryServer, open_ports
from wpa.cli.schema_files import render_all
from wpa.engine.api import Api
from wpa.engine.runner import StepRunner
from wpa.engine.services import Services
from wpa.engine.worker import Worker
from wpa.errors import TaskRejected
from wpa.hooks import core
from wpa.hooks.host import PluginHost
from wpa.kernel.fold import LEGAL
from wpa.model.api import VERBS
from wpa.model.codec import decode_task, encode_event
from wpa.model.event_data import EVENT_DATA, LIVE_EVENTS
from wpa.model.limits import Limits
from wpa.settings import Settings

SCHEMAS = Path(__file__).parents[2] / "schemas"
RENDERED = render_all()
FORMATS = Draft202012Validator.FORMAT_CHECKER


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RENDERED[name])
    return found


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FORMATS)


def complaints(validator: Draft202012Validator, value: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def closed(schema: dict[str, Any], part: str = "$defs") -> dict[str, Any]:
    """The same schema, refusing what the models don't name: a test must see what is not written down."""
    schema = copy.deepcopy(schema)
    definitions = schema["$defs"] if part == "$defs" else schema["components"]["schemas"]
    for name, definition in definitions.items():
        own = "allOf" not in definition and not name.startswith("Definition")
        if own and definition.get("type") == "object":
            definition["additionalProperties"] = False
    return schema


TASKS = validator(schema("task.schema.json"))
CLOSED_EVENTS = closed(schema("event.schema.json"))
EVENTS = validator(CLOSED_EVENTS)


class TestFiles:
    @pytest.mark.parametrize("name", sorted(RENDERED))
    def test_is_up_to_date(self, name: str) -> None:
        written = (SCHEMAS / name).read_text(encoding="utf-8")
        assert written == RENDERED[name], "write it with `wpa schema --out-dir schemas`"

    def test_there_is_nothing_else(self) -> None:
        assert {path.name for path in SCHEMAS.glob("*.json")} == set(RENDERED)

    @pytest.mark.parametrize("name", sorted(name for name in RENDERED if name.endswith(".schema.json")))
    def test_is_a_schema_with_a_name_and_a_place(self, name: str) -> None:
        found = schema(name)
        Draft202012Validator.check_schema(found)
        assert found["$id"].endswith(f"/{name}")
        assert found["title"].startswith("wpa ")

    def test_they_are_the_same_at_every_call(self) -> None:
        assert render_all() == RENDERED


class TestTasks:
    @pytest.mark.parametrize(
        "task",
        [
            MINIMAL,
            {"type": "workflow_start", "workflow_id": "order"},
            {
                "task_id": "3f1d0a6e-90ab-4ab0-8f0b-4c9a4d2f9a11",
                "tenant_id": "acme",
                "workflow_id": "order",
                "execution_id": "order-4711",
                "created_at": "2026-11-20T10:00:00Z",
                "type": "workflow_start",
                "priority": 5,
                "metadata": {"agent_id": "", "session_id": "", "user_id": "", "source": "api"},
                "payload": {"input_data": {}, "variables": {}, "execution_context": {}},
            },
            {**MINIMAL, "another_language": {"adds": ["things"]}},
            {**MINIMAL, "payload": {"input_data": [1, "any", None]}},
        ],
    )
    def test_good_ones_fit(self, task: dict[str, Any]) -> None:
        assert complaints(TASKS, task) == []
        decode_task(json.dumps(task).encode(), "acme", Limits())

    @pytest.mark.parametrize(
        "wrong",
        [
            {"type": "workflow_begin"},
            {"type": None},
            {"workflow_id": ""},
            {"priority": 10},
            {"priority": -1},
            {"priority": "5"},
            {"created_at": "yesterday"},
            {"metadata": {"user_id": 5}},
            {"metadata": {"user_id": "x" * 300}},
            {"payload": []},
            {"payload": {"variables": []}},
            {"version": "1..2"},
            *({"execution_id": name} for name in BAD_NAMES),
            *({"workflow_id": name} for name in BAD_NAMES),
            *({"tenant_id": name} for name in BAD_NAMES),
        ],
    )
    def test_bad_ones_do_not_fit(self, wrong: dict[str, Any]) -> None:
        assert complaints(TASKS, {**MINIMAL, **wrong})
        with pytest.raises(TaskRejected):
            decode_task(json.dumps({**MINIMAL, **wrong}).encode(), "acme", Limits())

    def test_without_a_type_or_a_workflow(self) -> None:
        assert complaints(TASKS, {})
        assert complaints(TASKS, {"type": "workflow_start"})

    @given(envelopes, st.booleans())
    def test_what_the_door_lets_in_fits(self, envelope: dict[str, Any], good: bool) -> None:
        task = {**envelope, **(MINIMAL if good else {})}
        try:
            decode_task(json.dumps(task).encode(), "acme", Limits())
        except TaskRejected:
            return
        assert complaints(TASKS, task) == []


class TestEvents:
    def test_every_event_of_the_kernel_is_described(self) -> None:
        assert set(EVENT_DATA) == {name for _, name in LEGAL}

    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
    def test_the_golden_events_fit_key_by_key(self, path: Path) -> None:
        table = play(json.loads(path.read_text()))
        for event in table.journal:
            body = json.loads(encode_event(event))
            # Of all the shapes, only its own may be judged, or the complaint names them all.
            own = {"$ref": f"#/$defs/{event.event}", "$defs": CLOSED_EVENTS["$defs"]}
            assert complaints(validator(own), body) == []
            assert complaints(EVENTS, body) == []

    def test_the_golden_events_are_of_every_kind(self) -> None:
        seen = {event.event for path in FILES for event in play(json.loads(path.read_text())).journal}
        assert seen == set(EVENT_DATA)

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda event: event.pop("data"),
            lambda event: event.update(event="workflow_ended"),
            lambda event: event.update(event="workflow_failed"),
            lambda event: event.update(seq=0),
            lambda event: event.update(execution_id="a.b"),
            lambda event: event["data"].pop("next"),
            lambda event: event["data"].update(progress_percentage=101),
        ],
    )
    def test_a_spoilt_event_does_not_fit(self, spoil: Any) -> None:
        event = json.loads(encode_event(play(json.loads(FILES[0].read_text())).journal[0]))
        assert complaints(EVENTS, event) == []
        spoil(event)
        assert complaints(EVENTS, event)


ASYNCAPI = schema("asyncapi.json")


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


class TestAsyncApi:
    def test_every_reference_leads_somewhere(self) -> None:
        for reference in set(references(ASYNCAPI)):
            found: Any = ASYNCAPI
            for token in reference.removeprefix("#/").split("/"):
                found = found[token]
            assert found

    def test_every_subject_of_the_contract_is_there(self) -> None:
        addresses = {channel["address"] for channel in ASYNCAPI["channels"].values()}
        assert addresses >= {
            "workflow.tasks.{tenant}",
            "workflow.events.{tenant}.{execution}",
            "workflow.events.{tenant}.{execution}.live",
            "workflow.dlq.{tenant}",
            "workflow.emit.{tenant}.{subject}",
            *(f"workflow.api.{{tenant}}.{verb}" for verb in VERBS),
        }

    def test_parameters_are_those_of_the_address(self) -> None:
        for channel in ASYNCAPI["channels"].values():
            named = {
                token
                for token in ("tenant", "execution", "subject")
                if f"{{{token}}}" in str(channel["address"])
            }
            assert named == set(channel.get("parameters", {}))

    def test_every_channel_is_used_by_an_operation(self) -> None:
        used = set(references(ASYNCAPI["operations"]))
        assert used == {f"#/channels/{name}" for name in ASYNCAPI["channels"]}

    def test_every_schema_is_one(self) -> None:
        for name in ASYNCAPI["components"]["schemas"]:
            component(name)


CLOSED = closed(ASYNCAPI, "components")["components"]


def component(name: str) -> Draft202012Validator:
    return validator({"$ref": f"#/components/schemas/{name}", "components": CLOSED})


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


class Talk:
    """A worker over the ports in memory, and its API. Every reply is held to its schema."""

    def __init__(self, api: Api, server: MemoryServer) -> None:
        self.api = api
        self.seen: list[tuple[str, dict[str, Any]]] = []
        server.subscribe(
            "workflow.events.>", lambda subject, data, _: self.seen.append((subject, json.loads(data)))
        )

    async def __call__(self, verb: str, **request: Any) -> dict[str, Any]:
        reply: dict[str, Any] = json.loads(await self.api.handle("acme", verb, msgspec.json.encode(request)))
        shapes = VERBS[verb]
        if reply["ok"]:
            assert complaints(component(shapes.request.__name__), request) == []
        assert complaints(component(shapes.reply.__name__ if reply["ok"] else "Refusal"), reply) == []
        return reply

    async def run(self, execution: str, **data: Any) -> dict[str, Any]:
        """Start an execution and wait for its end; its status."""
        started = await self(
            "start", workflow_id="order", execution_id=execution, payload={"input_data": data}
        )
        assert started["ok"], started
        async with asyncio.timeout(20):
            while True:
                reply = await self("status", execution_id=execution)
                if reply["ok"] and reply["execution"]["finished_at"]:
                    found: dict[str, Any] = reply["execution"]
                    return found
                await asyncio.sleep(0.01)


@asynccontextmanager
async def talking() -> AsyncIterator[Talk]:
    server = MemoryServer()
    ports = await open_ports(server)
    host = PluginHost.discover()
    if host.get("core.echo") is None:  # not installed, only on the path
        host = PluginHost.discover(extra=[("core", core)])
    runner = StepRunner(host, ports.live, ports.clock, "w1", threads=1, processes=1)
    services = Services(ports, runner, Settings.model_validate({}), Limits(), "w1")
    numbers = iter(range(1_000))
    api = Api(services, host.signatures(), lambda: f"made-{next(numbers)}")
    stop = asyncio.Event()
    worker = asyncio.create_task(Worker(services).run(stop))
    try:
        yield Talk(api, server)
    finally:
        stop.set()
        await worker
        await runner.aclose()
        await ports.aclose()


class TestApi:
    async def test_it_has_the_described_verbs(self) -> None:
        async with talking() as talk:
            assert sorted(talk.api.verbs) == sorted(VERBS)

    async def test_replies_are_as_described(self) -> None:
        async with talking() as talk:
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
            rows = (await talk("list", limit=5))["executions"]
            assert [row["execution_id"] for row in rows] == ["bad", "good"]
            assert (await talk("status", execution_id="nobody"))["error"]["code"] == "unknown_execution"

    async def test_everything_seen_on_the_event_subjects_is_as_described(self) -> None:
        async with talking() as talk:
            await talk("deploy", document=PLAN)
            await talk.run("bad", refused=True)
        names = set()
        for subject, body in talk.seen:
            names.add(body["event"])
            assert body["event"] in (LIVE_EVENTS if subject.endswith(".live") else EVENT_DATA)
            assert complaints(EVENTS, body) == []
        assert {"step_started", "workflow_started", "workflow_step_failed", "workflow_rolled_back"} <= names

    async def test_dead_letters_are_as_described(self) -> None:
        async with talking() as talk:
            await talk("deploy", document=PLAN)
            tasks = talk.api._services.ports.tasks
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
