"""The verbs about executions: start and rerun, status, history, list, approvals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, get_args

import msgspec

from wpa.engine.api_common import Body, Handler, execution_of, new_execution_of, text, whole
from wpa.engine.asks import find
from wpa.engine.loading import Values, load, revive_to_show
from wpa.engine.services import Services
from wpa.engine.status import open_approvals, status_document
from wpa.errors import FlowMissing, TaskRejected
from wpa.kernel.execution import Diverged, Execution, Start
from wpa.kernel.fold import LEGAL
from wpa.kernel.fork import settled_before
from wpa.kernel.program import Program
from wpa.kernel.waits import WAITING_FOR_SHOWN
from wpa.model import events as ev
from wpa.model.codec import decode_task, encode_event, start_hash
from wpa.model.events import TERMINAL, Event, Failure
from wpa.model.ids import check_workflow
from wpa.model.state import State, Status
from wpa.model.tasks import START, Fork, StartPayload, Task, TaskMetadata
from wpa.model.times import rfc3339

__all__ = ["ExecutionVerbs"]

HISTORY_MAX = 1_000
ANSWER_BYTES_MAX = 1024 * 1024
LIST_MAX = 1_000
LOADS_AT_ONCE = 32
STATUSES: Final = get_args(Status)

_AFTER: Final[dict[str, set[str]]] = {
    name: {status for (_, event), status in LEGAL.items() if event == name} for _, name in LEGAL
}
"""The statuses that an event may lead to: nearly always one."""


class ExecutionVerbs:
    """Starts executions, and shows them."""

    def __init__(self, services: Services, new_id: Callable[[], str]) -> None:
        self._services = services
        self._new_id = new_id

    def verbs(self) -> dict[str, Handler]:
        """What it answers, by verb."""
        return {
            "start": self.start,
            "rerun": self.rerun,
            "status": self.status,
            "history": self.history,
            "list": self.list_executions,
            "approvals": self.approvals,
        }

    # -- starting ----------------------------------------------------------------------------

    async def start(self, tenant: str, body: Body) -> Body:
        """Check a start at the door, and queue it. Accepted means stored: it will run."""
        data: bytes = body["raw"]
        task = decode_task(_with_type(data), tenant, self._services.limits)
        if not isinstance(task, Task):
            raise TaskRejected("bad_request", f"$.type is {task.type!r}; a start request needs none")
        program = await self._services.library.program(tenant, check_workflow(task.workflow_id), task.version)
        _check_input(program, task.payload.input_data)
        return await self._queue(tenant, task, program.version)

    async def rerun(self, tenant: str, body: Body) -> Body:
        """Start a new execution with what an old one had settled before a step."""
        services = self._services
        state = (await find(services, tenant, execution_of(body))).state
        step, execution = text(body, "from_step"), new_execution_of(body)
        if execution == state.execution:
            message = f"$.new_execution_id is that of the old execution, {execution}: it needs another"
            raise TaskRejected("bad_request", message)
        values = Values(services.payloads)
        await values.fetch(state.input)
        program = await services.library.program(tenant, state.workflow, state.version)
        task = Task(
            type=START,
            workflow_id=state.workflow,
            version=state.version,
            execution_id=execution or self._new_id(),
            metadata=_metadata(body.get("metadata")),
            fork=Fork(execution_id=state.execution, step=step),
            payload=StartPayload(
                input_data=body["input"] if "input" in body else values(state.input),
                variables=state.variables,
                execution_context=state.context,
            ),
        )
        try:
            decode_task(msgspec.json.encode(task), tenant, services.limits)
        except TaskRejected as error:
            message = error.message.replace("$.payload.input_data", "$.input", 1)
            raise TaskRejected(error.code, message) from None
        _check_input(program, task.payload.input_data)
        await self._try_fork(program, task, state, values)
        return {**await self._queue(tenant, task, program.version), "forked_from": state.execution}

    async def _try_fork(self, program: Program, task: Task, state: State, values: Values) -> None:
        """Refuse now what the driver would have to refuse later, when nobody is there to be told."""
        services = self._services
        settled = settled_before(state, task.fork.step if task.fork else "")
        for slot in settled:
            await values.fetch(slot.output)
        start = Start(
            tenant=state.tenant,
            execution=task.execution_id,
            start_hash="",
            input=task.payload.input_data,
            variables=task.payload.variables,
            context=task.payload.execution_context,
            settled=settled,
        )
        try:
            Execution.start(program, start, services.clock.now_ms(), services.limits, values)
        except Diverged as error:
            raise TaskRejected(
                "does_not_fit",
                f"{state.execution} can't be rerun like that: with this input the workflow does not come "
                f"to what is taken over. {error}",
            ) from None

    async def _queue(self, tenant: str, task: Task, version: str) -> Body:
        """Store a start that was checked; or say that the same was started before."""
        services = self._services
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
        return {
            "execution_id": task.execution_id,
            "workflow_id": task.workflow_id,
            "version": version,
            "duplicate": False,
        }

    # -- showing -----------------------------------------------------------------------------

    async def status(self, tenant: str, body: Body) -> Body:
        services = self._services
        state = (await find(services, tenant, execution_of(body))).state
        execution, trouble = await self._revive(state)
        return {"execution": status_document(state, execution, services.clock.now_ms(), trouble)}

    async def _revive(self, state: State) -> tuple[Execution | None, Failure | None]:
        """The execution behind a state; or why its definition can't go on with it.

        Neither, where its code or its payloads would hold up this worker: then only its record is shown.
        """
        services = self._services
        if state.error is not None and state.error.type == "FlowOverrun":
            return None, None  # its code, run once more, would hold up this worker as well
        try:
            program = await services.library.program(state.tenant, state.workflow, state.version)
            return await revive_to_show(program, state, services.limits, services.payloads), None
        except Diverged as error:
            return None, Failure(type="NonDeterminism", message=str(error))
        except FlowMissing as error:
            return None, Failure(type="FlowMissing", message=str(error))
        except TaskRejected as error:
            return None, Failure(type=error.code, message=error.message)

    async def history(self, tenant: str, body: Body) -> Body:
        services = self._services
        execution = execution_of(body)
        after, limit = (
            whole(body, "after", 0, 0, 1 << 53),
            whole(body, "limit", HISTORY_MAX, 1, HISTORY_MAX),
        )
        position = whole(body, "position", 0, 0, 1 << 53)
        # Without a position, what comes before `after` has to be read, too.
        most = limit + 1 + (0 if position else after)
        stored = await services.ports.journal.read(tenant, execution, position, most)
        if not stored and not position:
            await find(services, tenant, execution)
        events: list[Event] = []
        size = 0
        for found, event in stored:
            if event.seq > after:
                size += len(encode_event(event))
                if events and (len(events) >= limit or size > ANSWER_BYTES_MAX):
                    return {"events": events, "more": True, "next": position}
                events.append(event)
            position = found
        return {"events": events, "more": False, "next": position}

    async def list_executions(self, tenant: str, body: Body) -> Body:
        limit = whole(body, "limit", 20, 1, LIST_MAX)
        status, workflow = text(body, "status").upper(), text(body, "workflow_id")
        if status and status not in STATUSES:
            raise TaskRejected(
                "bad_request", f"$.status must be one of {', '.join(STATUSES)}, not {status!r}"
            )
        # With a filter, look at more than is asked for; the filter then picks from them.
        wanted = LIST_MAX if status or workflow else limit
        recent = [
            event
            for event in await self._services.ports.journal.recent(tenant, wanted)
            if workflow in ("", event.workflow_id) and (not status or status in _may_be(event))
        ]
        statuses = await self._gather(recent, self._status_after)
        rows = [_row(event, now) for event, now in zip(recent, statuses, strict=True)]
        return {"executions": [row for row in rows if status in ("", row["status"])][:limit]}

    async def _status_after(self, event: Event) -> str:
        """The status that an execution's last event has led to."""
        possible = _may_be(event)
        if len(possible) == 1:
            return next(iter(possible))
        loaded = await load(self._services.ports, event.tenant_id, event.execution_id)
        return loaded.state.status if loaded is not None else "RUNNING"

    async def _gather(self, events: list[Event], look: Callable[[Event], Any]) -> list[Any]:
        """``look`` at each, some at a time."""
        room = asyncio.Semaphore(LOADS_AT_ONCE)

        async def one(event: Event) -> Any:
            async with room:
                return await look(event)

        return await asyncio.gather(*(one(event) for event in events))

    # -- approvals ---------------------------------------------------------------------------

    async def approvals(self, tenant: str, body: Body) -> Body:
        """What waits for somebody, in the most recently active executions; the oldest first."""
        limit = whole(body, "limit", 100, 1, LIST_MAX)
        recent = await self._services.ports.journal.recent(tenant, LIST_MAX)
        found = await self._gather([event for event in recent if _may_ask(event)], self._open_approvals)
        rows = [row for of_one in found for row in of_one]
        return {"approvals": sorted(rows, key=lambda row: str(row["since"]))[:limit]}

    async def _open_approvals(self, event: Event) -> list[Body]:
        loaded = await load(self._services.ports, event.tenant_id, event.execution_id)
        if loaded is None:
            return []
        state = loaded.state
        if not any(state.slots[slot_id].kind == "approval" for slot_id in state.open):
            return []
        execution, _ = await self._revive(state)
        about = {
            "execution_id": state.execution,
            "workflow_id": state.workflow,
            "status": state.status,
        }
        return [{**about, **shown} for shown in open_approvals(state, execution)]


