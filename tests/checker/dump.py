"""Reading the facts from a server: the public streams, buckets and requests, by nats-py and nothing else."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import zlib
from collections.abc import AsyncIterator, Collection, Iterator
from datetime import datetime
from typing import Any, Final

import nats
from nats.aio.client import Client
from nats.errors import Error, NoRespondersError
from nats.js.errors import ObjectNotFoundError

from tests.checker.facts import Definition, Facts, Message, Recorded, Snapshot, Status

__all__ = ["dump", "settled"]

BATCH: Final = 500
AT_A_TIME: Final = 32
AGAIN_S: Final = 0.2
BEHIND_S: Final = 5.0
"""So long a server may be behind the leader of its stream, in seconds."""
PACKED: Final = b"\x01"
"""What a compressed snapshot begins with."""
NONE_FOUND: Final = 10037
"""The server's code where a stream has no such message."""


class Unreadable(Exception):
    """A server can't say what a stream holds, or not all of it: it is no judge's business to guess."""

    def __init__(self, words: str, code: int = 0) -> None:
        super().__init__(words)
        self.code = code


async def dump(url: str, *, statuses: bool = True) -> Facts:
    """All that lies in the streams and buckets of the server at ``url``, and what its workers say.

    What only the test knows (calls, faults, the ledger, canaries) is to be added. Call it when nothing
    moves any more: the streams are read one after the other. Raises what nats-py does, and Unreadable.

    Args:
        url: of the server, or of those of a cluster, separated by commas.
        statuses: whether to ask for the status of every execution; somebody has to be there to answer.
    """
    connection = await nats.connect(url.split(","))
    try:
        facts = Facts(taken_ms=int(time.time() * 1000))
        facts.tasks = [one async for one in _queued(connection, "WPA_TASKS")]
        facts.timers = [one async for one in _queued(connection, "WPA_TIMERS")]
        facts.letters = [one async for one in _kept(connection, "WPA_DLQ")]
        facts.events = [
            Recorded(one.subject, one.sequence, one.stored_ms, one.body)
            async for one in _kept(connection, "WPA_EVENTS")
        ]
        facts.snapshots = [
            Snapshot(one.tenant, one.subject.split(".")[3], one.body)
            async for one in _kept(connection, "KV_wpa_executions")
        ]
        facts.definitions = [
            _definition(one) async for one in _kept(connection, "KV_wpa_definitions") if "hash" in one.body
        ]
        await _payloads(connection, facts)
        if statuses:
            facts.statuses, facts.statuses_asked = await _statuses(connection, facts), True
        return facts
    finally:
        await connection.close()


async def settled(url: str, within_s: float, waiting: Collection[str] = ()) -> Facts:
    """The facts when nothing moves any more, or after ``within_s``.

    Args:
        url: of the server, or of those of a cluster, separated by commas.
        within_s: so long it is waited, in seconds.
        waiting: the executions that go on waiting; all others have to come to an end.

    Raises what :func:`dump` does where it can't be read for so long: a cluster may have lost a leader once more.
    """
    deadline = time.monotonic() + within_s
    quiet = 0
    while True:
        try:
            facts = await dump(url)
        except (TimeoutError, Error, OSError, Unreadable):
            if time.monotonic() > deadline:
                raise
            quiet = 0
        else:
            quiet = quiet + 1 if _is_quiet(facts, waiting) else 0
            # Read once more: the streams are read one after the other, and something may have moved meanwhile.
            if quiet == 2 or time.monotonic() > deadline:
                return facts
        await asyncio.sleep(AGAIN_S)


def _is_quiet(facts: Facts, waiting: Collection[str]) -> bool:
    waits = {status.execution for status in facts.statuses if status.document["status"] == "WAITING"}
    at_rest = all(status.document["at_rest"] for status in facts.statuses)
    told = len(facts.statuses) == len(facts.journals())
    rung = any(timer.subject.startswith("workflow.due.") for timer in facts.timers)
    return told and at_rest and waits <= set(waiting) and not facts.tasks and not rung


async def _last(connection: Client, stream: str) -> int:
    """The sequence of a stream's last message, as its leader has it."""
    return int((await _api(connection, f"STREAM.INFO.{stream}", b""))["state"]["last_seq"])


async def _next(connection: Client, stream: str, start: int) -> dict[str, Any] | None:
    """The first message from a sequence on, as the stream's leader has it."""
    asked = json.dumps({"seq": start, "next_by_subj": ">"}).encode()
    try:
        found: dict[str, Any] = (await _api(connection, f"STREAM.MSG.GET.{stream}", asked))["message"]
    except Unreadable as error:
        if error.code == NONE_FOUND:
            return None
        raise
    return found


