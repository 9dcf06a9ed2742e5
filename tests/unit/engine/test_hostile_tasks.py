"""Tasks, requests and messages gone wrong: each is answered and recorded, and the worker goes on."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import DEFINITIONS, VALUES, encoded, fuzz, mutated
from tests.unit.room import TENANT, Room
from wpa.errors import TaskRejected, TooLarge
from wpa.model.api import VERBS
from wpa.model.codec import decode_task
from wpa.model.limits import Limits

Body = dict[str, Any]

WAITS: Body = {
    "id": "order",
    "version": "1",
    "input": {"type": ["object", "null"]},
    "signals": {"go": {"schema": {"type": ["object", "null"]}}, "other": {}},
    "timeout": "30d",
    "steps": [
        {"id": "a", "uses": "core.echo", "with": {"n": 1}, "compensate": {"uses": "core.noop"}},
        {"id": "wait", "uses": "core.wait", "with": {"signal": "go"}, "needs": ["a"]},
        {"id": "ok", "uses": "core.approval", "with": {"users": ["ada"]}, "needs": ["a"]},
        {"id": "gpu", "uses": "core.echo", "queue": "gpu", "needs": ["a"]},
        {"id": "kid", "uses": "core.workflow", "with": {"workflow": "child"}, "needs": ["a"]},
        {"id": "nap", "uses": "core.sleep", "with": {"for": "1d"}, "needs": ["a"]},
        {"id": "z", "uses": "core.echo", "with": {"all": "${steps}"}, "needs": ["wait", "ok", "gpu", "kid"]},
    ],
}
"""At rest, it waits for everything that there is to wait for."""
CHILD: Body = {
    "id": "child",
    "version": "1",
    "steps": [{"id": "w", "uses": "core.wait", "with": {"signal": "go"}}],
}

ADA = {"user_id": "ada", "roles": ["boss"], "agent_id": "", "session_id": "", "source": ""}
FAILURE = {"type": "Broken", "message": "it broke", "retryable": False, "details": {"n": 1}}
PAYLOADS: dict[str, Body] = {
    "workflow_start": {"input_data": {"n": 1}, "variables": {"v": 1}, "execution_context": {"c": 1}},
    "workflow_signal": {"signal": "go", "payload": {"n": 1}, "id": "s1"},
    "workflow_answer": {"step": "ok", "approved": True, "comment": "well"},
    "workflow_pause": {"reason": "look"},
    "workflow_resume": {"reason": "on"},
    "workflow_cancel": {"reason": "enough", "compensate": True, "parent": {"execution_id": "p", "slot": "s"}},
    "workflow_terminate": {"reason": "now"},
    "workflow_retry": {"reason": "again"},
    "workflow_migrate": {"version": "2"},
    "workflow_child_ended": {
        "slot": "kid", "child": "@-kid", "status": "COMPLETED", "output": {"n": 1}, "error": FAILURE,
    },
    "workflow_step_result": {
        "slot": "gpu", "attempt": 1, "key": "@:gpu:1", "worker": "w9", "started_at": "2026-11-20T10:00:00Z",
        "output": {"n": 1}, "error": FAILURE, "seq": 1,
    },
}  # fmt: skip
"""A valid one of every type; ``@`` stands for the execution."""


def task(kind: str) -> Body:
    whole: Body = {
        "task_id": "t1", "tenant_id": TENANT, "workflow_id": "order", "execution_id": "@", "global_task_id": "g",
        "created_at": "2026-11-20T10:00:00Z", "type": kind, "priority": 5, "metadata": ADA,
        "payload": PAYLOADS[kind],
    }  # fmt: skip
    if kind == "workflow_start":
        whole |= {
            "version": "1", "start_at": "2026-11-20T10:00:00Z",
            "parent": {"execution_id": "@", "slot": "kid"}, "fork": {"execution_id": "@", "step": "wait"},
        }  # fmt: skip
    return whole


TASKS = st.sampled_from(sorted(PAYLOADS)).flatmap(lambda kind: mutated(task(kind)))
HEADERS = st.dictionaries(
    st.sampled_from(["Wpa-Reply", "Wpa-Idempotency-Key", "Trigger", "traceparent", "Nats-Msg-Id", "x"]),
    st.text(max_size=30)
    | st.sampled_from(
        ["_INBOX.a", "_INBOX.>", "workflow.tasks.other", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"]
    )
    | mutated(
        {
            "workflow": "order",
            "subject": "s",
            "pattern": "p",
            "stream": "",
            "message": "m",
            "headers": {"a": "b"},
        }
    ).map(lambda origin: encoded(origin).decode()),
    max_size=2,
)


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    with Room() as room:
        room.run(room.ok("deploy", document=WAITS))
        room.run(room.ok("deploy", document={**WAITS, "version": "2"}))
        room.run(room.ok("deploy", document=CHILD))
        yield room


async def waiting(room: Room) -> str:
    """A new execution that waits for everything."""
    name = room.name()
    await room.ok("start", workflow_id="order", version="1", execution_id=name)
    async with asyncio.timeout(20):
        while True:
            found = await room.ask("status", encoded({"execution_id": name}))
            if found["ok"] and found["execution"]["status"] == "WAITING":
                return name
            await asyncio.sleep(0.001)


async def published(room: Room, given: list[tuple[Any, dict[str, str]]]) -> None:
    """Each is done or becomes a letter, with its own bytes; nothing else does."""
    name = await waiting(room)
    tasks = [(encoded(one).replace(b"@", name.encode()), headers) for one, headers in given]
    sent = [(data, headers) for data, headers in tasks if await room.publish(data, headers)]
    await room.settled()
    await room.ended(name)
    await room.settled()
    letters = room.letters()
    for letter in letters:
        assert letter.headers["Wpa-Code"]
        assert letter.headers["Wpa-Reason"]
    kept = [letter.data for letter in letters]
    for data, headers in sent:
        try:
            if "Trigger" not in headers:
                decode_task(data, TENANT, Limits())
        except TaskRejected:
            assert data in kept, "lost"
    assert room.complaints() == []


@fuzz(40)
@given(st.lists(st.tuples(TASKS, HEADERS | st.just({})), min_size=1, max_size=4))
def test_tasks_gone_wrong_are_done_or_kept_with_a_reason(
    room: Room, given: list[tuple[Any, dict[str, str]]]
) -> None:
    room.run(published(room, given))


def changed(kind: str, fields: Body | None = None, **payload: Any) -> Body:
    """A valid task with other fields; with ``payload`` an execution of its own, if it is a start."""
    whole = task(kind)
    return {**whole, **(fields or {}), "payload": {**whole["payload"], **payload}}


NEW: Body = {"execution_id": "@-new", "parent": None, "fork": None}
RESULT = "workflow_step_result"
FOUND: dict[str, tuple[Body, str]] = {
    "no time": (changed(RESULT, started_at="garbage"), "not_a_task: $.payload.started_at"),
    "a time without a zone": (changed(RESULT, started_at="2026-11-20T10:00:00"), "not_a_task"),
    "the year 0": (changed(RESULT, started_at="0001-01-01T00:00:00+23:59"), ""),
    "ahead of its execution": (changed(RESULT, seq=2**62), "not_waiting: $.payload.seq"),
    "a worker without end": (changed(RESULT, worker="w" * 300), "invalid_name: $.payload.worker"),
    "a status without end": (changed("workflow_child_ended", status="x" * 300), "invalid_name"),
    "a failure without end": (
        changed(RESULT, error={"type": "T" * 9_999, "message": "m" * 99_999, "details": {"d": "d" * 99_999}}), "",
    ),
    "roles without end": (changed("workflow_pause", {"metadata": {"roles": ["r"] * 300}}), "over_limit"),
    "the last moment": (changed("workflow_start", {**NEW, "start_at": "9999-12-31T23:59:59.999Z"}), ""),
    "past the last moment": (changed("workflow_start", {**NEW, "start_at": "9999-12-31T23:59:59-23:59"}), ""),
    "before the first moment": (changed("workflow_start", {**NEW, "start_at": "0001-01-01T00:00:00+23:59"}), ""),
    "its own parent": (
        changed("workflow_start", {**NEW, "parent": {"execution_id": "@-new", "slot": "kid"}}), "",
    ),
    "a rerun of itself": (
        changed("workflow_start", {**NEW, "fork": {"execution_id": "@-new", "step": "wait"}}), "unknown_execution",
    ),
    "a payload that is nowhere": (changed(RESULT, output={"$blob": {"key": "acme/no/where"}}, error=None), ""),
}  # fmt: skip
"""What once held up an execution for ever, or could; why it is refused, or nothing where it is taken."""


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found(room: Room, name: str) -> None:
    given, why = FOUND[name]

    async def attempt() -> None:
        execution = await waiting(room)
        data = encoded(given).replace(b"@", execution.encode())
        await room.publish(data)
        await room.settled()
        await room.ended(execution)
        letters = room.letters()
        assert [letter.data for letter in letters] == ([data] if why else [])
        assert not why or f"{letters[0].headers['Wpa-Code']}: {letters[0].headers['Wpa-Reason']}".startswith(
            why
        )
        for event in (await room.ok("history", execution_id=execution))["events"]:
            assert len(encoded(event)) < 25_000
        assert room.complaints() == []

    room.run(attempt())


def test_what_leaves_no_room_for_the_reason_is_kept_apart_and_can_be_tried_again(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = room.services.ports.tasks
    bury, data = tasks.bury, b"no JSON" * 100

    async def narrow(tenant: str, data: bytes, headers: dict[str, str]) -> int:
        if data or "Trigger" in headers:
            raise TooLarge("8388700 bytes; the server takes 8388608")
        sequence: int = await bury(tenant, data, headers)
        return sequence

    monkeypatch.setattr(tasks, "bury", narrow)

    async def attempt() -> None:
        await room.publish(data)
        await room.publish(data, {"Trigger": "x" * 100_000})
        await room.settled()
        letters = (await room.ok("dlq_list"))["letters"]
        assert [(letter["code"], letter["size"]) for letter in letters] == [
            ("not_a_task", len(data)), ("not_json", len(data)),
        ]  # fmt: skip
        shown = (await room.ok("dlq_show", sequence=letters[1]["sequence"]))["letter"]
        assert (shown["text"], base64.b64decode(shown["base64"])) == (data.decode(), data)
        await room.ok("dlq_retry", sequence=letters[1]["sequence"])
        await room.settled()
        assert [letter["code"] for letter in (await room.ok("dlq_list"))["letters"]] == [
            "not_json",
            "not_a_task",
        ]
        assert len(room.letters()) == 2
        assert room.complaints() == []

    room.run(attempt())


LARGE: Body = {
    "id": "large", "version": "1", "variables": {"x0": "x" * 60_000},
    "steps": [
        *(
            {"id": f"s{n}", "uses": "core.noop", "needs": [f"s{n - 1}"] if n else [],
             "set": {f"x{n + 1}": f"${{vars.x{n} + vars.x{n}}}"}}
            for n in range(7)
        ),
        {"id": "end", "needs": ["s6"]},
    ],
}  # fmt: skip
"""Its last step sees a variable of 7.7 MB."""


@pytest.mark.parametrize(
    ("step", "error", "words"),
    [
        ({"uses": "core.workflow", "with": {"workflow": "child", "input": "${vars.x7}"}}, "ChildFailed", "over_limit"),
        ({"uses": "core.wait", "with": {"signal": "go", "timeout": "1ms", "default": "${vars.x7}"}}, "InvalidInput",
         "the most is 65536"),
    ],
    ids=["child", "default"],
)  # fmt: skip
def test_what_has_grown_past_what_a_server_takes_fails_its_step(
    room: Room, step: Body, error: str, words: str
) -> None:
    document = {**LARGE, "id": room.name(), "steps": [*LARGE["steps"][:-1], {**LARGE["steps"][-1], **step}]}

    async def attempt() -> None:
        await room.ok("deploy", document=document)
        name = room.name()
        await room.ok("start", workflow_id=document["id"], execution_id=name)
        async with asyncio.timeout(60):
            while True:
                found = await room.ask("status", encoded({"execution_id": name}))
                if found["ok"] and found["execution"]["finished_at"]:
                    break
                await asyncio.sleep(0.01)
        assert (found["execution"]["status"], found["execution"]["error"]["type"]) == ("FAILED", error)
        assert words in found["execution"]["error"]["message"]
        assert len(room.letters()) == (error == "ChildFailed")
        assert room.complaints() == []

    room.run(attempt())


REQUESTS: dict[str, Body] = {
    "start": task("workflow_start"),
    "deploy": {"document": WAITS, "deployed_by": "ada"},
    "validate": {"document": WAITS},
}
FIELDS: Body = {
    "execution_id": "@", "metadata": ADA, "signal": "go", "payload": {"n": 1}, "id": "s1", "step": "ok",
    "approved": True, "comment": "well", "reason": "so", "compensate": False, "version": "2", "from_step": "wait",
    "input": {"n": 1}, "new_execution_id": "@-again", "workflow_id": "order", "limit": 5, "after": 0, "position": 0,
    "before": 0, "status": "WAITING", "sequence": 1, "task_id": "t", "global_task_id": "g",
}  # fmt: skip


def requests(verb: str) -> st.SearchStrategy[tuple[str, Any]]:
    fields = VERBS[verb].request.__struct_fields__
    valid = REQUESTS.get(verb) or {name: FIELDS[name] for name in fields}
    return st.tuples(st.just(verb), mutated(valid) | st.just(valid) | VALUES)


async def requested(room: Room, name: str, asked: list[tuple[str, Any]]) -> None:
    for verb, body in asked:
        answer = await room.ask(verb, encoded(body).replace(b"@", name.encode()))
        if not answer["ok"] and answer["error"]["code"] in ("bad_request", "not_a_task", "bad_number"):
            message = answer["error"]["message"]
            assert "$" in message or "JSON object" in message, message
    await room.settled()
    await room.ended(name)
    await room.settled()
    assert room.complaints() == []


@fuzz(60)
@given(st.lists(st.sampled_from(sorted(VERBS)).flatmap(requests), min_size=1, max_size=4))
def test_requests_gone_wrong_are_answered_with_the_place(room: Room, asked: list[tuple[str, Any]]) -> None:
    async def attempt() -> None:
        await requested(room, await waiting(room), asked)

    room.run(attempt())


DOCUMENTS = st.sampled_from(sorted(DEFINITIONS)).flatmap(lambda name: mutated(DEFINITIONS[name]))


async def deployed(room: Room, document: Any, data: Any) -> None:
    if isinstance(document, dict):
        document = {**document, "id": room.name()}
    answer = await room.ask("deploy", encoded({"document": document}))
    if not answer["ok"]:
        assert answer["error"]["code"] in ("invalid_definition", "not_json", "bad_request", "over_limit"), (
            answer
        )
        if answer["error"]["code"] == "invalid_definition":
            assert all(problem["path"].startswith("$") for problem in answer["error"]["problems"])
        return
    name = room.name()
    body = {"workflow_id": document["id"], "execution_id": name, "payload": {"input_data": data}}
    answer = await room.ask("start", encoded(body))
    if answer["ok"]:
        await room.settled()
        await room.ended(name)
    await room.settled()
    assert room.complaints() == []


@fuzz(40)
@given(DOCUMENTS, VALUES)
def test_definitions_gone_wrong_are_refused_or_run(room: Room, document: Any, data: Any) -> None:
    room.run(deployed(room, document, data))


def triggered(**fields: Any) -> Body:
    return {**CHILD, "id": "heard", "triggers": [{"subject": "in.*", **fields}]}


TRIGGERS = [
    triggered(start={"execution_id": "${message.id}", "idempotency_key": "${headers['ce-id']}"}),
    triggered(signal={"name": "go", "correlation": "${message.order}", "id": "${subject}"}),
    triggered(filter="message.n > 1", start={"input": {"all": "${message}", "n": "${message.n / 0}"}}),
]
MESSAGES = st.binary(max_size=40) | (mutated({"id": "a", "order": "@", "n": 2}) | VALUES).map(encoded)


async def heard(room: Room, document: Body, messages: list[tuple[bytes, dict[str, str]]]) -> None:
    name = await waiting(room)
    origin = {"workflow": room.name(), "subject": "in.a", "pattern": "in.*", "stream": "", "message": "m"}
    await room.ok("deploy", document={**document, "id": origin["workflow"]})
    for number, (data, headers) in enumerate(messages):
        about = {**origin, "message": f"{name}-{number}", "headers": headers}
        await room.publish(data.replace(b"@", name.encode()), {"Trigger": encoded(about).decode()})
    await room.settled()
    await room.ended(name)
    for letter in room.letters():
        assert letter.headers["Wpa-Code"]
        assert letter.headers["Wpa-Reason"]
    assert room.complaints() == []


@fuzz(30)
@given(st.sampled_from(TRIGGERS), st.lists(st.tuples(MESSAGES, HEADERS), min_size=1, max_size=3))
def test_messages_for_triggers_are_made_tasks_of_or_kept_with_a_reason(
    room: Room, document: Body, messages: list[tuple[bytes, dict[str, str]]]
) -> None:
    room.run(heard(room, document, messages))