def _may_be(event: Event) -> set[str]:
    if event.event == ev.WAITING:
        return {event.data.get("status", "WAITING")}
    return _AFTER[event.event]


def _may_ask(event: Event) -> bool:
    """Whether an approval may be open after an execution's last event."""
    if event.event in TERMINAL:
        return False
    if event.event != ev.WAITING:
        return True
    shown: list[Body] = event.data.get("waiting_for", [])
    # Not all are shown where there are many.
    return len(shown) >= WAITING_FOR_SHOWN or any(slot["kind"] == "approval" for slot in shown)


def _row(event: Event, status: str) -> Body:
    row: Body = {
        "execution_id": event.execution_id,
        "workflow_id": event.workflow_id,
        "status": status,
        "last_event": event.event,
        "timestamp": event.timestamp,
        "events": event.seq,
    }
    if event.event == ev.WAITING:
        row |= {name: event.data[name] for name in ("waiting_for", "until", "blocked") if name in event.data}
    return row


def _check_input(program: Program, data: Any) -> None:
    problems = program.check_input(data)
    if problems:
        raise TaskRejected(
            "invalid_input", f"the input does not fit the input schema: {problems[0]}", problems
        )


def _metadata(given: Any) -> TaskMetadata:
    try:
        return msgspec.convert(given or {}, TaskMetadata)
    except msgspec.ValidationError as error:
        raise TaskRejected("bad_request", f"$.metadata: {error}") from None


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
