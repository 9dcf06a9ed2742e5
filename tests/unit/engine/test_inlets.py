from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.unit.engine.starts import TENANT, World
from wpa.engine.door import ONCE_HEADER, TRIGGER_HEADER, Heard, admit
from wpa.engine.inlets import IN_HAND, KIND, InletKeeper, inlets_of
from wpa.engine.trials import Death, Suspect
from wpa.engine.triggers import Triggers
from wpa.errors import PlatformError, TooLarge, Unavailable
from wpa.plan import Plan
from wpa.ports.inlets import Inlet, UserStream
from wpa.ports.tasks import Lease, Source

START: dict[str, Any] = {"subject": "data.raw.*", "stream": "DATA", "start": {"input": {"n": "${message.n}"}}}


class Bench:
    def __init__(self, world: World) -> None:
        self.world = world
        self.triggers = Triggers(world.services)
        self.keeper = InletKeeper(world.services)
        world.server.add_stream("DATA", "data.>")

    async def deploy(self, *triggers: dict[str, Any], version: str = "1", **more: Any) -> Plan:
        found = await self.world.deploy(version, "w", triggers=list(triggers), **more)
        await self.triggers.deployed(TENANT, found)
        await self.settle()
        return found

    async def publish(self, message: Any, subject: str = "data.raw.a", **headers: str) -> None:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.world.server.publish(
            subject, data, {name.replace("_", "-"): text for name, text in headers.items()}
        )
        await self.settle()

    async def settle(self) -> None:
        for _ in range(60):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        await self.world.clock.advance(seconds)
        await self.settle()

    @property
    def inputs(self) -> list[Any]:
        return [task["payload"]["input_data"]["n"] for task in self.world.tasks]

    @property
    def inlets(self) -> int:
        return len(self.world.server.captured["DATA"].inlets)

    async def recorded(self) -> list[Inlet]:
        found = await self.world.ports.records.get(TENANT, KIND, "w")
        return msgspec.json.decode(found[0], type=list[Inlet]) if found else []

    async def hashes(self) -> list[str]:
        found: list[Lease] = []
        (await self.world.ports.tasks.open(Source(TENANT), found.append)).request(100)
        await self.settle()
        return [admit(lease, self.world.services.limits, self.world.ports.live).start_hash for lease in found]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(await World.open())
    yield bench
    bench.triggers.abandon()


