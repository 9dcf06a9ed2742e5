"""The client itself: starts, definitions, dead letters, payloads; and all that its bases can."""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import nats.errors
import nats.js.errors

from wpa.client.asks import Asks
from wpa.client.channel import Body, Unanswered, check_json
from wpa.client.connecting import connect, flush
from wpa.client.following import Following
from wpa.client.listing import Listing
from wpa.errors import Problem, TaskRejected, Unavailable
from wpa.model.ids import DEFAULT_TENANT, check_tenant, check_token

__all__ = ["Client", "StartResult"]

PAYLOADS: Final = "wpa_payloads"
LETTERS_AT_ONCE: Final = 1_000
STALLED_S: Final = 10.0
"""A payload of which nothing has come for so long is not all there."""


class StartResult(msgspec.Struct, frozen=True):
    """What a start was answered with, when it was stored."""

    execution_id: str
    workflow_id: str
    version: str
    """A plan begins on this one, whatever is deployed before a worker takes it; a flow, on that worker's."""
    duplicate: bool = False
    """This very start was made before, and has begun."""


class Client(Following, Listing, Asks):
    """Speaks for one tenant. Use it as ``async with await Client.connect(url) as client``."""

    @classmethod
    async def connect(
        cls,
        url: str,
        tenant: str = DEFAULT_TENANT,
        *,
        creds: Path | None = None,
        letters_only: bool = False,
    ) -> Client:
        """Connect.

        Args:
            url: of a server, or of several, with commas between.
            tenant: who is spoken for.
            creds: a NATS credentials file.
            letters_only: to look at dead letters; of whoever can be no tenant, too.

        Raises Unavailable where no server answers, or where it refuses us, and InvalidName for a bad tenant.
        """
        check = check_token if letters_only else check_tenant
        check(tenant)
        return cls(await connect(url, creds=creds), tenant)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

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
        start_at: datetime | str = "",
        metadata: Body | None = None,
    ) -> StartResult:
        """Start an execution. Idempotent in ``execution_id``: the same start again is a duplicate.

        Another start under an id that has begun is refused (``conflict``). One that is made before is
        accepted, too: the one that a worker takes first begins, and the other becomes a dead letter.

        Args:
            workflow: the id of a deployed definition.
            input: any JSON that fits its input schema; ``{}`` by default.
            execution_id: one is made by default, so that a call that is tried again is the same start.
            version: a deployed version; the one deployed last by default.
            start_at: nothing begins before this moment (with a time zone, or RFC 3339); where it is past,
                the execution begins at once.

        Raises TaskRejected (``unknown_workflow``, ``invalid_input``, ``conflict`` ...), Unavailable,
        OverLimit, and ValueError for NaN or Infinity, which the encoder would write as null, and for a
        ``start_at`` without a time zone.
        """
        check_json(input, "the input")
        check_json(variables, "a variable")
        name = execution_id or uuid.uuid4().hex
        body = {
            "workflow_id": workflow,
            "version": version,
            "execution_id": name,
            "priority": priority,
            "metadata": metadata or {},
            "start_at": _moment(start_at),
            "payload": {"input_data": {} if input is None else input, "variables": variables or {}},
        }
        try:
            return msgspec.convert(await self.request("start", body), StartResult)
        except Unanswered as error:
            told = f"{error}; it may have been started all the same: start it again under the id {name}"
            raise Unavailable(told) from None

    async def publish_start(self, task: Body) -> None:
        """Publish a raw task on ``workflow.tasks.<tenant>``, as a service without this library would."""
        await self._nc.publish(f"workflow.tasks.{self.tenant}", msgspec.json.encode(task))
        await flush(self._nc)

    # -- definitions, dead letters, workers ----------------------------------------------------

    async def deploy(self, document: Body, *, deployed_by: str = "") -> Body:
        """Deploy a definition. Idempotent; raises DefinitionError, TaskRejected (``version_conflict``)."""
        return await self.request("deploy", {"document": document, "deployed_by": deployed_by})

    async def validate(self, document: Any) -> list[Problem]:
        """All that a worker finds wrong with a definition."""
        answer = await self.request("validate", {"document": document})
        return [Problem(p["path"], p["message"], p.get("hint", "")) for p in answer["problems"]]

    async def definitions(self) -> list[Body]:
        """Every deployed version."""
        return await self.rows("definitions", "definitions")

    async def definition(self, workflow: str, version: str = "") -> Body:
        """One deployed document, the latest by default."""
        return await self.request("definition", {"workflow_id": workflow, "version": version})

    async def dlq_list(self, limit: int = 50) -> list[Body]:
        """The newest dead letters, ``limit`` at most."""
        found: list[Body] = []
        before = 0
        while len(found) < limit:
            asked = {"limit": min(limit - len(found), LETTERS_AT_ONCE), "before": before}
            answer = await self.request("dlq_list", asked)
            found += answer["letters"]
            if not answer.get("more"):  # a worker of before looks once
                break
            before = answer["next"]
        return found

    async def dlq_show(self, sequence: int) -> Body:
        """One dead letter, with its original bytes."""
        letter: Body = (await self.request("dlq_show", {"sequence": sequence}))["letter"]
        return letter

    async def dlq_retry(self, sequence: int) -> int:
        """Queue a dead letter's original bytes again; the new task's sequence."""
        return int((await self.request("dlq_retry", {"sequence": sequence}))["task_sequence"])

    async def workers(self) -> list[Body]:
        """The workers that were heard of lately: host, process, step types, queues. Shared by all tenants."""
        return await self.rows("workers", "workers")

    async def payload(self, key: str) -> bytes:
        """The JSON of a large payload, by the key of its ``$blob`` reference; from the object store.

        Raises TaskRejected (``unknown_payload``) for a key of another tenant, too; Unavailable.
        """
        try:
            if not key.startswith(f"{self.tenant}/"):
                raise nats.js.errors.ObjectNotFoundError
            store = await self._nc.jetstream().object_store(PAYLOADS)
            content = io.BytesIO()  # without one, each chunk is joined to a copy of all before it
            await _while_it_grows(content, store.get(key, writeinto=content))
            return content.getvalue()
        except nats.js.errors.ObjectNotFoundError:
            raise TaskRejected("unknown_payload", f"tenant {self.tenant} has no payload {key!r}") from None
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise Unavailable(f"payload {key}: {error or type(error).__name__}") from error


async def _while_it_grows(content: io.BytesIO, reading: Coroutine[Any, Any, object]) -> None:
    """Wait for ``reading`` to fill ``content``: nats-py waits for ever for a chunk that is not there.

    Raises what it raises, and TimeoutError where nothing has come for ``STALLED_S``.
    """
    task, size = asyncio.ensure_future(reading), -1
    try:
        while not task.done():
            if size == (size := content.tell()):
                raise TimeoutError(f"{size} bytes have come, and nothing more for {STALLED_S:g} s")
            await asyncio.wait({task}, timeout=STALLED_S)
        task.result()
    finally:
        task.cancel()


def _moment(value: datetime | str) -> str:
    if isinstance(value, str):
        return value
    if value.tzinfo is None:
        raise ValueError(f"start_at {value} has no time zone: give it one, for example datetime.UTC")
    return value.isoformat(timespec="milliseconds")
