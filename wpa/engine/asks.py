"""What is asked of an execution that exists: from a task to the draft that records it.

The state is loaded, the draft decided and appended by compare-and-set; whoever loses decides again on what
is there now. Where the execution has a driver, that is all, and the driver is told that there is news.
Where it is at rest and has to go on, whoever appended becomes its driver.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from wpa.engine import forks
from wpa.engine.commit import commit
from wpa.engine.loading import Loaded, load, load_latest, revive
from wpa.engine.payloads import reference
from wpa.engine.services import Services
from wpa.errors import Conflict, NotFound, OverLimit, TaskRejected, TooLarge
from wpa.kernel import requests, waits
from wpa.kernel.draft import Draft, seal
from wpa.kernel.execution import Diverged
from wpa.kernel.mail import CHILD_FAILED
from wpa.kernel.oversize import fewer_names
from wpa.kernel.program import Approval, Want
from wpa.model.events import Event
from wpa.model.ids import idempotency_key
from wpa.model.recordable import safe_failure
from wpa.model.state import Parent, Signal, Slot, State, decode_state, encode_state, is_terminal
from wpa.model.tasks import (
    ASKS,
    PAUSE,
    RESUME,
    RETRY,
    TERMINATE,
    AnswerTask,
    CancelPayload,
    CancelTask,
    ChildEndedPayload,
    ChildEndedTask,
    Envelope,
    MigrateTask,
    ReasonTask,
    SignalTask,
    StepResultPayload,
    StepResultTask,
    TimerDue,
)
from wpa.model.times import parse_ms, rfc3339
from wpa.plan.suggest import suggest

__all__ = [
    "append",
    "author",
    "decide",
    "find",
    "find_latest",
    "interrupts",
    "rests_until",
    "unknown_execution",
]

ID_KINDS: Final = frozenset({"answer", "child", "result", "signal", *ASKS})
"""What an id begins with, up to a colon, where it is not its sender who chose it all."""
AT_A_TIME: Final = 64
"""So many children are looked at side by side."""
ENDING: Final = ("COMPENSATING", "COMPLETED", "FAILED", "ROLLED_BACK", "CANCELLED")


async def find(services: Services, tenant: str, execution: str) -> Loaded:
    """The execution that a task names. Raises NotFound (``unknown_execution``)."""
    loaded = await load(services.ports, tenant, execution)
    if loaded is None:
        raise unknown_execution(tenant, execution)
    return loaded


async def find_latest(services: Services, tenant: str, execution: str) -> Loaded:
    """As :func:`find`, with all that was stored when it was asked: for who is told what can't be done.

    Raises Unavailable, too, where the replicas lag too far behind.
    """
    loaded = await load_latest(services.ports, services.clock, tenant, execution)
    if loaded is None:
        raise unknown_execution(tenant, execution)
    return loaded


def unknown_execution(tenant: str, execution: str) -> NotFound:
    """What is said where there is no such execution."""
    return NotFound(
        "unknown_execution",
        f"tenant {tenant} has no execution {execution}; a start that is still queued, or that was "
        "rejected, has none yet: see `wpa dlq list`",
    )


def author(task: Envelope) -> dict[str, Any]:
    """Who asks, as it is recorded."""
    return {key: value for key, value in msgspec.structs.asdict(task.metadata).items() if value}


def interrupts(task: Envelope) -> bool:
    """Whether the driver has to look at it at once, in the middle of a step."""
    return isinstance(task, CancelTask) or (isinstance(task, ReasonTask) and task.type == TERMINATE)


def rests_until(state: State, alarm: TimerDue) -> bool:
    """Whether an execution is in the very rest that an alarm is to end, be it time for that or not."""
    return state.at_rest and bool(state.wake_at) and alarm.ends(state.rest_epoch)


async def decide(
    services: Services, state: State, task: Envelope, identity: str, name: str = ""
) -> Draft | None:
    """The draft that records what ``task`` asks; None where there is nothing (more) to record.

    Args:
        services: for the definition, payloads and the clock.
        state: the execution as it is now; it isn't changed.
        task: what is asked.
        identity: names this very message over its redeliveries; the lease of whoever drives on.
        name: names what is asked where the task doesn't, over messages; ``identity`` by default.

    Raises TaskRejected with the reason where it can't be done; never for a task that is recorded already.
    """
    name = task.task_id or name or identity
    asked = f"{task.type}:{name}"
    if asked in state.signal_ids:
        return None
    draft = await _draft(services, state, task, identity, name)
    if draft is not None and isinstance(task, AnswerTask | CancelTask | MigrateTask | ReasonTask):
        draft.data["ask"] = asked  # signals and results have ids of their own
    return draft


async def _draft(services: Services, state: State, task: Envelope, identity: str, name: str) -> Draft | None:
    now = services.clock.now_ms()
    by = author(task)
    if isinstance(task, TimerDue):
        due = rests_until(state, task) and state.status in ("WAITING", "COMPENSATING")
        return requests.woken(state, now, identity) if due and parse_ms(state.wake_at) <= now else None
    if isinstance(task, SignalTask):
        return requests.signalled(state, await _signal(services, state, task, name), now, identity)
    if isinstance(task, AnswerTask):
        answer = await _answer(services, state, task)
        return None if answer is None else requests.signalled(state, answer, now, identity)
    if isinstance(task, ChildEndedTask | StepResultTask):
        result = await _result(services, state, task)
        return None if result is None else requests.signalled(state, result, now, identity)
    if isinstance(task, CancelTask):
        return _cancelled(state, task.payload, by, now, identity)
    if isinstance(task, MigrateTask):
        return await _migrated(services, state, task, identity)
    if isinstance(task, ReasonTask):
        reason = task.payload.reason
        if task.type == PAUSE:
            return requests.paused(state, by, reason, now)
        if task.type == RESUME:
            return requests.resumed(state, by, reason, now, identity)
        if task.type == TERMINATE:
            return requests.terminated(state, by, reason, now)
        if task.type == RETRY:
            return await _retried(services, state, by, identity)
    raise TaskRejected("unknown_type", f"$.type is {task.type!r}, which asks nothing of an execution")


async def append(services: Services, draft: Draft, state: State, epoch: int) -> tuple[Event, int]:
    """Append what was asked; the event, and its position.

    Raises Lost, and OverLimit for what has more bytes than the server takes.
    """
    while True:
        event = seal(draft, state, id=services.next_id(), worker=services.worker, epoch=epoch)
        try:
            return event, await commit(services.ports.journal, event, state.position)
        except TooLarge as error:
            shorter = fewer_names(draft)
            if shorter is None:
                raise OverLimit(f"what is asked can't be recorded: {error}") from None
            draft = shorter


# -- signals ---------------------------------------------------------------------------------


async def _signal(services: Services, state: State, task: SignalTask, name: str) -> Signal:
    payload = task.payload
    if not is_terminal(state.status):
        program = await services.library.program(state.tenant, state.workflow, state.version)
        problems = program.check_signal(payload.signal, payload.payload)
        if problems:
            raise TaskRejected("bad_signal", str(problems[0]), problems)
    stored = await services.payloads.store(state.tenant, state.execution, payload.payload)
    return Signal(id=_signal_id(payload.id or name), name=payload.signal, payload=stored, by=author(task))


def _signal_id(given: str) -> str:
    """As its sender chose it, unless that could be the id of anything else that is told, or asked."""
    kind, colon, _ = given.partition(":")
    return f"signal:{given}" if colon and kind.partition("#")[0] in ID_KINDS else given


async def _answer(services: Services, state: State, task: AnswerTask) -> Signal | None:
    """An answer to an approval that is open now, by somebody who may give one; None: it was given before."""
    if state.ends_workers:  # who may answer, only a look at its code tells
        message = f"execution {state.execution} is blocked, and takes no answers: see `wpa status`"
        raise TaskRejected("blocked", message)
    step, by = task.payload.step, author(task)
    who = by.get("user_id") or task.task_id or "anonymous"
    is_open = [state.slots[slot_id] for slot_id in state.open if state.slots[slot_id].kind == "approval"]
    slot = next((slot for slot in is_open if step in (slot.id, slot.step)), None)
    if slot is None:
        asked = [each.id for each in state.slots.values() if step in (each.id, each.step)]
        if any(_answer_id(state, slot_id, who) in state.signal_ids for slot_id in asked):
            return None
        names = [waiting.id for waiting in is_open]
        shown = f"open are: {', '.join(names)}" if names else "none is open"
        hint = suggest(step, names)
        message = f"execution {state.execution} waits for no approval at {step!r}; {shown}"
        raise TaskRejected("not_waiting", f"{message}; {hint}" if hint else message)
    if _answer_id(state, slot.id, who) in state.signal_ids:
        return None
    if slot.until and parse_ms(slot.until) <= services.clock.now_ms():
        message = (
            f"execution {state.execution} waits at {slot.id!r} no more: its time was over at {slot.until}"
        )
        raise TaskRejected("not_waiting", message)
    approval = await _approval(services, state, slot)
    if approval is None:
        message = f"{state.workflow} {state.version} does not say who may answer {slot.id}: nobody may"
        raise TaskRejected("not_allowed", message)
    if approval.count > 1 and not by.get("user_id"):
        message = f"{approval.count} different people have to approve {slot.id}: say who, metadata.user_id"
        raise TaskRejected("not_allowed", message)
    if not waits.may_answer(approval, slot, by):
        users, roles = waits.allowed(approval, slot)
        may = ", ".join([*sorted(users), *(f"role {role}" for role in sorted(roles))])
        user = by.get("user_id")
        if not user:
            message = f"an answer needs a metadata.user_id; those who may answer {slot.id}: {may}"
            raise TaskRejected("not_allowed", message)
        raise TaskRejected("not_allowed", f"{user} may not answer {slot.id}; those who may: {may}")
    answer = {"approved": task.payload.approved, "comment": task.payload.comment}
    return Signal(id=_answer_id(state, slot.id, who), slot=slot.id, payload=answer, by=by)


def _answer_id(state: State, slot_id: str, who: str) -> str:
    """One for each person and question: a flow that starts over asks anew, in a slot of the same name."""
    asked = "answer" if state.run == 1 else f"answer#{state.run}"
    return f"{asked}:{slot_id}:{who.replace('%', '%25').replace(':', '%3A')}"


async def _approval(services: Services, state: State, slot: Slot) -> Approval | None:
    program = await services.library.program(state.tenant, state.workflow, state.version)
    copy = decode_state(encode_state(state))
    execution, _ = await revive(program, copy, services.limits, services.payloads)
    want = execution.wants.get(slot.id)
    return None if want is None else waits.approval_of(want)


async def _result(services: Services, state: State, task: ChildEndedTask | StepResultTask) -> Signal | None:
    """How something ended for which a slot waits; None where none does any more."""
    payload = task.payload
    if isinstance(payload, StepResultPayload) and state.seq < payload.seq:
        raise Conflict(
            f"$.payload.seq is {payload.seq}, but execution {state.execution} has {state.seq} events so far"
        )
    slot = state.slots.get(payload.slot)
    if is_terminal(state.status) or slot is None or slot.status != "open":
        return None
    stored = payload.output
    owner = payload.child if isinstance(payload, ChildEndedPayload) else state.execution
    if not (reference(stored) or "").startswith(f"{state.tenant}/{owner}/"):  # else its worker has stored it
        stored = await services.payloads.store(state.tenant, state.execution, stored)
    told: dict[str, Any] = {"output": stored, "error": payload.error and safe_failure(payload.error)}
    if isinstance(task, ChildEndedTask):
        if slot.kind != "child" or slot.name != task.payload.child:
            return None
        told["status"] = task.payload.status
        identity = f"child:{slot.id}:{state.run}:{slot.attempt}"
        return Signal(id=identity, slot=slot.id, payload=told)
    if slot.kind != "remote" or task.payload.key not in ("", idempotency_key(state.key, slot.id)):
        return None
    if task.payload.attempt < slot.attempt:
        return None  # it was given up, and another attempt is made
    if task.payload.attempt > slot.attempt:
        at = f"{slot.id} of execution {state.execution} is at attempt {slot.attempt}"
        raise Conflict(f"$.payload.attempt is {task.payload.attempt}, but {at}")
    told |= {"attempt": task.payload.attempt, "started_at": task.payload.started_at}
    identity = f"result:{slot.id}:{state.run}:{task.payload.attempt}"
    return Signal(id=identity, slot=slot.id, payload=told, by={"worker": task.payload.worker})


def _cancelled(
    state: State, payload: CancelPayload, by: dict[str, Any], now_ms: int, identity: str
) -> Draft | None:
    if payload.parent is not None and (payload.parent != state.parent or state.status in ENDING):
        return None  # another's child of the same id, or one that has come to its end by itself
    return requests.cancel_requested(state, by, payload.reason, payload.compensate, now_ms, identity)


# -- another try -----------------------------------------------------------------------------


async def _retried(services: Services, state: State, by: dict[str, Any], identity: str) -> Draft | None:
    """Another try in place, unless a step may not be, or need not be, tried again."""
    draft = requests.retried(state, by, services.clock.now_ms(), identity)
    if draft is None or "reopen" not in draft.data:
        return draft
    if why := await _elsewhere(services, state):
        raise TaskRejected(
            "not_retryable", f"execution {state.execution} can't be tried again in place: {why}"
        )
    reopened = [state.slots[slot_id] for slot_id in draft.data["reopen"]]
    if kept := await _keeping_their_children(services, state, reopened):
        draft.data["kept"] = kept
    program = await services.library.program(state.tenant, state.workflow, state.version)
    if program.timeout_ms is not None:  # its time counts anew, or it might be over at once
        draft.data["deadline_at"] = rfc3339(draft.at_ms + program.timeout_ms)
    elif state.deadline_at:  # a version's that it was migrated from
        draft.data["deadline_at"] = ""
    copy = decode_state(encode_state(state))
    try:
        execution, _ = await revive(program, copy, services.limits, services.payloads)
    except Diverged:
        return draft  # the driver will say so, and wait for the right code
    for slot_id in draft.data["reopen"]:
        want = execution.wants.get(slot_id)
        if want is not None and (why := _no_retry(want)):
            raise TaskRejected(
                "not_retryable", f"execution {state.execution} can't be tried again in place: {why}"
            )
    return draft


async def _elsewhere(services: Services, state: State) -> str:
    """Why another execution does the work of one that has failed; empty where none does."""
    if taker := await forks.taker(services, state.tenant, state.execution):
        return f"{taker} has taken over its work"
    parent = state.parent
    if parent is None:
        return ""
    above = await load_latest(services.ports, services.clock, state.tenant, parent.execution_id)
    slot = above and above.state.slots.get(parent.slot)
    if above and slot and waits.replaces(slot.name, state.execution, above.state.key, slot.id, slot.attempt):
        return f"its parent {parent.execution_id} has begun {slot.name} in its place"
    return ""


async def _keeping_their_children(services: Services, state: State, slots: list[Slot]) -> list[str]:
    kept: list[str] = []
    for first in range(0, len(slots), AT_A_TIME):  # a loop may have begun thousands
        some = slots[first : first + AT_A_TIME]
        found = await asyncio.gather(*(_has_its_child(services, state, slot) for slot in some))
        kept += [slot.id for slot, has in zip(some, found, strict=True) if has]
    return kept


async def _has_its_child(services: Services, state: State, slot: Slot) -> bool:
    """Whether a slot that is tried again waits for the child that it had: not where that has failed.

    It may have completed just as its parent failed; or it has failed, and somebody has tried it again.
    Another one would do its work a second time.
    """
    if slot.kind != "child" or slot.abandon:  # such a child is waited for in any case
        return False
    found = await load_latest(services.ports, services.clock, state.tenant, slot.name)
    if found is None or found.state.parent != Parent(execution_id=state.execution, slot=slot.id):
        return False
    child, goes_on = found.state, slot.error is not None and slot.error.type == CHILD_FAILED
    return child.status == "COMPLETED" or (goes_on and not is_terminal(child.status) and child.cancel is None)


def _no_retry(want: Want) -> str:
    """Why a step that was begun may not be tried again; empty where it may."""
    if want.fault is not None:
        return (
            f"step {want.step} fails by its definition, and would again: {want.fault.message}; "
            "deploy one that is mended, and start anew"
        )
    if want.policy.at_most_once:
        return (
            f"step {want.step} is at_most_once, and was begun: it never runs a second time; "
            "`wpa rerun` makes a new execution"
        )
    return ""


# -- versions --------------------------------------------------------------------------------


async def _migrated(services: Services, state: State, task: MigrateTask, identity: str) -> Draft | None:
    """Another version, if what is settled fits it."""
    version = task.payload.version
    program = await services.library.program(state.tenant, state.workflow, version)
    draft = requests.migrated(
        state, program.version, program.hash, author(task), services.clock.now_ms(), identity
    )
    if draft is None:
        return None
    copy = decode_state(encode_state(state))
    copy.version, copy.definition_hash = program.version, program.hash
    try:
        await revive(program, copy, services.limits, services.payloads)
    except Diverged as error:
        raise TaskRejected(
            "does_not_fit",
            f"execution {state.execution} can't go on as {state.workflow} {program.version}: {error}",
        ) from None
    return draft
