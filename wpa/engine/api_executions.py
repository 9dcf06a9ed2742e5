"""The verbs about one execution: start and rerun, status, history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from wpa.engine import forks
from wpa.engine.api_common import Body, Handler, execution_of, new_execution_of, text, whole
from wpa.engine.asks import find, find_latest
from wpa.engine.door import VERSION_HEADER, conflict
from wpa.engine.loading import Values, load, revive_to_show
from wpa.engine.opening import fetch_taken, takes_what_can_be_undone
from wpa.engine.pages import Page, fitting
from wpa.engine.services import Services
from wpa.engine.status import status_document
from wpa.errors import FlowMissing, OverLimit, PlatformError, TaskRejected
from wpa.kernel.execution import Diverged, Execution, Start
from wpa.kernel.program import Program
from wpa.model.codec import decode_task, start_hash
from wpa.model.events import Failure
from wpa.model.ids import check_workflow
from wpa.model.state import State
from wpa.model.tasks import START, Fork, StartPayload, Task, TaskMetadata
from wpa.model.times import rfc3339

__all__ = ["ExecutionVerbs", "execution_behind"]

HISTORY_MAX = 1_000
FLOW_MISSING: Final = "FlowMissing"
READ_AT_ONCE = 250
"""A page of large events has room for a few."""


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
        }

    # -- starting ----------------------------------------------------------------------------

    async def start(self, tenant: str, body: Body) -> Body:
        """Check a start at the door, and queue it. Accepted means stored: it will run, as it was checked."""
        data: bytes = body["raw"]
        task = decode_task(_with_type(data), tenant, self._services.limits)
        if not isinstance(task, Task):
            raise TaskRejected("bad_request", f"$.type is {task.type!r}; a start request needs none")
        return await self._accept(tenant, task)

    async def rerun(self, tenant: str, body: Body) -> Body:
        """Start a new execution with what an old one had settled before a step."""
        services = self._services
        state = (await find_latest(services, tenant, execution_of(body))).state
        step, execution = text(body, "from_step"), new_execution_of(body)
        if execution == state.execution:
            message = f"$.new_execution_id is that of the old execution, {execution}: it needs another"
            raise TaskRejected("bad_request", message)
        values = Values(services.payloads)
        await values.fetch(state.input)
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
        return {**await self._accept(tenant, task), "forked_from": state.execution}

    async def _accept(self, tenant: str, task: Task) -> Body:
        """Check a start, and queue it; or say that the same was started before.

        Of several under one id that are accepted before any has begun, one begins: see docs/protocol.md.
        Raises all that the driver would have to refuse later, when nobody is there to be told.
        """
        services = self._services
        # First: what has begun is no less so where the version deployed by now would not take it.
        if (known := await self._known(tenant, task)) is not None:
            return known
        program = await services.library.program(tenant, check_workflow(task.workflow_id), task.version)
        _check_input(program, task.payload.input_data)
        services.payloads.check_inline("$.payload.variables", task.payload.variables)
        services.payloads.check_inline("$.payload.execution_context", task.payload.execution_context)
        if task.fork is not None:
            await self._try_fork(tenant, program, task, task.fork)
        return await self._queue(tenant, task, program.version)

    async def _try_fork(self, tenant: str, program: Program, task: Task, fork: Fork) -> None:
        """Refuse a rerun that does not come to what it takes over."""
        services = self._services
        values = Values(services.payloads)
        taken = await fetch_taken(services, tenant, fork, values)
        start = Start(
            tenant=tenant,
            execution=task.execution_id,
            start_hash="",
            input=task.payload.input_data,
            variables=task.payload.variables,
            context=task.payload.execution_context,
            taken=taken,
        )
        try:
            execution, draft = Execution.start(
                program, start, services.clock.now_ms(), services.limits, values
            )
        except Diverged as error:
            raise TaskRejected(
                "does_not_fit",
                f"{fork.execution_id} can't be rerun like that: with this input the workflow does not come "
                f"to what is taken over. {error}",
            ) from None
        # All of it is told in one event, and the input apart where it is large.
        size, most = len(msgspec.json.encode(draft.data | {"input": None})), services.limits.answer_bytes_max
        if size > most:
            raise OverLimit(
                f"what is taken over from {fork.execution_id} has {size} bytes; the most is {most}: rerun it "
                "from an earlier step, or from its beginning"
            )
        if takes_what_can_be_undone(execution, taken):
            await forks.check_free(services, tenant, fork.execution_id, task.execution_id)

    async def _known(self, tenant: str, task: Task) -> Body | None:
        """The answer to a start that has begun. Raises TaskRejected where another has, under its id."""
        found = await load(self._services.ports, tenant, task.execution_id) if task.execution_id else None
        if found is None:
            return None
        if found.state.start_hash != start_hash(task):
            raise conflict(found.state)
        return {
            "execution_id": found.state.execution,
            "workflow_id": found.state.workflow,
            "version": found.state.version,
            "duplicate": True,
        }

    async def _queue(self, tenant: str, task: Task, version: str) -> Body:
        """Store a start that was checked against ``version``: it will run on that one."""
        services = self._services
        if not task.execution_id:
            task = msgspec.structs.replace(task, execution_id=self._new_id())
        if not task.created_at:
            task = msgspec.structs.replace(task, created_at=rfc3339(services.clock.now_ms()))
        headers = {} if task.version else {VERSION_HEADER: version}
        await services.ports.tasks.publish(tenant, msgspec.json.encode(task), headers)
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
        execution, trouble = await execution_behind(services, state)
        if trouble is not None and await self._goes_on_elsewhere(state, trouble):
            trouble = None
        most = services.limits.answer_bytes_max
        document = status_document(state, execution, services.clock.now_ms(), trouble, bytes_max=most)
        return {"execution": fitting(document, most)}

    async def _goes_on_elsewhere(self, state: State, trouble: Failure) -> bool:
        """Whether it is only this worker that lacks the code: who asks must not hear of a block that is none.

        Code that differs is told of all the same: whoever has just deployed it has to know at once, and the
        worker with the code of before may be listed, and be gone.
        """
        try:
            return trouble.type == FLOW_MISSING and await self._services.crew.has_flow(state.workflow)
        except PlatformError:
            return False  # nobody can say who is there: what is found here is told

    async def history(self, tenant: str, body: Body) -> Body:
        services = self._services
        execution = execution_of(body)
        after, limit = (
            whole(body, "after", 0, 0, 1 << 53),
            whole(body, "limit", HISTORY_MAX, 1, HISTORY_MAX),
        )
        position = whole(body, "position", 0, 0, 1 << 53)
        journal, page = services.ports.journal, Page(services.limits.answer_bytes_max, limit)
        stored = await journal.read(tenant, execution, position, READ_AT_ONCE)
        if not stored and not position:
            await find(services, tenant, execution)
        while True:
            for found, event in stored:
                # Without a position, what comes before `after` has to be read, too.
                if event.seq > after and not page.add(event):
                    return {"events": page.rows, "more": True, "next": position}
                position = found
            if len(stored) < READ_AT_ONCE:
                return {"events": page.rows, "more": False, "next": position}
            stored = await journal.read(tenant, execution, position, READ_AT_ONCE)


async def execution_behind(services: Services, state: State) -> tuple[Execution | None, Failure | None]:
    """The execution behind a state; or why its definition can't go on with it.

    Neither, where its code or its payloads would hold up this worker: then only its record is shown.
    """
    if state.error is not None and state.error.type == "FlowOverrun":
        return None, None  # its code, run once more, would hold up this worker as well
    if state.ends_workers:
        return None, None
    try:
        program = await services.library.program(state.tenant, state.workflow, state.version)
        return await revive_to_show(program, state, services.limits, services.payloads), None
    except Diverged as error:
        return None, Failure(type="NonDeterminism", message=str(error))
    except FlowMissing as error:
        return None, Failure(type=FLOW_MISSING, message=str(error))
    except TaskRejected as error:
        return None, Failure(type=error.code, message=error.message)


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
