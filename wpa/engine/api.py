"""The verbs of ``workflow.api.<tenant>.<verb>``: JSON in, JSON out, whatever carries it.

Every answer has ``ok``. An error is an answer, too: ``{"ok": false, "error": {"code", "message",
"problems"}}``. Reading verbs change nothing; ``start``, ``deploy`` and ``dlq_retry`` may be repeated.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from wpa import plan
from wpa.engine.loading import Loaded, load, revive
from wpa.engine.services import Services
from wpa.engine.status import status_document
from wpa.errors import DefinitionError, NotFound, PlatformError, TaskRejected
from wpa.model import events as ev
from wpa.model.codec import decode_task, encode_event, start_hash
from wpa.model.events import Event
from wpa.model.ids import check_execution, check_tenant, check_version, check_workflow
from wpa.model.steptype import StepSignature
from wpa.model.tasks import START, Task
from wpa.model.times import rfc3339
from wpa.ports.definitions import StoredDefinition

__all__ = ["Api"]

log = logging.getLogger("wpa.api")

Body = dict[str, Any]
HISTORY_MAX = 1_000
ANSWER_BYTES_MAX = 1024 * 1024
LETTER_TEXT_MAX = 64 * 1024
LETTER_BYTES_MAX = 5 * 1024 * 1024
LIST_MAX = 1_000

STATUS_AFTER = {
    ev.COMPLETED: "COMPLETED",
    ev.FAILED: "FAILED",
    ev.ROLLED_BACK: "ROLLED_BACK",
    ev.COMPENSATING: "COMPENSATING",
    ev.STEP_COMPENSATED: "COMPENSATING",
}


class Api:
    """Answers requests. Stateless: any worker may answer any of them."""

    def __init__(
        self, services: Services, signatures: Mapping[str, StepSignature], new_id: Callable[[], str]
    ) -> None:
        self._services = services
        self._signatures = signatures
        self._new_id = new_id
        self._verbs: dict[str, Callable[[str, Body], Awaitable[Body]]] = {
            "start": self.start,
            "status": self.status,
            "history": self.history,
            "list": self.list_executions,
            "deploy": self.deploy,
            "validate": self.validate,
            "definitions": self.definitions,
            "definition": self.definition,
            "dlq_list": self.dlq_list,
            "dlq_show": self.dlq_show,
            "dlq_retry": self.dlq_retry,
        }

    @property
    def verbs(self) -> list[str]:
        return list(self._verbs)

    async def handle(self, tenant: str, verb: str, data: bytes) -> bytes:
        """Answer one request. Never raises."""
        try:
            check_tenant(tenant)
            body = await self._verbs[verb](tenant, self._decode(verb, tenant, data))
            return msgspec.json.encode({"ok": True, **body})
        except DefinitionError as error:
            rejected = TaskRejected("invalid_definition", str(error.problems[0]), error.problems)
            return _refuse(rejected.as_dict())
        except TaskRejected as error:
            return _refuse(error.as_dict())
        except PlatformError as error:
            return _refuse({"code": "unavailable", "message": f"{error}; try again"})
        except Exception as error:
            log.exception("workflow.api.%s.%s", tenant, verb)
            message = f"an error of the engine's own ({type(error).__name__}); the worker's log has it"
            return _refuse({"code": "internal", "message": message})

    def _decode(self, verb: str, tenant: str, data: bytes) -> Body:
        if verb == "start":
            return {"raw": data}
        limit = self._services.limits.task_bytes_max
        if len(data) > limit:
            raise TaskRejected("over_limit", f"a request of {len(data)} bytes; the most is {limit}")
        try:
            body = msgspec.json.decode(data or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TaskRejected("not_json", f"the request is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise TaskRejected("bad_request", "the request must be a JSON object")
        return body

    # -- executions --------------------------------------------------------------------------

    async def start(self, tenant: str, body: Body) -> Body:
        """Check a start at the door, and queue it. Accepted means stored: it will run."""
        services = self._services
        data: bytes = body["raw"]
        task = decode_task(_with_type(data), tenant, services.limits)
        if not isinstance(task, Task):
            raise TaskRejected("bad_request", f"$.type is {task.type!r}; a start request needs none")
        workflow = check_workflow(task.workflow_id)
        program = await services.library.program(tenant, workflow, task.version)
        problems = program.check_input(task.payload.input_data)
        if problems:
            raise TaskRejected(
                "invalid_input", f"the input does not fit the input schema: {problems[0]}", problems
            )
        answer = {"workflow_id": workflow, "version": program.version}
        if task.execution_id:
            found = await load(services.ports, tenant, task.execution_id)
            if found is not None:
                if found.state.start_hash != start_hash(task):
                    raise TaskRejected(
                        "conflict",
                        f"execution {task.execution_id} exists already, started with other content",
                    )
                return {
                    "execution_id": found.state.execution,
                    "workflow_id": found.state.workflow,
                    "version": found.state.version,
                    "duplicate": True,
                }
        else:
            task = msgspec.structs.replace(task, execution_id=self._new_id())
        if not task.created_at:
            task = msgspec.structs.replace(task, created_at=rfc3339(services.clock.now_ms()))
        await services.ports.tasks.publish(tenant, msgspec.json.encode(task), {})
        return {"execution_id": task.execution_id, **answer, "duplicate": False}

    async def _load(self, tenant: str, body: Body) -> Loaded:
        execution = check_execution(body.get("execution_id"))
        loaded = await load(self._services.ports, tenant, execution)
        if loaded is None:
            raise NotFound(
                "unknown_execution",
                f"tenant {tenant} has no execution {execution}; a start that is still queued, or that was "
                "rejected, has none yet: see `wpa dlq list`",
            )
        return loaded

    async def status(self, tenant: str, body: Body) -> Body:
        services = self._services
        state = (await self._load(tenant, body)).state
        program = await services.library.program(tenant, state.workflow, state.version)
        execution, _ = await revive(program, state, services.limits, services.payloads)
        return {"execution": status_document(execution, services.clock.now_ms())}

    async def history(self, tenant: str, body: Body) -> Body:
        execution = check_execution(body.get("execution_id"))
        after, limit = (
            _whole(body, "after", 0, 0, 1 << 53),
            _whole(body, "limit", HISTORY_MAX, 1, HISTORY_MAX),
        )
        stored = await self._services.ports.journal.read(tenant, execution)
        if not stored:
            await self._load(tenant, body)
        events: list[Event] = []
        size = 0
        for _, event in stored:
            if event.seq > after:
                size += len(encode_event(event))
                if events and (len(events) >= limit or size > ANSWER_BYTES_MAX):
                    return {"events": events, "more": True}
                events.append(event)
        return {"events": events, "more": False}

    async def list_executions(self, tenant: str, body: Body) -> Body:
        limit = _whole(body, "limit", 20, 1, LIST_MAX)
        status, workflow = body.get("status") or "", body.get("workflow_id") or ""
        # With a filter, look at more than is asked for; the filter then picks from them.
        wanted = LIST_MAX if status or workflow else limit
        rows = []
        for event in await self._services.ports.journal.recent(tenant, wanted):
            row = {
                "execution_id": event.execution_id,
                "workflow_id": event.workflow_id,
                "status": STATUS_AFTER.get(event.event, "RUNNING"),
                "last_event": event.event,
                "timestamp": event.timestamp,
                "events": event.seq,
            }
            if (not status or row["status"] == status.upper()) and workflow in ("", event.workflow_id):
                rows.append(row)
        return {"executions": rows[:limit]}

    # -- definitions -------------------------------------------------------------------------

    async def deploy(self, tenant: str, body: Body) -> Body:
        document = body.get("document")
        problems = plan.check(document, self._signatures)
        if problems or not isinstance(document, dict):
            raise DefinitionError(problems)
        workflow, version = str(document["id"]), str(document["version"])
        digest = plan.content_hash(document)
        stored = StoredDefinition(
            workflow=workflow,
            version=version,
            hash=digest,
            kind="plan",
            document=msgspec.Raw(msgspec.json.encode(document)),
            deployed_at=rfc3339(self._services.clock.now_ms()),
            deployed_by=str(body.get("deployed_by") or ""),
        )
        created = await self._services.ports.definitions.put(tenant, stored)
        if not created:
            found = await self._services.ports.definitions.get(tenant, workflow, version)
            if found is not None and found.hash != digest:
                raise TaskRejected(
                    "version_conflict",
                    f"{workflow} {version} is deployed already with other content; versions are immutable: "
                    "give the changed document a new version",
                )
        return {"workflow_id": workflow, "version": version, "hash": digest, "created": created}

    async def validate(self, tenant: str, body: Body) -> Body:
        problems = plan.check(body.get("document"), self._signatures)
        return {"problems": [problem.as_dict() for problem in problems]}

    async def definitions(self, tenant: str, body: Body) -> Body:
        store = self._services.ports.definitions
        rows = []
        latest: dict[str, str | None] = {}
        for found in await store.list(tenant):
            if found.workflow not in latest:
                latest[found.workflow] = await store.latest(tenant, found.workflow)
            rows.append(
                {
                    "workflow_id": found.workflow,
                    "version": found.version,
                    "hash": found.hash,
                    "deployed_at": found.deployed_at,
                    "deployed_by": found.deployed_by,
                    "latest": latest[found.workflow] == found.version,
                }
            )
        return {"definitions": sorted(rows, key=lambda row: (row["workflow_id"], row["deployed_at"]))}

    async def definition(self, tenant: str, body: Body) -> Body:
        workflow = check_workflow(body.get("workflow_id"))
        version = body.get("version") or ""
        program = await self._services.library.program(
            tenant, workflow, check_version(version) if version else ""
        )
        found = await self._services.ports.definitions.get(tenant, workflow, program.version)
        if found is None:
            raise NotFound("unknown_version", f"workflow {workflow} has no version {program.version!r}")
        return {
            "workflow_id": workflow,
            "version": found.version,
            "hash": found.hash,
            "document": found.document,
        }

    # -- dead letters ------------------------------------------------------------------------

    async def dlq_list(self, tenant: str, body: Body) -> Body:
        letters = await self._services.ports.tasks.buried(tenant, _whole(body, "limit", 50, 1, 1_000))
        return {"letters": [_letter(sequence, data, headers) for sequence, data, headers in letters]}

    async def dlq_show(self, tenant: str, body: Body) -> Body:
        sequence, data, headers = await self._exhume(tenant, body)
        letter = _letter(sequence, data, headers)
        letter["headers"] = headers
        letter["text"] = data[:LETTER_TEXT_MAX].decode(errors="replace")
        # A larger one could not be answered with; it is kept all the same, and can be retried.
        letter["base64"] = base64.b64encode(data).decode() if len(data) <= LETTER_BYTES_MAX else None
        return {"letter": letter}

    async def dlq_retry(self, tenant: str, body: Body) -> Body:
        """Queue the original bytes again, then remove the letter. At least once, if it is repeated."""
        sequence, data, headers = await self._exhume(tenant, body)
        kept = {name: value for name, value in headers.items() if not name.startswith("Wpa-")}
        task_sequence = await self._services.ports.tasks.publish(tenant, data, kept)
        await self._services.ports.tasks.discard(tenant, sequence)
        return {"task_sequence": task_sequence}

    async def _exhume(self, tenant: str, body: Body) -> tuple[int, bytes, dict[str, str]]:
        sequence = _whole(body, "sequence", 0, 1, 1 << 53)
        found = await self._services.ports.tasks.exhume(tenant, sequence)
        if found is None:
            raise NotFound(
                "unknown_letter", f"tenant {tenant} has no dead letter {sequence}; see `wpa dlq list`"
            )
        return sequence, *found


def _refuse(error: Body) -> bytes:
    return msgspec.json.encode({"ok": False, "error": error})


def _whole(body: Body, name: str, default: int, least: int, most: int) -> int:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise TaskRejected("bad_request", f"$.{name} must be a whole number from {least} to {most}")
    return value


def _with_type(data: bytes) -> bytes:
    """A start request may leave the task's type out. What is no JSON object is left to the door."""
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data
    return (
        msgspec.json.encode({**body, "type": START})
        if isinstance(body, dict) and "type" not in body
        else data
    )


def _letter(sequence: int, data: bytes, headers: dict[str, str]) -> Body:
    letter: Body = {
        "sequence": sequence,
        "code": headers.get("Wpa-Code", ""),
        "message": headers.get("Wpa-Reason", ""),
        "timestamp": headers.get("Wpa-Rejected-At", ""),
        "subject": headers.get("Wpa-Subject", ""),
        "size": len(data),
    }
    if "Wpa-Problems" in headers:
        letter["problems"] = json.loads(headers["Wpa-Problems"])
    return letter