async def _api(connection: Client, verb: str, asked: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((await connection.request(f"$JS.API.{verb}", asked, timeout=10)).data)
    if error := answer.get("error"):
        raise Unreadable(f"{verb}: {error.get('description')}", error.get("err_code", 0))
    return answer


async def _kept(connection: Client, stream: str) -> AsyncIterator[Message]:
    """All messages of a stream that answers direct gets, in batches.

    In a cluster, whoever answers may be behind the leader for a while after a fault.
    """
    last = await _last(connection, stream)
    deadline = time.monotonic() + BEHIND_S
    start = 1
    while start <= last:
        inbox = connection.new_inbox()
        answers = await connection.subscribe(inbox)
        asked = {"seq": start, "next_by_subj": ">", "batch": BATCH}
        await connection.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(asked).encode(), reply=inbox)
        count = 0
        while True:
            answer = await answers.next_msg(timeout=10)
            headers = dict(answer.headers or {})
            if headers.get("Status"):
                break  # the end of the batch, or nothing found
            count += 1
            start = int(headers["Nats-Sequence"]) + 1
            if "KV-Operation" not in headers:
                moment = _ms(headers["Nats-Time-Stamp"])
                yield Message(
                    headers["Nats-Subject"], start - 1, moment, _body(answer.data), _theirs(headers)
                )
        await answers.unsubscribe()
        if count == 0:
            # Its last messages may have been removed, as dead letters are; then that is all there is.
            if await _next(connection, stream, start) is None:
                return
            if time.monotonic() > deadline:
                raise Unreadable(f"no replica that was asked has all that {stream} holds")
            await asyncio.sleep(AGAIN_S)


async def _queued(connection: Client, stream: str) -> AsyncIterator[Message]:
    """All messages of a work queue, one by one: it answers no direct gets."""
    start = 1
    while True:
        found = await _next(connection, stream, start)
        if found is None:
            return
        start = found["seq"] + 1
        headers = _headers(base64.b64decode(found.get("hdrs", "")))
        body = _body(base64.b64decode(found.get("data", "")))
        yield Message(found["subject"], found["seq"], _ms(found["time"]), body, headers)


def _ms(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


def _body(data: bytes) -> Any:
    if data[:1] == PACKED:
        data = zlib.decompress(data[1:])
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode(errors="replace")


def _theirs(headers: dict[str, str]) -> dict[str, str]:
    """The headers without those of the direct get itself."""
    own = ("Nats-Sequence", "Nats-Time-Stamp", "Nats-Subject", "Nats-Stream", "Nats-Num-Pending")
    return {name: value for name, value in headers.items() if name not in (*own, "Nats-Last-Sequence")}


def _headers(raw: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in raw.decode(errors="replace").split("\r\n")[1:])
    return {name: value.strip() for name, colon, value in lines if colon}


def _definition(message: Message) -> Definition:
    told = message.body
    return Definition(message.tenant, told["workflow"], told["version"], told["hash"], told["document"])


async def _payloads(connection: Client, facts: Facts) -> None:
    """The large payloads to which any event refers."""
    keys = {key for event in facts.events for key in _references(event.body)}
    if not keys:
        return
    store = await connection.jetstream().object_store("wpa_payloads")
    for key in sorted(keys):
        try:
            facts.payloads[key] = json.loads((await store.get(key)).data or b"null")
        except ObjectNotFoundError:
            continue  # the judge will miss it


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        blob = value.get("$blob")
        if len(value) == 1 and isinstance(blob, dict) and isinstance(blob.get("key"), str):
            yield blob["key"]
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


async def _statuses(connection: Client, facts: Facts) -> list[Status]:
    """What the API says of each execution that has a journal."""
    room = asyncio.Semaphore(AT_A_TIME)

    async def ask(tenant: str, execution: str) -> Status | None:
        body = json.dumps({"execution_id": execution}).encode()
        async with room:
            try:
                reply = await connection.request(f"workflow.api.{tenant}.status", body, timeout=10)
            except (TimeoutError, NoRespondersError):
                return None
        answer = json.loads(reply.data)
        return Status(tenant, execution, answer["execution"]) if answer.get("ok") else None

    found = await asyncio.gather(*(ask(*key) for key in facts.journals()))
    return [status for status in found if status is not None]
