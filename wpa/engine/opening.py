"""What a start comes to: a new execution, and its first event, which is not in the journal yet."""

from __future__ import annotations

from typing import NamedTuple

from wpa.engine import forks
from wpa.engine.asks import find_latest
from wpa.engine.commit import commit
from wpa.engine.door import Request
from wpa.engine.loading import Values
from wpa.engine.services import Services
from wpa.errors import OverLimit, TaskRejected, TooLarge
from wpa.kernel.draft import Draft
from wpa.kernel.execution import Diverged, Execution, Start
from wpa.kernel.fork import taken_over
from wpa.kernel.program import Program
from wpa.kernel.telling import Taken
from wpa.model.events import Event
from wpa.model.tasks import Fork, Task
from wpa.model.times import parse_ms, rfc3339

__all__ = ["Opened", "append_first", "fetch_taken", "open_new", "takes_what_can_be_undone"]


class Opened(NamedTuple):
    """A new execution. Nobody else knows of it before ``event`` is appended, after position 0."""

    execution: Execution
    event: Event
    values: Values


async def append_first(services: Services, event: Event) -> int:
    """Append an execution's first event; its position. Raises Lost, and OverLimit where it is too large."""
    try:
        return await commit(services.ports.journal, event, 0)
    except TooLarge as error:
        raise OverLimit(f"the execution can't be started: {error}") from None


async def open_new(services: Services, request: Request, task: Task, epoch: int) -> Opened:
    """The execution that ``task``, which is the request's, asks for. Payloads are stored, nothing else is.

    Raises TaskRejected for what can't be started, NotFound for a workflow that is not there, StepsMissing
    where another worker has to start it, and PlatformError where it has to be tried again.
    """
    # Nearly always, all of this is at hand: coroutines that wait for nothing would be the half of its cost.
    program = services.library.at_hand(request.tenant, request.workflow, request.version)
    if program is None:
        program = await services.library.program(request.tenant, request.workflow, request.version)
    problems = program.check_input(task.payload.input_data)
    if problems:
        raise TaskRejected(
            "invalid_input",
            f"the input does not fit the input schema of {program.id} {program.version}: {problems[0]}",
            problems,
        )
    if not services.crew.is_able(program):
        await services.crew.check(program)
    services.payloads.check_inline("$.payload.variables", task.payload.variables)
    services.payloads.check_inline("$.payload.execution_context", task.payload.execution_context)
    stored = services.payloads.inline(task.payload.input_data)
    if stored is None:
        stored = await services.payloads.store(request.tenant, request.execution, task.payload.input_data)
    values = Values(services.payloads)
    taken = Taken() if task.fork is None else await fetch_taken(services, request.tenant, task.fork, values)
    now = services.clock.now_ms()
    start = Start(
        tenant=request.tenant,
        execution=request.execution,
        start_hash=request.start_hash,
        input=task.payload.input_data,
        stored_input=stored,
        variables=task.payload.variables,
        metadata=request.metadata,
        context=task.payload.execution_context,
        lease=request.lease.identity,
        seed="" if program.pinned else services.new_seed(request.execution),
        start_at_ms=parse_ms(task.start_at) if task.start_at else 0,
        parent=task.parent,
        forked_from=task.fork.execution_id if task.fork else "",
        taken=taken,
    )
    try:
        execution, draft = Execution.start(program, start, now, services.limits, values)
    except Diverged as error:
        raise TaskRejected("does_not_fit", f"{request.execution} can't be a rerun: {error}") from None
    if task.fork is not None and takes_what_can_be_undone(execution, taken):
        await forks.take(services, request.tenant, task.fork.execution_id, request.execution)
    return Opened(execution, _first_event(services, request, program, draft, epoch), values)


async def fetch_taken(services: Services, tenant: str, fork: Fork, values: Values) -> Taken:
    """What a rerun takes over from the execution that it is a rerun of, with its large payloads.

    Raises NotFound where there is none, and TaskRejected where it can't be taken over.
    """
    # Whether it has ended, and what it has undone, only its last events tell.
    taken = taken_over((await find_latest(services, tenant, fork.execution_id)).state, fork.step)
    for slot in taken.settled:
        await values.fetch(slot.output)
    return taken


def takes_what_can_be_undone(execution: Execution, taken: Taken) -> bool:
    """Whether a rerun may come to undo some of what it takes over."""
    run = execution.run_view()
    return any(slot.status == "completed" and run.undo(slot.id) is not None for slot in taken.settled)


def _first_event(services: Services, request: Request, program: Program, draft: Draft, epoch: int) -> Event:
    return Event(
        id=services.next_id(),
        seq=1,
        event=draft.event,
        tenant_id=request.tenant,
        workflow_id=program.id,
        execution_id=request.execution,
        timestamp=rfc3339(draft.at_ms),
        task_id=request.task.task_id,
        global_task_id=request.task.global_task_id,
        worker=services.worker,
        epoch=epoch,
        traceparent=request.traceparent,
        data=draft.data,
    )