def failing(bench: Bench, port: str, name: str, error: Exception, *, after: bool = False) -> list[int]:
    """Let a port's call fail once: before it does anything, or after."""
    target = getattr(bench.world.ports, port)
    real = getattr(target, name)
    calls: list[int] = []

    async def call(*args: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            return await real(*args)
        if after:
            await real(*args)
        raise error

    setattr(target, name, call)
    return calls


# -- messages --------------------------------------------------------------------------------


async def test_each_message_starts_one_named_after_its_place(bench: Bench) -> None:
    await bench.deploy(START)
    for n in (1, 1, 2):
        await bench.publish({"n": n}, Nats_Msg_Id="the same", ce_id="too")
    await bench.publish({"n": 3}, "data.cooked")
    assert bench.inputs == [1, 1, 2]
    assert len(set(bench.world.started)) == 3, "what the stream took for two messages is two"
    assert all(name.startswith("w-") for name in bench.world.started)


async def test_a_message_that_comes_again_is_the_same_start_whatever_the_version(bench: Bench) -> None:
    await bench.deploy(START)
    failing(bench, "tasks", "publish", Unavailable("stored, and nobody knows"), after=True)
    await bench.publish({"n": 1})
    await bench.deploy(
        {**START, "subject": "data.other"}, {**START, "start": {"input": {"n": "late"}}}, version="2"
    )
    await bench.advance(1)
    assert bench.inputs == [1, "late"]
    assert len(set(bench.world.started)) == 1
    assert len(set(await bench.hashes())) == 1, "a duplicate, not a conflict"


async def test_a_key_of_the_triggers_own_counts(bench: Bench) -> None:
    key = {**START["start"], "idempotency_key": "${message.id}"}
    await bench.deploy({**START, "start": key})
    for n in (1, 2):
        await bench.publish({"n": n, "id": "o-1"})
    assert len(set(bench.world.started)) == 1
    assert len({headers[ONCE_HEADER] for headers in bench.world.task_headers}) == 1


async def test_an_id_that_the_mapping_gives_is_the_executions(bench: Bench) -> None:
    await bench.deploy({**START, "start": {"execution_id": "reading-${message.n}"}})
    await bench.publish({"n": 5})
    assert bench.world.started == ["reading-5"]
    assert ONCE_HEADER not in bench.world.task_headers[0]


async def test_signals_are_named_after_the_messages_place(bench: Bench) -> None:
    signal = {"name": "ok", "correlation": "reading-${message.n}"}
    await bench.deploy({"subject": "data.ok", "stream": "DATA", "signal": signal}, signals={"ok": {}})
    failing(bench, "tasks", "publish", Unavailable("stored, and nobody knows"), after=True)
    for _ in range(2):
        await bench.publish({"n": 5}, "data.ok", Nats_Msg_Id="m")
    await bench.advance(1)
    ids = [task["payload"]["id"] for task in bench.world.tasks]
    assert len(ids) == 3
    assert len(set(ids)) == 2


async def test_each_trigger_on_the_same_messages_has_its_own(bench: Bench) -> None:
    await bench.deploy(
        START, START, {**START, "subject": "data.>"}, {"subject": "data.>", "start": START["start"]}
    )
    await bench.publish({"n": 1})
    assert bench.inputs == [1] * 4
    assert len(set(bench.world.started)) == 4


async def test_of_what_steps_emit_only_the_tenants_own(bench: Bench) -> None:
    bench.world.server.add_stream("EMIT", "workflow.emit.>")
    await bench.deploy({**START, "subject": "workflow.emit.*.x", "stream": "EMIT"})
    await bench.publish({"n": 1}, "workflow.emit.other.x")
    await bench.publish({"n": 2}, f"workflow.emit.{TENANT}.x")
    assert bench.inputs == [2]


# -- beginnings ------------------------------------------------------------------------------


@pytest.mark.parametrize(("beginning", "inputs"), [(None, [2]), ("new", [2]), ("first", [1, 2])])
async def test_where_it_begins(beginning: str | None, inputs: list[int]) -> None:
    bench = Bench(await World.open("2026-11-19T23:30:00Z"))  # half an hour before the deploy
    await bench.publish({"n": 1})
    await bench.advance(3_600)
    await bench.deploy({**START, **({"from": beginning} if beginning else {})})
    await bench.publish({"n": 2})
    assert bench.inputs == inputs
    bench.triggers.abandon()


# -- trouble ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"), [(b'{"m": 1}', "bad_mapping"), (b"\xff", "not_json"), (b"[" * 10_000, "over_limit")]
)
async def test_what_is_of_no_use_is_a_dead_letter_and_not_delivered_again(
    bench: Bench, data: bytes, code: str
) -> None:
    await bench.deploy(START)
    await bench.publish(data)
    ((letter, headers),) = bench.world.letters
    assert (letter, headers["Wpa-Code"], headers["Wpa-Subject"]) == (data, code, "data.raw.a")
    assert json.loads(headers[TRIGGER_HEADER])["stream"] == "DATA"
    await bench.advance(3e6)
    assert len(bench.world.letters) == 1


async def test_a_letter_that_can_not_be_written_yet_is_written_later(bench: Bench) -> None:
    await bench.deploy(START)
    failing(bench, "tasks", "bury", Unavailable("away"))
    await bench.publish({"m": 1})
    assert bench.world.letters == []
    await bench.advance(1)
    assert len(bench.world.letters) == 1


async def test_a_letter_is_tried_again_by_the_triggers_on_its_stream(bench: Bench) -> None:
    await bench.deploy(START)
    await bench.publish({"m": 1})
    ((data, headers),) = bench.world.letters
    mended = {**START, "start": {"execution_id": "mended-${message.m}"}}
    await bench.deploy({"subject": "data.raw.*", "start": {"execution_id": "heard"}}, mended, version="2")
    leases: list[Lease] = []
    (await bench.world.ports.tasks.open(Source(TENANT), leases.append)).request(1)
    await bench.world.ports.tasks.publish(TENANT, data, {TRIGGER_HEADER: headers[TRIGGER_HEADER]})
    await bench.settle()
    request = admit(leases[0], bench.world.services.limits, bench.world.ports.live)
    assert isinstance(request.task, Heard)
    await bench.triggers.retried(leases[0], request.task.origin)
    assert bench.world.started == ["mended-1"]


async def test_what_there_is_no_room_for_becomes_a_letter(bench: Bench) -> None:
    await bench.deploy(START)
    failing(bench, "tasks", "publish", TooLarge("9 MB; the server takes 8"))
    await bench.publish({"n": 1})
    await bench.publish({"n": 2})
    await bench.advance(3e6)
    assert bench.inputs == [2]
    ((data, headers),) = bench.world.letters
    assert (data, headers["Wpa-Code"]) == (b'{"n": 1}', "over_limit")
    assert headers["Wpa-Reason"].endswith("9 MB; the server takes 8")


