"""Hostile input on a real worker: everything is answered, what is refused is kept as it came, nobody else notices."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg

from tests.chaos.site import Site
from tests.chaos.witness import BOUNDS
from tests.checker.dump import settled
from tests.checker.judge import judge
from tests.fuzz import EXAMPLES_ASKED
from tests.json_corpus import CASES, MUST_READ, as_input
from wpa.client import Client
from wpa.model.api import VERBS

Body = dict[str, Any]

ORDER: Body = {"id": "order", "version": "1", "steps": [{"id": "a", "uses": "core.echo", "with": {"n": 1}}]}
TASKS, LETTERS = "workflow.tasks.default", "workflow.dlq.default"
AT_ONCE = 32
EACH_VERB_GETS = 1 if EXAMPLES_ASKED else 6
"""One of so many cases."""
SMALL_BYTES = 50_000


async def letters_of(nc: Nats, refused: Iterable[bytes]) -> list[Msg]:
    """The dead letters, until there is one for each that was refused. Where a lease has run out, there are two."""
    subscription = await nc.jetstream().subscribe(LETTERS, stream="WPA_DLQ", ordered_consumer=True)
    letters, missing = list[Msg](), Counter(refused)
    while missing:
        letters.append(await subscription.next_msg(timeout=30))
        missing -= Counter([letters[-1].data])
    return letters


async def all_answered(nc: Nats, tasks: Iterable[bytes]) -> list[Body]:
    """The answers to tasks, in their order: each names an inbox of its own."""
    inbox, answers = nc.new_inbox(), dict[int, Body]()

    async def keep(message: Msg) -> None:
        answers[int(message.subject.rpartition(".")[2])] = json.loads(message.data)

    await nc.subscribe(f"{inbox}.*", cb=keep)
    sent = 0
    for data in tasks:
        await nc.publish(TASKS, data, headers={"Wpa-Reply": f"{inbox}.{sent}"})
        sent += 1
    async with asyncio.timeout(60):
        while len(answers) < sent:
            await asyncio.sleep(0.02)
    return [answers[number] for number in range(sent)]


async def requests_answered(nc: Nats, requests: Iterable[tuple[str, bytes]]) -> None:
    """Every request has a proper answer, and none is an error of the engine's own."""
    room = asyncio.Semaphore(AT_ONCE)

    async def ask(verb: str, data: bytes) -> None:
        async with room:
            reply = json.loads((await nc.request(f"workflow.api.default.{verb}", data, timeout=30)).data)
        if reply["ok"] is not True:
            error = reply["error"]
            assert error["code"] != "internal", (verb, data[:200], error)
            assert len(error["message"]) > 5

    await asyncio.gather(*(ask(verb, data) for verb, data in requests))


async def nothing_is_too_large_to_be_kept(nc: Nats, client: Client) -> None:
    """What the server takes, without room for a reason beside it, is kept and shown."""
    data = b"x" * (nc.max_payload - 100)
    await nc.publish(TASKS, data)
    async with asyncio.timeout(60):
        while not (letters := [row for row in await client.dlq_list(5) if row["size"] == len(data)]):
            await asyncio.sleep(0.05)
    assert letters[0]["code"] == "over_limit"
    shown = await client.dlq_show(letters[0]["sequence"])
    assert shown["text"].startswith("xxx")
    assert await client.payload(shown["headers"]["Wpa-Payload"]) == data


def bodies(verb: str, number: int) -> Iterable[bytes]:
    """Of every so many cases, the text as the whole request, and in each of the request's fields."""
    fields = VERBS[verb].request.__struct_fields__
    for case in CASES[number % EACH_VERB_GETS :: EACH_VERB_GETS]:
        if len(case.text) <= SMALL_BYTES:
            yield case.text
            yield b"{%s}" % b",".join(b'"%s":%s' % (name.encode(), case.text) for name in fields)


@pytest.mark.timeout(180)
async def test_every_text_of_the_corpus_is_answered_and_what_is_refused_is_kept_as_it_came(
    tmp_path: Path,
) -> None:
    async with Site(tmp_path) as site:
        worker = await asyncio.to_thread(site.start_worker)
        nc = await nats.connect(site.url)
        async with await Client.connect(site.url) as client, await Client.connect(site.url, "good") as good:
            await client.deploy(ORDER)
            await good.deploy(ORDER)

            texts = [as_input(case.text) for case in CASES] + [case.text for case in CASES]
            answers = await all_answered(nc, texts)
            refused = [text for text, answer in zip(texts, answers, strict=True) if not answer["ok"]]
            for case, answer in zip(CASES, answers, strict=False):
                assert answer["ok"] is not bool(case.code), (case.name, answer)
                assert answer.get("error", {}).get("code", "") == case.code, (case.name, answer)
            letters = await letters_of(nc, refused)
            assert {letter.data for letter in letters} == set(refused)
            assert all(letter.headers and letter.headers["Wpa-Reason"] for letter in letters)
            assert len(await client.executions(limit=1_000)) == len(texts) - len(refused) > len(MUST_READ)

            await nothing_is_too_large_to_be_kept(nc, client)
            await requests_answered(
                nc, ((verb, body) for number, verb in enumerate(VERBS) for body in bodies(verb, number))
            )
            started = await good.start("order", {})
            assert (await good.result(started.execution_id, timeout_s=20))["status"] == "COMPLETED"
            facts = await settled(site.url, within_s=30)
        await nc.close()
        assert not (broken := judge(facts, BOUNDS)), "\n".join(map(str, broken))
        assert worker.process.poll() is None, "the worker has died of it"
        assert worker.stop() == 0
        log = worker.log.read_text()
        assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3_000]
