from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.engine.starts import TENANT, World
from wpa.engine.deployments import Deployments
from wpa.engine.door import ONCE_HEADER, TRIGGER_HEADER, Heard, admit
from wpa.engine.inlets import inlets_of
from wpa.engine.messages import foreign, own_subject
from wpa.engine.triggers import Triggers
from wpa.errors import TaskRejected, TooLarge, Unavailable
from wpa.plan import Plan
from wpa.ports.tasks import Lease, Source

START = {"subject": "data.raw.*", "start": {"input": {"n": "${message.n}"}}}


class Bench:
    def __init__(self, world: World) -> None:
        self.world = world
        self.triggers = Triggers(world.services)

    async def deploy(
        self, *triggers: dict[str, Any], version: str = "1", workflow: str = "w", **more: Any
    ) -> Plan:
        found = await self.world.deploy(version, workflow, triggers=list(triggers), **more)
        await self.triggers.deployed(TENANT, found)
        return found

    async def publish(self, subject: str, message: Any, headers: dict[str, str] | None = None) -> None:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.world.server.publish(subject, data, headers)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    @property
    def inputs(self) -> list[Any]:
        return [
            task["payload"]["input_data"] for task in self.world.tasks if task["type"] == "workflow_start"
        ]

    async def leases(self) -> list[Lease]:
        found: list[Lease] = []
        (await self.world.ports.tasks.open(Source(TENANT), found.append)).request(100)
        await self.settle()
        return found


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(await World.open())
    yield bench
    bench.triggers.abandon()


# -- starts ----------------------------------------------------------------------------------


async def test_each_message_starts_one(bench: Bench) -> None:
    await bench.deploy(START)
    await bench.publish("data.raw.a", {"n": 1})
    await bench.publish("data.raw.b", {"n": 1})
    await bench.publish("data.cooked", {"n": 1})
    assert bench.inputs == [{"n": 1}, {"n": 1}]
    first, second = bench.world.tasks
    assert first["execution_id"] != second["execution_id"]
    assert first["execution_id"].startswith("w-")
    assert first["metadata"]["source"] == "trigger"
    assert first["payload"]["execution_context"] == {"trigger": {"subject": "data.raw.a"}}


async def test_what_a_version_made_of_a_message_runs_on_that_version(bench: Bench) -> None:
    await bench.deploy(START)
    await bench.publish("data.raw.a", {"n": 1})
    await bench.world.deploy("2", "w")
    [lease] = await bench.leases()
    assert admit(lease, bench.world.services.limits, bench.world.ports.live).version == "1"


async def test_a_filter_leaves_messages_alone(bench: Bench) -> None:
    await bench.deploy({**START, "filter": "message.n > 1"})
    for n in (1, 2):
        await bench.publish("data.raw.a", {"n": n})
    assert bench.inputs == [{"n": 2}]
    assert bench.world.letters == []


@pytest.mark.parametrize(
    ("start", "headers"),
    [
        ({"idempotency_key": "${message.n}"}, {}),
        ({"idempotency_key": "${headers['Key']}"}, {"Key": "k1"}),
        ({}, {"Nats-Msg-Id": "m1"}),
        ({}, {"ce-id": "m1", "ce-source": "/shop"}),
    ],
)
async def test_messages_of_one_key_are_one_start_whatever_else_they_say(
    bench: Bench, start: dict[str, Any], headers: dict[str, str]
) -> None:
    await bench.deploy({"subject": "data.raw.*", "start": {"input": {"at": "${message.at}"}, **start}})
    for at in (1, 2):
        await bench.publish("data.raw.a", {"n": 7, "at": at}, headers)
    assert len(set(bench.world.started)) == 1
    hashes = [
        admit(lease, bench.world.services.limits, bench.world.ports.live).start_hash
        for lease in await bench.leases()
    ]
    assert len(hashes) == 2
    assert len(set(hashes)) == 1, "the second is a duplicate, not a conflict"