async def test_an_error_of_the_engines_own_holds_up_nothing_else(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.deploy(START)
    failing(bench, "tasks", "publish", RuntimeError("oh"))
    await bench.publish({"n": 1})
    await bench.publish({"n": 2})
    assert bench.inputs == [2]
    assert "please report it" in caplog.text
    await bench.advance(11)
    assert bench.inputs == [2, 1]


async def test_no_more_are_in_hand_than_a_worker_can_hold(bench: Bench) -> None:
    await bench.deploy(START)
    gate, publish, calls = asyncio.Event(), bench.world.ports.tasks.publish, []

    async def wait(*args: Any) -> int:
        calls.append(1)
        await gate.wait()
        return await publish(*args)

    bench.world.ports.tasks.publish = wait  # type: ignore[method-assign]
    for n in range(3 * IN_HAND):
        await bench.publish({"n": n})
    assert len(calls) == IN_HAND
    bench.world.server.delete_stream("DATA")
    bench.world.server.add_stream("DATA", "data.>")
    await bench.advance(6)
    for n in range(3 * IN_HAND):
        await bench.publish({"n": n})
    assert len(calls) == IN_HAND, "nor when the inlet was lost in the meantime"
    gate.set()
    for _ in range(10):
        await bench.settle()
    assert set(bench.inputs) == set(range(3 * IN_HAND))


async def test_what_is_in_hand_is_seen_to_before_the_end(bench: Bench) -> None:
    await bench.deploy(START)
    for n in range(IN_HAND):
        bench.world.server.publish("data.raw.a", b'{"n": %d}' % n)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    closing = asyncio.create_task(bench.triggers.close(5))
    for n in range(IN_HAND, IN_HAND + 10):
        bench.world.server.publish("data.raw.a", b'{"n": %d}' % n)
        await asyncio.sleep(0)
    await closing
    seen = len(bench.inputs)
    await bench.publish({"n": 1})
    assert len(bench.inputs) == seen
    other = Triggers(bench.world.services)
    plan = await bench.world.services.library.program(TENANT, "w")
    assert isinstance(plan, Plan)
    await other.deployed(TENANT, plan)
    for _ in range(5):
        await bench.settle()
    assert sorted(bench.inputs) == sorted([*range(IN_HAND + 10), 1]), "nothing waits for a lease to run out"
    other.abandon()


async def test_a_stream_that_is_gone_is_waited_for(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await bench.deploy(START, {"subject": "heard", "start": START["start"]})
    await bench.publish({"n": 1})
    bench.world.server.delete_stream("DATA")
    await bench.advance(60)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1, "it is said once"
    assert "there is no stream DATA" in errors[0]
    await bench.publish({"n": 2}, "heard")
    bench.world.server.add_stream("DATA", "data.>")
    await bench.publish({"n": 3})
    await bench.advance(6)
    assert bench.inputs == [1, 2, 3], "what came before it was found again, too"
    assert "again for acme.w" in caplog.text
    assert len(set(bench.world.started)) == 3, "its sequences began anew"


# -- versions --------------------------------------------------------------------------------


async def test_a_version_that_keeps_the_trigger_goes_on_where_the_one_before_was(bench: Bench) -> None:
    await bench.deploy(START)
    await bench.publish({"n": 1})
    await bench.deploy({**START, "from": "first", "filter": "message.n < 3"}, version="2")
    for n in (2, 3):
        await bench.publish({"n": n})
    assert bench.inputs == [1, 2]
    assert bench.inlets == 1


async def test_a_version_that_drops_the_trigger_removes_the_inlet(bench: Bench) -> None:
    await bench.deploy(START)
    assert await bench.recorded() == list(inlets_of(TENANT, await bench.deploy(START)))
    await bench.deploy({**START, "subject": "data.fresh"}, version="2")
    await bench.publish({"n": 1})
    await bench.publish({"n": 2}, "data.fresh")
    assert bench.inputs == [2]
    assert (bench.inlets, [inlet.subject for inlet in await bench.recorded()]) == (1, ["data.fresh"])
    await bench.deploy(version="3")
    assert (bench.inlets, await bench.recorded()) == (0, [])


async def test_a_trigger_that_is_dropped_and_wanted_again_is_read_again(bench: Bench) -> None:
    await bench.deploy(START)
    failing(bench, "inlets", "remove", Unavailable("the server is away"))
    with pytest.raises(PlatformError):
        await bench.deploy(version="2")
    await bench.deploy(START, version="3")
    await bench.publish({"n": 1})
    assert bench.inputs == [1]


async def test_what_a_crash_left_behind_is_removed_by_the_next_who_looks(bench: Bench) -> None:
    await bench.deploy(START)
    failing(bench, "inlets", "remove", Unavailable("away"))
    with pytest.raises(PlatformError):
        await bench.deploy(version="2")
    assert bench.inlets == 1
    bench.triggers.abandon()
    plan = await bench.world.services.library.program(TENANT, "w")
    assert isinstance(plan, Plan)
    await Triggers(bench.world.services).deployed(TENANT, plan)
    assert (bench.inlets, await bench.recorded()) == (0, [])


async def test_a_worker_that_has_not_heard_of_the_later_version_makes_nothing(bench: Bench) -> None:
    plan = await bench.deploy(START)
    slow = Triggers(bench.world.services)
    await slow.deployed(TENANT, plan)
    await bench.settle()
    await bench.deploy(version="2")
    await bench.advance(30)
    assert bench.inlets == 0
    assert not await bench.keeper.settle(TENANT, plan)
    await bench.keeper.deployed(TENANT, plan)
    assert bench.inlets == 0
    slow.abandon()


async def test_what_a_worker_has_made_too_late_it_removes_itself(bench: Bench) -> None:
    plan = await bench.deploy(START)
    elsewhere = InletKeeper(bench.world.services)
    second = await bench.world.deploy("2", "w")
    await elsewhere.deployed(TENANT, second)
    assert (bench.inlets, await bench.recorded()) == (0, [])
    for inlet in inlets_of(TENANT, plan):
        await elsewhere.add(inlet, plan)  # as its own request that was under way
    await bench.triggers.deployed(TENANT, second)
    assert bench.inlets == 0


# -- before a deploy -------------------------------------------------------------------------


def document(**trigger: Any) -> dict[str, Any]:
    return {"triggers": [{"subject": "other", "start": {}}, {**START, **trigger}]}


@pytest.mark.parametrize(
    ("trigger", "path", "message", "hint"),
    [
        ({"stream": "DTA"}, "stream", "there is no stream 'DTA'", "did you mean 'DATA'"),
        ({"stream": "GONE", "subject": "x.>"}, "stream", "there is no stream 'GONE'", "nats stream add GONE --subjects 'x.>'"),
        ({"subject": "x.>"}, "subject", "captures data.>: that is not all of 'x.>'", "nats stream edit DATA"),
    ],
)  # fmt: skip
async def test_a_stream_that_will_not_do_is_a_problem_that_says_what_to_do(
    bench: Bench, trigger: dict[str, Any], path: str, message: str, hint: str
) -> None:
    (problem,) = await bench.keeper.problems(TENANT, document(**trigger))
    assert problem.path == f"$.triggers[1].{path}"
    assert message in problem.message
    assert hint in problem.hint


async def test_a_work_queue_has_no_middle_and_a_copy_has_any_subject(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = UserStream(any_subject=True, work_queue=True)

    async def stream(name: str) -> UserStream:
        return found

    monkeypatch.setattr(bench.world.ports.inlets, "stream", stream)
    (problem,) = await bench.keeper.problems(TENANT, document())
    assert (problem.path, problem.hint) == ("$.triggers[1].from", "write 'first'")
    assert await bench.keeper.problems(TENANT, document(**{"from": "first"})) == []


async def test_a_stream_that_will_do(bench: Bench) -> None:
    assert await bench.keeper.problems(TENANT, document()) == []
    assert await bench.keeper.problems(TENANT, {"id": "w"}) == []


# -- what may end its workers ----------------------------------------------------------------


class Trials:
    """Condemns all that it is given."""

    def __init__(self) -> None:
        self.tried: list[Suspect] = []

    async def try_out(self, suspect: Suspect) -> Death | None:
        self.tried.append(suspect)
        return Death(how="SIGSEGV", admitted=True)


async def test_a_message_that_came_four_times_is_tried_and_a_condemned_one_is_a_dead_letter(
    bench: Bench,
) -> None:
    trials: Any = Trials()
    bench.world.services.trials = trials
    real = bench.world.ports.tasks.publish
    calls: list[int] = []

    async def publish(*args: Any) -> int:
        calls.append(1)
        if len(calls) < 4:
            raise Unavailable("away")
        return await real(*args)

    bench.world.ports.tasks.publish = publish  # type: ignore[method-assign]
    await bench.deploy(START)
    await bench.publish({"n": 1})
    for _ in range(10):
        await bench.advance(5)
    assert len(calls) == 3
    (suspect,) = trials.tried
    assert (suspect.delivered, suspect.kind, suspect.data) == (4, "tasks", b'{"n": 1}')
    lease: Any = _AsLease(suspect)
    heard = admit(lease, bench.world.services.limits, bench.world.ports.live)
    assert isinstance(heard.task, Heard)
    (letter,) = bench.world.server.dead.read(f"workflow.dlq.{TENANT}")
    assert letter.headers["Wpa-Code"] == "poison_message"
    assert letter.headers[TRIGGER_HEADER] == suspect.headers[TRIGGER_HEADER]


class _AsLease:
    def __init__(self, suspect: Suspect) -> None:
        self.source, self.tenant = Source(suspect.tenant, suspect.kind), suspect.tenant
        self.data, self.headers, self.identity = suspect.data, suspect.headers, suspect.identity
