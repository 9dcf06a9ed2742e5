"""The outside client: start executions, ask about them, wait for them, follow them.

It needs nothing but a connection: all it does, any NATS client in any language can do. A start is given
its execution id here, so a start that is repeated after a time-out is the same start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg

from wpa.errors import DefinitionError, OverLimit, Problem, TaskRejected, Unavailable
from wpa.model.events import TERMINAL
from wpa.model.ids import DEFAULT_TENANT, check_execution, check_tenant
from wpa.model.state import is_terminal

__all__ = ["Client", "StartResult", "without_password"]

log = logging.getLogger("wpa.client")

CONNECT_WITHIN_S = 10.0
REQUEST_TIMEOUT_S = 5.0
TRIES = 3
POLL_EVERY_S = 2.0
PAYLOADS = "wpa_payloads"
AWAY_FOR_S = 10.0
AWAY_RETRY_S = 0.5

Body = dict[str, Any]
T = TypeVar("T")


class _ServerAway(Unavailable):
    """A worker answered, but it can't reach what it needs."""


class StartResult(msgspec.Struct, frozen=True):
    """What a start was answered with. ``duplicate``: this very start was made before."""

    execution_id: str
    workflow_id: str
    version: str
    duplicate: bool = False


class Client:
    """Speaks for one tenant. Use it as ``async with await Client.connect(url) as client``."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        self._nc = connection
        self.tenant = tenant

    @classmethod
    async def connect(cls, url: str, tenant: str = DEFAULT_TENANT, *, creds: Path | None = None) -> Client:
        """Connect. Raises Unavailable where no server answers, or where it refuses us, and InvalidName
        for a bad tenant."""
        check_tenant(tenant)
        refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def on_error(error: Exception) -> None:
            """Errors of the connection come back from the calls that they concern, but for a refusal:
            nats-py, told to reconnect for ever, would knock at a closed door for ever."""
            if not refused.done() and "authorization" in str(error).lower():
                refused.set_result(str(error))

        for tried in range(TRIES):
            if await _reachable(url):
                break
            # It may be starting, or starting again.
            await asyncio.sleep(0.3 * (tried + 1))
        else:
            raise Unavailable(
                f"no NATS server answers at {without_password(url)}; "
                "start one with `wpa dev`, or name it with --nats URL"
            )
        options: Body = {"user_credentials": str(creds)} if creds else {}
        connecting = asyncio.ensure_future(
            nats.connect(
                [server.strip() for server in url.split(",")],
                name="wpa client",
                connect_timeout=3,
                error_cb=on_error,
                reconnect_time_wait=0.2,
                max_reconnect_attempts=-1,
                allow_reconnect=True,
                **options,
            )
        )
        either: set[asyncio.Future[Any]] = {connecting, refused}
        try:
            await asyncio.wait(either, timeout=CONNECT_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                why = refused.result() if refused.done() else f"no answer within {CONNECT_WITHIN_S:g} s"
                raise Unavailable(f"the NATS server at {without_password(url)} does not let us in: {why}")
            return cls(connecting.result(), tenant)
        except (OSError, TimeoutError, ValueError, nats.errors.Error) as error:
            why = str(error) or type(error).__name__
            raise Unavailable(f"can't connect to {without_password(url)}: {why}") from error
        finally:
            connecting.cancel()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Send what is still to be sent, and close the connection."""
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await self._nc.flush(timeout=1)
        await self._nc.close()

    # -- requests ----------------------------------------------------------------------------

    async def request(self, verb: str, body: Body | None = None) -> Body:
        """One request to ``workflow.api.<tenant>.<verb>``; every verb may be repeated.

        Tried again while nobody answers, and for ten seconds while a worker answers that the server is
        away (a cluster that elects a leader takes about seven). Raises TaskRejected or DefinitionError
        with the engine's reasons, Unavailable when it stays like that.
        """
        deadline = time.monotonic() + AWAY_FOR_S
        while True:
            try:
                return await self._request(verb, body)
            except _ServerAway as error:
                if time.monotonic() > deadline:
                    raise Unavailable(str(error)) from None
                await asyncio.sleep(AWAY_RETRY_S)

    async def _request(self, verb: str, body: Body | None) -> Body:
        subject = f"workflow.api.{self.tenant}.{verb}"
        reason = ""
        for tried in range(TRIES):
            try:
                reply = await self._nc.request(
                    subject, msgspec.json.encode(body or {}), timeout=REQUEST_TIMEOUT_S
                )
            except nats.errors.NoRespondersError:
                reason = f"no worker answers on {subject}; start one with `wpa dev` or `wpa worker`"
                if tried < TRIES - 1:
                    await asyncio.sleep(0.5 * (tried + 1))
            except (TimeoutError, nats.errors.TimeoutError):
                reason = f"no answer on {subject} within {REQUEST_TIMEOUT_S:g} s"
            except (nats.errors.Error, OSError) as error:
                raise Unavailable(f"{subject}: {error}") from error
            else:
                return self._unwrap(msgspec.json.decode(reply.data))
        raise Unavailable(reason)

    @staticmethod
    def _unwrap(answer: Body) -> Body:
        if answer.get("ok"):
            return answer
        error: Body = answer.get("error") or {}
        problems = [Problem(p["path"], p["message"], p.get("hint", "")) for p in error.get("problems", ())]
        code, message = error.get("code", "unknown"), error.get("message", "no reason given")
        if code == "invalid_definition":
            raise DefinitionError(problems)
        if code == "unavailable":
            raise _ServerAway(message)
        raise TaskRejected(code, message, problems)

    # -- executions --------------------------------------------------------------------------

    async def start(
        self,
        workflow: str,
        input: Any = None,
        *,
        execution_id: str | None = None,
        version: str = "",
        variables: Body | None = None,
        priority: int = 5,
        metadata: dict[str, str] | None = None,
    ) -> StartResult:
        """Start an execution. Idempotent in ``execution_id``: the same start again is a duplicate.

        Raises TaskRejected (``unknown_workflow``, ``invalid_input``, ``conflict`` ...), Unavailable,
        OverLimit, and ValueError for NaN or Infinity, which the encoder would write as null.
        """
        try:
            finite = _is_finite(input) and _is_finite(variables)
        except RecursionError:
            raise OverLimit("the input is nested too deeply") from None
        if not finite:
            raise ValueError("NaN and Infinity are not JSON: send null or a string")
        answer = await self.request(
            "start",
            {
                "workflow_id": workflow,
                "version": version,
                "execution_id": execution_id or uuid.uuid4().hex,
                "priority": priority,
                "metadata": metadata or {},
                "payload": {"input_data": {} if input is None else input, "variables": variables or {}},
            },
        )
        return msgspec.convert(answer, StartResult)

    async def publish_start(self, task: Body) -> None:
        """Publish a raw task on ``workflow.tasks.<tenant>``, as a service without this library would."""
        await self._nc.publish(f"workflow.tasks.{self.tenant}", msgspec.json.encode(task))
        await self._nc.flush()

    async def status(self, execution_id: str) -> Body:
        """The status document. Raises TaskRejected (``unknown_execution``)."""
        found: Body = (await self.request("status", {"execution_id": execution_id}))["execution"]
        return found

    async def history(self, execution_id: str, after: int = 0) -> list[Body]:
        """All events past sequence ``after``, in order."""
        events: list[Body] = []
        while True:
            answer = await self.request("history", {"execution_id": execution_id, "after": after})
            events += answer["events"]
            if not answer["more"]:
                return events
            after = events[-1]["seq"]

    async def executions(self, *, limit: int = 20, status: str = "", workflow: str = "") -> list[Body]:
        """The most recently active executions."""
        answer = await self.request("list", {"limit": limit, "status": status, "workflow_id": workflow})
        rows: list[Body] = answer["executions"]
        return rows

    async def result(self, execution_id: str, timeout_s: float | None = None) -> Body:
        """Wait until the execution has ended; its status document.

        Survives reconnects, lost events and workers that come and go, by looking itself every few
        seconds. An id that nobody knows yet is waited for, too: its start may be queued. Raises
        TimeoutError, InvalidName, and Unavailable where no worker answers the first question.
        """
        check_execution(execution_id)
        ended = asyncio.Event()
        away = _Away()

        async def look(message: Msg) -> None:
            if any(name.encode() in message.data[:600] for name in TERMINAL):
                ended.set()

        subscription = await self._nc.subscribe(f"workflow.events.{self.tenant}.{execution_id}", cb=look)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    status = await away.ask(self._status_or_none(execution_id))
                    if status is not None and is_terminal(status["status"]):
                        return status
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(POLL_EVERY_S):
                            await ended.wait()
                    ended.clear()
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _status_or_none(self, execution_id: str) -> Body | None:
        try:
            return await self.status(execution_id)
        except TaskRejected as error:
            if error.code == "unknown_execution":
                return None  # queued, and not begun
            raise

    async def watch(self, execution_id: str | None = None) -> AsyncIterator[Body]:
        """Events as they happen: of one execution from its first on, up to its end; or of all, from now on.

        Live events (``step_started``, ``step_progress``) come too; they have no ``seq``. Stored events
        come once each and, for one execution, in order. Raises InvalidName, and Unavailable where no
        worker answers the first question; afterwards, workers may come and go.
        """
        if execution_id is not None:
            check_execution(execution_id)
        queue: asyncio.Queue[Body] = asyncio.Queue()

        async def take(message: Msg) -> None:
            with contextlib.suppress(msgspec.DecodeError):
                queue.put_nowait(msgspec.json.decode(message.data))

        which = "*" if execution_id is None else execution_id
        subscriptions = [
            await self._nc.subscribe(f"workflow.events.{self.tenant}.{which}", cb=take),
            await self._nc.subscribe(f"workflow.events.{self.tenant}.{which}.live", cb=take),
        ]
        await self._nc.flush()
        try:
            if execution_id is None:
                while True:
                    yield await queue.get()
            async for event in self._follow(execution_id, queue):
                yield event
        finally:
            for subscription in subscriptions:
                with contextlib.suppress(nats.errors.Error):
                    await subscription.unsubscribe()

    async def _follow(self, execution_id: str, queue: asyncio.Queue[Body]) -> AsyncIterator[Body]:
        seen = 0
        away = _Away()
        while True:
            # What the subscription missed (events before it, or during a reconnect) is in the journal.
            for event in await away.ask(self._history_or_nothing(execution_id, seen)) or ():
                seen = event["seq"]
                yield event
                if event["event"] in TERMINAL:
                    return
            while True:
                try:
                    async with asyncio.timeout(POLL_EVERY_S):
                        event = await queue.get()
                except TimeoutError:
                    break  # quiet: it may be that events were missed
                if "seq" not in event:
                    yield event
                elif event["seq"] == seen + 1:
                    seen = event["seq"]
                    yield event
                    if event["event"] in TERMINAL:
                        return
                elif event["seq"] > seen:
                    break  # a gap: look into the journal

    async def _history_or_nothing(self, execution_id: str, after: int) -> list[Body]:
        try:
            return await self.history(execution_id, after)
        except TaskRejected as error:
            if error.code == "unknown_execution":
                return []
            raise

    # -- definitions and dead letters ----------------------------------------------------------

    async def deploy(self, document: Body, *, deployed_by: str = "") -> Body:
        """Deploy a definition. Idempotent; raises DefinitionError, TaskRejected (``version_conflict``)."""
        return await self.request("deploy", {"document": document, "deployed_by": deployed_by})

    async def validate(self, document: Any) -> list[Problem]:
        """All that a worker finds wrong with a definition."""
        answer = await self.request("validate", {"document": document})
        return [Problem(p["path"], p["message"], p.get("hint", "")) for p in answer["problems"]]

    async def definitions(self) -> list[Body]:
        """Every deployed version."""
        rows: list[Body] = (await self.request("definitions"))["definitions"]
        return rows

    async def definition(self, workflow: str, version: str = "") -> Body:
        """One deployed document, the latest by default."""
        return await self.request("definition", {"workflow_id": workflow, "version": version})

    async def dlq_list(self, limit: int = 50) -> list[Body]:
        """The newest dead letters."""
        rows: list[Body] = (await self.request("dlq_list", {"limit": limit}))["letters"]
        return rows

    async def dlq_show(self, sequence: int) -> Body:
        """One dead letter, with its original bytes."""
        letter: Body = (await self.request("dlq_show", {"sequence": sequence}))["letter"]
        return letter

    async def dlq_retry(self, sequence: int) -> int:
        """Queue a dead letter's original bytes again; the new task's sequence."""
        return int((await self.request("dlq_retry", {"sequence": sequence}))["task_sequence"])

    async def payload(self, key: str) -> bytes:
        """The JSON of a large payload, by the key of its ``$blob`` reference; from the object store.

        Raises TaskRejected (``unknown_payload``) for a key of another tenant, too; Unavailable.
        """
        try:
            if not key.startswith(f"{self.tenant}/"):
                raise nats.js.errors.ObjectNotFoundError
            store = await self._nc.jetstream().object_store(PAYLOADS)
            return (await store.get(key)).data or b""
        except nats.js.errors.ObjectNotFoundError:
            raise TaskRejected("unknown_payload", f"tenant {self.tenant} has no payload {key!r}") from None
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise Unavailable(f"payload {key}: {error or type(error).__name__}") from error