async def test_the_mapping_may_name_the_execution(bench: Bench) -> None:
    await bench.deploy({"subject": "data.raw.*", "start": {"execution_id": "reading-${message.id}"}})
    await bench.publish("data.raw.a", {"id": 5})
    assert bench.world.started == ["reading-5"]
    assert ONCE_HEADER not in bench.world.task_headers[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", None),
        (b" \n", None),
        (b"12", 12),
        (b"21.5 C", "21.5 C"),
        ("grüße".encode(), "grüße"),
        (b'{"a":', '{"a":'),
    ],
)
async def test_what_is_not_json_is_text(bench: Bench, data: bytes, message: Any) -> None:
    await bench.deploy({"subject": "data.raw.*", "start": {"input": {"it": "${message}"}}})
    await bench.publish("data.raw.a", data)
    assert bench.inputs == [{"it": message}]


# -- signals ---------------------------------------------------------------------------------

SIGNAL = {"subject": "data.ok.*", "signal": {"name": "ok", "correlation": "reading-${message.id}"}}


@pytest.mark.parametrize(
    ("more", "headers", "identity"),
    [
        ({"id": "${message.key}"}, {"Nats-Msg-Id": "m1"}, "k1"),
        ({}, {"Nats-Msg-Id": "m1"}, "m1"),
        ({}, {"ce-id": "m1"}, "m1"),
        ({}, {}, None),
    ],
)
async def test_a_message_becomes_a_signal(
    bench: Bench, more: dict[str, str], headers: dict[str, str], identity: str | None
) -> None:
    await bench.deploy({**SIGNAL, "signal": {**SIGNAL["signal"], **more}}, signals={"ok": {}})  # type: ignore[dict-item]
    await bench.publish("data.ok.a", {"id": 5, "key": "k1"}, headers)
    (task,) = bench.world.tasks
    assert (task["type"], task["execution_id"]) == ("workflow_signal", "reading-5")
    assert task["payload"]["signal"] == "ok"
    assert task["payload"]["payload"] == {"id": 5, "key": "k1"}
    assert task["payload"]["id"] == identity or (identity is None and len(task["payload"]["id"]) == 20)


async def test_an_id_that_is_no_name_is_hashed(bench: Bench) -> None:
    await bench.deploy(SIGNAL, signals={"ok": {}})
    await bench.publish("data.ok.a", {"id": 5}, {"Nats-Msg-Id": "x" * 300})
    assert len(bench.world.tasks[0]["payload"]["id"]) == 20


# -- dead letters ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "data", "code", "reason"),
    [
        (START, b'{"m": 1}', "bad_mapping", "triggers[0] of w 1"),
        (START, b"\xff\xfe", "not_json", "UTF-8"),
        (START, b"[" * 10_000, "over_limit", "nested"),
        ({**START, "filter": "message.n"}, b'{"n": 1}', "bad_mapping", "true or false"),
        ({"subject": "data.raw.*", "start": {"execution_id": "a b ${message.n}"}}, b'{"n": 1}', "bad_mapping", "id"),
        ({"subject": "data.raw.*", "signal": {"name": "ok", "correlation": "${message.n}"}}, b'{"n": ""}', "bad_mapping", "empty"),
        ({"subject": "data.raw.*", "signal": {"name": "no", "correlation": "x"}}, b"{}", "bad_signal", "no"),
        ({"subject": "data.raw.*", "start": {"idempotency_key": "${message.n}"}}, b'{"n": [1]}', "bad_mapping", "text or a whole number"),
    ],
)  # fmt: skip
async def test_what_a_trigger_can_make_nothing_of_is_a_dead_letter(
    bench: Bench, trigger: dict[str, Any], data: bytes, code: str, reason: str
) -> None:
    await bench.deploy(trigger, signals={"ok": {}})
    await bench.publish("data.raw.a", data, {"From": "a  b"})
    ((letter, headers),) = bench.world.letters
    assert letter == data
    assert headers["Wpa-Code"] == code
    assert reason in headers["Wpa-Reason"]
    assert headers["Wpa-Subject"] == "data.raw.a"
    assert json.loads(headers[TRIGGER_HEADER])["headers"] == {"From": "a  b"}
    await bench.publish("data.raw.a", {"n": "6"})
    assert len(bench.world.tasks) + len(bench.world.letters) == 2, "it goes on"


