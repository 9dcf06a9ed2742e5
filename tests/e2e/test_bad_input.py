"""Bad input gets a clear error, and nothing is lost."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import nats
import pytest

from tests.e2e.processes import Wpa, invoke_wpa
from tests.servers import NatsServer
from tests.waiting import until
from wpa.client import Client
from wpa.errors import TaskRejected

DOCUMENT = {
    "id": "good",
    "version": "1",
    "input": {"type": "object", "properties": {"n": {"type": "integer"}}},
    "steps": [{"id": "a", "uses": "core.echo", "with": {"n": 1}}],
}


def start(**fields: Any) -> bytes:
    return json.dumps({"type": "workflow_start", "workflow_id": "good", **fields}).encode()


def deep(levels: int) -> bytes:
    return start(payload={"input_data": "@"}).replace(b'"@"', b"[" * levels + b"]" * levels)


BAD = {
    "not JSON": (b"this is no JSON", "not_json"),
    "nothing at all": (b"", "not_json"),
    "not UTF-8": (b'{"type": "\xff\xfe"}', "not_json"),
    "nested 10,000 deep": (deep(10_000), "over_limit"),
    "a 30-digit integer": (start(payload={"input_data": {"n": 10**29}}), "bad_number"),
    "NaN": (start(payload={"input_data": {"n": float("nan")}}), "not_json"),
    "over the size limit": (start(payload={"input_data": "x" * 4_300_000}), "over_limit"),
    "a list": (b"[1]", "not_a_task"),
    "no workflow": (b'{"type": "workflow_start"}', "not_a_task"),
    "an unknown type": (b'{"type": "workflow_dance", "workflow_id": "good"}', "unknown_type"),
    "an unknown workflow": (start(workflow_id="nope"), "unknown_workflow"),
    "an unknown version": (start(version="99"), "unknown_version"),
    "input that breaks the schema": (start(payload={"input_data": {"n": "one"}}), "invalid_input"),
    "an execution id with dots": (start(execution_id="a.b"), "invalid_name"),
    "an execution id with a wildcard": (start(execution_id="a*"), "invalid_name"),
    "an execution id with >": (start(execution_id=">"), "invalid_name"),
    "an execution id with spaces": (start(execution_id="a b"), "invalid_name"),
    "an execution id with NUL": (start(execution_id="a\0b"), "invalid_name"),
    "an execution id in another script": (start(execution_id="заказ"), "invalid_name"),
    "a workflow id with a dot": (start(workflow_id="a.b"), "invalid_name"),
    "another tenant's name": (start(tenant_id="somebody-else"), "wrong_tenant"),
    "a priority of 11": (start(priority=11), "not_a_task"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_task_is_kept_with_its_reason_and_the_worker_goes_on(
    worker: Wpa, nats_server: NatsServer, tenant: str, name: str
) -> None:
    data, code = BAD[name]
    nc = await nats.connect(nats_server.url)
    async with await Client.connect(nats_server.url, tenant) as client:
        await client.deploy(DOCUMENT)
        inbox = nc.new_inbox()
        replies = await nc.subscribe(inbox)
        await nc.publish(f"workflow.tasks.{tenant}", data, headers={"Wpa-Reply": inbox})
        answer = json.loads((await replies.next_msg(timeout=30)).data)
        assert (answer["ok"], answer["error"]["code"]) == (False, code)
        assert len(answer["error"]["message"]) > 10
        letters = await client.dlq_list()
        assert [letter["code"] for letter in letters] == [code]
        shown = await client.dlq_show(letters[0]["sequence"])
        assert base64.b64decode(shown["base64"]) == data
        # The same as a request.
        if code != "not_json" or data:
            reply = json.loads((await nc.request(f"workflow.api.{tenant}.start", data, timeout=30)).data)
            if name == "an unknown type":
                assert reply["error"]["code"] == "unknown_type"
            elif name != "no workflow":
                assert reply["error"]["code"] == code, reply
        # And a good one still runs.
        done = await client.start("good", {"n": 1})
        assert (await client.result(done.execution_id, timeout_s=30))["status"] == "COMPLETED"
    await nc.close()


@pytest.mark.parametrize("bad", ["Upper", "a b", "заказ", "-a", "x" * 64])
async def test_a_bad_tenant_is_refused_by_the_api(worker: Wpa, nats_server: NatsServer, bad: str) -> None:
    if " " in bad:
        with pytest.raises(TaskRejected):
            await Client.connect(nats_server.url, bad)
        return
    nc = await nats.connect(nats_server.url)
    answer = json.loads((await nc.request(f"workflow.api.{bad}.list", b"", timeout=30)).data)
    assert answer["error"]["code"] == "invalid_name"
    await nc.close()


@pytest.mark.parametrize("bad", ["Upper", "заказ"])
async def test_letters_of_what_can_be_no_tenant_are_shown(
    worker: Wpa, nats_server: NatsServer, bad: str
) -> None:
    nc = await nats.connect(nats_server.url)
    await nc.request(f"workflow.tasks.{bad}", start(), timeout=30)
    async with await Client.connect(nats_server.url, bad, letters_only=True) as client:
        (letter,) = await until(client.dlq_list)
        assert letter["code"] == "invalid_name"
        with pytest.raises(TaskRejected, match="not a valid name"):
            await client.deploy(DOCUMENT)
    number = str(letter["sequence"])
    for command, code in ((["dlq", "list"], 0), (["dlq", "show", number], 0), (["list"], 2)):
        done = await asyncio.to_thread(invoke_wpa, *command, url=nats_server.url, tenant=bad)
        assert (done.returncode, "not a valid name" in done.stdout + done.stderr) == (code, True)
    with pytest.raises(TaskRejected):
        await Client.connect(nats_server.url, "a.>", letters_only=True)
    await nc.close()


async def test_a_duplicate_start_gets_the_first_ones_answer_and_a_different_one_a_conflict(
    worker: Wpa, nats_server: NatsServer, tenant: str
) -> None:
    async with await Client.connect(nats_server.url, tenant) as client:
        await client.deploy(DOCUMENT)
        first = await client.start("good", {"n": 1}, execution_id="x1")
        await client.result("x1", timeout_s=30)
        again = await client.start("good", {"n": 1}, execution_id="x1")
        assert (first.duplicate, again.duplicate, again.execution_id) == (False, True, "x1")
        with pytest.raises(TaskRejected) as caught:
            await client.start("good", {"n": 2}, execution_id="x1")
        assert caught.value.code == "conflict"
        # As plain messages, the same: nothing for the duplicate, a dead letter for the conflict.
        for number in (1, 2):
            task = {"workflow_id": "good", "execution_id": "x1", "payload": {"input_data": {"n": number}}}
            await client.publish_start({"type": "workflow_start", **task})
        letters = await until(client.dlq_list)
        assert [letter["code"] for letter in letters] == ["conflict"]
        assert len(await client.history("x1")) == 3


async def test_a_dead_letter_can_be_retried_once_its_cause_is_gone(
    worker: Wpa, nats_server: NatsServer, tenant: str, tmp_path: Path
) -> None:
    async with await Client.connect(nats_server.url, tenant) as client:
        await client.publish_start({"type": "workflow_start", "workflow_id": "good", "execution_id": "late"})
        letters = await until(client.dlq_list)
        number = str(letters[0]["sequence"])
        listed = await asyncio.to_thread(invoke_wpa, "dlq", "list", url=nats_server.url, tenant=tenant)
        assert "unknown_workflow" in listed.stdout
        shown = await asyncio.to_thread(invoke_wpa, "dlq", "show", number, url=nats_server.url, tenant=tenant)
        assert '"execution_id":"late"' in shown.stdout
        await client.deploy(DOCUMENT)
        retried = await asyncio.to_thread(
            invoke_wpa, "dlq", "retry", number, url=nats_server.url, tenant=tenant
        )
        assert retried.returncode == 0, retried.stderr
        assert (await client.result("late", timeout_s=30))["status"] == "COMPLETED"
        assert await client.dlq_list() == []


async def test_a_large_output_travels_through_the_object_store(
    worker: Wpa, nats_server: NatsServer, tenant: str
) -> None:
    steps = [
        {"id": "big", "uses": "e2e.large", "with": {"size": 2_000_000}},
        {"id": "size", "needs": ["big"], "uses": "core.echo", "with": {"n": "${size(steps.big.output)}"}},
    ]
    async with await Client.connect(nats_server.url, tenant) as client:
        await client.deploy({"id": "large", "version": "1", "steps": steps})
        started = await client.start("large")
        status = await client.result(started.execution_id, timeout_s=30)
        assert status["output"] == {"size": {"n": 2_000_000}}
        events = await client.history(started.execution_id)
        reference = events[1]["data"]["output"]["$blob"]
        assert reference["size"] == 2_000_002
        assert json.loads(await client.payload(reference["key"])) == "x" * 2_000_000
        shown = await asyncio.to_thread(
            invoke_wpa, "payload", reference["key"], url=nats_server.url, tenant=tenant
        )
        assert len(shown.stdout.strip()) == 2_000_002
        for key in ("nope", reference["key"] + "0", "other/x/1"):
            with pytest.raises(TaskRejected, match="unknown_payload"):
                await client.payload(key)


@pytest.mark.parametrize("bad", ["Upper", "заказ", "-a", "x" * 70])
async def test_a_task_of_a_tenant_that_may_not_be_one_is_a_dead_letter(
    worker: Wpa, nats_server: NatsServer, tenant: str, bad: str
) -> None:
    nc = await nats.connect(nats_server.url)
    bad = f"{bad}-{tenant}" if bad[0] in "Uз" else bad
    subscription = await nc.jetstream().subscribe(
        f"workflow.dlq.{bad}", stream="WPA_DLQ", ordered_consumer=True
    )
    await nc.publish(f"workflow.tasks.{bad}", start())
    letter = await subscription.next_msg(timeout=30)
    assert letter.headers is not None
    assert letter.headers["Wpa-Code"] == "invalid_name"
    assert letter.data == start()
    async with await Client.connect(nats_server.url, tenant) as client:
        await client.deploy(DOCUMENT)
        done = await client.start("good", {"n": 1})
        assert (await client.result(done.execution_id, timeout_s=30))["status"] == "COMPLETED"
    await nc.close()


async def test_large_variables_are_refused_and_a_large_final_output_is_not(
    worker: Wpa, nats_server: NatsServer, tenant: str
) -> None:
    async with await Client.connect(nats_server.url, tenant) as client:
        step = {"id": "big", "uses": "e2e.large", "with": {"size": 3_000_000}}
        output = ["${steps.big.output}", "${steps.big.output}", "${steps.big.output}"]
        await client.deploy({"id": "good", "version": "1", "steps": [step], "output": output})
        started = await client.start("good")
        status = await client.result(started.execution_id, timeout_s=30)
        assert status["status"] == "COMPLETED"
        assert status["output"]["$blob"]["size"] > 9_000_000
        large = {"x": "x" * 100_000}
        with pytest.raises(TaskRejected, match="variables has 100008 bytes"):
            await client.start("good", variables=large)
        assert await client.dlq_list() == []
        await client.publish_start(
            {"type": "workflow_start", "workflow_id": "good", "payload": {"variables": large}}
        )
        letters = await until(client.dlq_list)
        assert "$.payload.variables has" in letters[0]["message"]


async def test_an_input_that_looks_like_a_reference_is_only_data(
    worker: Wpa, nats_server: NatsServer, tenant: str
) -> None:
    """Nobody can be given another tenant's payload by naming it."""
    forged = {"$blob": {"key": "somebody-else/x1/0123", "size": 1, "sha256": ""}}
    async with await Client.connect(nats_server.url, tenant) as client:
        step = {"id": "a", "uses": "core.echo", "with": {"got": "${input}"}}
        await client.deploy(
            {"id": "good", "version": "1", "steps": [step], "output": "${steps.a.output.got}"}
        )
        started = await client.start("good", forged)
        status = await client.result(started.execution_id, timeout_s=30)
        assert status["steps"][0]["input"] == {"got": forged}
        stored = (await client.history(started.execution_id))[0]["data"]["input"]["$blob"]["key"]
        assert stored.startswith(f"{tenant}/{started.execution_id}/")