class _Away:
    """Patience for somebody who waits: once a worker has answered, a silent while is no failure.

    The execution is durable; whoever waits for it must not be less so. Without a first answer, though,
    nothing says that there is anybody to wait for.
    """

    def __init__(self) -> None:
        self._answered = False
        self._told = False

    async def ask(self, question: Awaitable[T]) -> T | None:
        """The answer, or None where none came, which is logged once in an outage."""
        try:
            answer = await question
        except Unavailable as error:
            if not self._answered:
                raise
            if not self._told:
                log.warning("%s; still waiting", error)
                self._told = True
            return None
        self._answered, self._told = True, False
        return answer


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, (list, tuple)) or all(map(_is_finite, value))


def without_password(url: str) -> str:
    """A server's URL as it may be shown: without user, password or token."""
    return re.sub(r"//[^/@,]*@", "//", url)


async def _reachable(url: str) -> bool:
    """Whether anything listens at one of the URL's servers: nats-py retries for long before it says no."""
    for part in url.split(","):
        if part.strip().startswith(("ws://", "wss://")):
            return True  # the port may be implied; nats-py will see
        address = part.strip().rpartition("@")[2].removeprefix("nats://").removeprefix("tls://").rstrip("/")
        host, _, port = address.rpartition(":") if ":" in address else (address, "", "4222")
        try:
            async with asyncio.timeout(3):
                _, writer = await asyncio.open_connection(host.strip("[]") or "127.0.0.1", int(port))
        except (OSError, TimeoutError, ValueError):
            continue
        writer.close()
        return True
    return False