async def test_an_input_that_does_not_fit(bench: Bench) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    await bench.deploy(START, input=schema)
    await bench.publish("data.raw.a", {"n": "x"})
    assert bench.world.letters[0][1]["Wpa-Code"] == "invalid_input"


async def test_a_letter_can_be_tried_again_when_the_definition_is_mended(bench: Bench) -> None:
    await bench.deploy(
        START, SIGNAL, {**START, "start": {"execution_id": "fine-${message.m}"}}, signals={"ok": {}}
    )
    await bench.publish("data.raw.a", {"m": 1})
    assert bench.world.started == ["fine-1"], "the other trigger has had it"
    ((data, headers),) = bench.world.letters
    own = {name: value for name, value in headers.items() if not name.startswith("Wpa-")}
    await bench.deploy(
        {"subject": "data.raw.*", "start": {"execution_id": "mended-${message.m}"}}, version="2"
    )
    await bench.world.ports.tasks.publish(TENANT, data, own)
    lease = (await bench.leases())[-1]
    request = admit(lease, bench.world.services.limits, bench.world.ports.live)
    assert isinstance(request.task, Heard)
    await bench.triggers.retried(lease, request.task.origin)
    assert bench.world.started[-1] == "mended-1"


async def test_a_letter_that_is_tried_again_in_vain_is_rejected_once_more(bench: Bench) -> None:
    await bench.deploy(START)
    await bench.publish("data.raw.a", {"m": 1})
    ((data, headers),) = bench.world.letters
    await bench.world.ports.tasks.publish(TENANT, data, {TRIGGER_HEADER: headers[TRIGGER_HEADER]})
    (lease,) = await bench.leases()
    request = admit(lease, bench.world.services.limits, bench.world.ports.live)
    assert isinstance(request.task, Heard)
    with pytest.raises(TaskRejected, match="bad_mapping"):
        await bench.triggers.retried(lease, request.task.origin)


# -- trouble ---------------------------------------------------------------------------------


async def test_a_server_that_is_away_is_waited_for(bench: Bench) -> None:
    await bench.deploy(START)
    publish = bench.world.ports.tasks.publish
    tries: list[int] = []

    async def fail_once(*args: Any) -> int:
        tries.append(1)
        if len(tries) == 1:
            raise Unavailable("away")
        return await publish(*args)

    bench.world.ports.tasks.publish = fail_once  # type: ignore[method-assign]
    await bench.publish("data.raw.a", {"n": 1})
    assert bench.inputs == []
    await asyncio.sleep(0.4)
    assert bench.inputs == [{"n": 1}]


async def test_what_the_server_does_not_take_becomes_a_letter(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def publish(*_: Any) -> int:
        raise TooLarge("9 MB; the server takes 8")

    await bench.deploy(START)
    monkeypatch.setattr(bench.world.ports.tasks, "publish", publish)
    await bench.publish("data.raw.a", b'{"n": 1}')
    ((data, headers),) = bench.world.letters
    assert (data, headers["Wpa-Code"]) == (b'{"n": 1}', "over_limit")


async def test_what_was_heard_is_seen_to_before_the_end(bench: Bench) -> None:
    await bench.deploy(START)
    for n in range(100):
        bench.world.server.publish("data.raw.a", b'{"n": %d}' % n)
    await asyncio.sleep(0)
    await bench.triggers.close(5)
    assert sorted(given["n"] for given in bench.inputs) == list(range(100))
    await bench.publish("data.raw.a", {"n": 1})
    assert len(bench.inputs) == 100


# -- following -------------------------------------------------------------------------------


async def test_a_new_version_listens_to_its_own_subjects_only(bench: Bench) -> None:
    await bench.deploy(START)
    await bench.deploy({**START, "subject": "data.fresh.>"}, version="2")
    await bench.publish("data.raw.a", {"n": 1})
    await bench.publish("data.fresh.a.b", {"n": 2})
    assert bench.inputs == [{"n": 2}]


async def test_overlapping_subjects_of_one_workflow_each_count(bench: Bench) -> None:
    await bench.deploy(START, {**START, "subject": "data.>"})
    await bench.publish("data.raw.a", {"n": 1})
    assert len(set(bench.world.started)) == 2


async def test_of_several_workers_one_has_each_message(bench: Bench) -> None:
    found = await bench.deploy(START)
    other = Triggers(bench.world.services)
    await other.deployed(TENANT, found)
    for n in range(10):
        await bench.publish("data.raw.a", {"n": n})
    assert len(bench.inputs) == 10
    other.abandon()


async def test_deployments_are_followed(bench: Bench) -> None:
    world = bench.world
    told: list[tuple[str, str, str]] = []

    async def listener(tenant: str, found: Plan) -> None:
        told.append((tenant, found.id, found.version))

    await world.deploy("1", "before", triggers=[START])
    await world.deploy("1", "plain")
    following = asyncio.create_task(Deployments(world.services, [listener]).run())
    await bench.settle()
    assert told == [(TENANT, "before", "1"), (TENANT, "plain", "1")], "at first, all: who knows what was"
    await world.deploy("2", "plain")
    await world.deploy("2", "before")
    await world.deploy("1", "after", schedule={"every": "1h"})
    await bench.settle()
    assert sorted(told[2:]) == [(TENANT, "after", "1"), (TENANT, "before", "2")]
    following.cancel()


async def test_who_deploys_can_wait_until_it_is_followed(bench: Bench) -> None:
    world = bench.world
    told: list[str] = []

    async def listener(tenant: str, found: Plan) -> None:
        await asyncio.sleep(0)
        told.append(found.version)

    deployments = Deployments(world.services, [listener])
    following = asyncio.create_task(deployments.run())
    for version in ("1", "2", "3"):
        await world.deploy(version, "react", triggers=[START])
        await deployments.follow(TENANT, "react")
        assert told[-1] == version
    await deployments.follow(TENANT, "react")  # nothing new: it returns all the same
    assert told == ["1", "2", "3"]
    following.cancel()


# -- tenants ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "subject"),
    [
        ("data.raw.*", "data.raw.*"),
        ("workflow.emit.acme.x", "workflow.emit.acme.x"),
        ("workflow.emit.*.x", "workflow.emit.acme.x"),
        ("workflow.emit.>", "workflow.emit.acme.>"),
        ("workflow.emit.other.x", None),
        ("workflow.events.acme.>", None),
        ("_INBOX.>", None),
        ("_R_.>", None),
        ("$KV.>", None),
    ],
)
def test_what_steps_emit_is_for_their_own_tenant(pattern: str, subject: str | None) -> None:
    assert own_subject("acme", pattern) == subject


async def test_another_tenants_emissions_are_not_listened_to(bench: Bench) -> None:
    found = await bench.deploy(
        {"subject": "workflow.emit.other.>", "start": {}}, {"subject": "workflow.emit.*.x", "start": {}}
    )
    await bench.publish("workflow.emit.other.x", {})
    assert bench.inputs == []
    await bench.publish("workflow.emit.acme.x", {})
    assert bench.inputs == [{}]
    (problem,) = foreign(TENANT, found)
    assert problem.path == "$.triggers[0].subject"


async def test_answers_are_not_listened_to_by_what_was_deployed_before_that_was_refused(bench: Bench) -> None:
    streamed = {"subject": "_GR_.>", "stream": "ALL", "start": {}}
    found = await bench.deploy({"subject": "_R_.>", "start": {}}, streamed, START)
    await bench.publish("_R_.abc.def", {"secret": True})
    await bench.publish("data.raw.a", {"n": 1})
    assert bench.inputs == [{"n": 1}]
    assert inlets_of(TENANT, found) == {}
    assert [problem.path for problem in foreign(TENANT, found)] == [
        "$.triggers[0].subject",
        "$.triggers[1].subject",
    ]
