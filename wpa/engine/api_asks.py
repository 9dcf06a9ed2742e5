"""The verbs that ask something of an execution that exists: signal, answer, pause, cancel and the like.

A request becomes the task that it is short for, passes the same checks, and is decided on the execution as
it is now: who asks learns at once what can't be done. What may be done is recorded right here, by
compare-and-set, where somebody drives the execution or nobody has to: a cancel so reaches a busy worker past
whatever is queued. Where nobody drives and somebody has to, to go on or to clear up after the end, the task
is queued: it outlives this worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from wpa.engine.api_common import Body, Handler, execution_of, flag, text
from wpa.engine.asks import append, decide, find_latest, interrupts
from wpa.engine.commit import Lost
from wpa.engine.loading import Loaded
from wpa.engine.services import Services
from wpa.errors import NotFound, Problem, TaskRejected
from wpa.kernel.draft import Draft
from wpa.model.codec import decode_task
from wpa.model.events import TERMINAL
from wpa.model.state import State, is_terminal
from wpa.model.tasks import ANSWER, CANCEL, MIGRATE, PAUSE, RESUME, RETRY, SIGNAL, TERMINATE, Envelope

__all__ = ["AskVerbs", "find_soon"]

STARTING_S: Final = 1.0
"""A start is answered once it is queued: so long it may take until its execution is there."""
LOOK_EVERY_S: Final = 0.05
TAKEN_UP_WITHIN_S: Final = 2.0
"""Whoever retries a failed execution and then waits for it must not be shown its old end."""

_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    SIGNAL: ("signal", "payload", "id"),
    ANSWER: ("step", "approved", "comment"),
    PAUSE: ("reason",),
    RESUME: ("reason",),
    TERMINATE: ("reason",),
    RETRY: ("reason",),
    CANCEL: ("reason", "compensate"),
    MIGRATE: ("version",),
}
"""Which fields of a request are the task's payload."""
_ENVELOPE: Final = ("metadata", "task_id", "global_task_id")


async def find_soon(services: Services, tenant: str, execution: str) -> Loaded:
    """The execution; one that is just being started is waited for. Raises NotFound."""
    clock = services.clock
    deadline = clock.monotonic_s() + STARTING_S
    while True:
        try:
            return await find_latest(services, tenant, execution)
        except NotFound:
            if clock.monotonic_s() >= deadline:
                raise
        await clock.sleep(LOOK_EVERY_S)


class AskVerbs:
    """Asks things of executions.

    Every verb may be repeated under one ``task_id``: what was recorded is a duplicate, even after the end.
    """

    def __init__(self, services: Services, new_id: Callable[[], str]) -> None:
        self._services = services
        self._new_id = new_id

    def verbs(self) -> dict[str, Handler]:
        """What it answers, by verb."""
        return {
            "signal": self.signal,
            "answer": self.answer,
            "pause": self._verb(PAUSE),
            "resume": self._verb(RESUME),
            "cancel": self._verb(CANCEL),
            "terminate": self._verb(TERMINATE),
            "retry": self._verb(RETRY),
            "migrate": self.migrate,
        }

    def _verb(self, kind: str) -> Handler:
        async def handle(tenant: str, body: Body) -> Body:
            return await self._ask(tenant, kind, body)

        return handle

    async def signal(self, tenant: str, body: Body) -> Body:
        text(body, "signal", "a signal has a name")
        if not body.get("id") and not body.get("task_id"):
            # Whether it is recorded here or by whoever takes the task, it is one signal.
            body = {**body, "id": self._new_id()}
        return await self._ask(tenant, SIGNAL, body)

    async def answer(self, tenant: str, body: Body) -> Body:
        text(body, "step", "name the step whose approval is answered; see `wpa approvals list`")
        flag(body, "approved", "the verdict")
        return await self._ask(tenant, ANSWER, body)

    async def migrate(self, tenant: str, body: Body) -> Body:
        text(body, "version", "name the version to go on with; see `wpa definitions`")
        return await self._ask(tenant, MIGRATE, body)

    async def _ask(self, tenant: str, kind: str, body: Body) -> Body:
        execution_of(body)
        task, data = self._task(tenant, kind, body)
        return await self._record_or_queue(tenant, task, data)

    def _task(self, tenant: str, kind: str, body: Body) -> tuple[Envelope, bytes]:
        """The task that the request is short for, and its bytes. Raises what the door would."""
        payload = {name: body[name] for name in _FIELDS[kind] if body.get(name) is not None}
        data = msgspec.json.encode(
            {
                "type": kind,
                "execution_id": body["execution_id"],
                "payload": payload,
                **{name: body[name] for name in _ENVELOPE if body.get(name) is not None},
            }
        )
        try:
            return decode_task(data, tenant, self._services.limits), data
        except TaskRejected as error:
            raise _as_asked(error) from None

    async def _record_or_queue(self, tenant: str, task: Envelope, data: bytes) -> Body:
        services = self._services
        answer: dict[str, Any] = {"execution_id": task.execution_id, "duplicate": False, "queued": False}
        state = (await find_soon(services, tenant, task.execution_id)).state
        identity = services.next_id()  # each request is one of its own; what needs a lease goes to the queue
        while True:
            try:
                draft = await decide(services, state, task, identity)
            except TaskRejected as error:
                raise _as_asked(error) from None
            if draft is None:
                return {**answer, "duplicate": True}
            if "lease" in draft.data or (draft.event in TERMINAL and state.at_rest):
                await services.ports.tasks.publish(tenant, data, {})
                if is_terminal(state.status) or state.status == "PAUSED":
                    await self._taken_up(state)
                return {**answer, "queued": True}
            if await self._record(state, task, draft):
                return answer
            state = (await find_latest(services, tenant, task.execution_id)).state

    async def _taken_up(self, before: State) -> None:
        """Give a worker a moment to take up what is to go on after its end, or after a pause: whoever asks
        next means the execution as it is then. A pause would find it paused still, and be none."""
        services, clock = self._services, self._services.clock
        deadline = clock.monotonic_s() + TAKEN_UP_WITHIN_S
        while clock.monotonic_s() < deadline:
            if await services.ports.journal.read(before.tenant, before.execution, before.position):
                return
            await clock.sleep(LOOK_EVERY_S)

    async def _record(self, state: State, task: Envelope, draft: Draft) -> bool:
        """Append what is asked, and tell the driver. False where it has to be decided again.

        Raises OverLimit for what has more bytes than the server takes.
        """
        services = self._services
        try:
            await append(services, draft, state, state.epoch)
        except Lost:
            return False
        reason = "cancel" if interrupts(task) else "news"
        services.ports.live.nudge(state.worker, state.tenant, state.execution, state.epoch, reason)
        return True


def _as_asked(error: TaskRejected) -> TaskRejected:
    """The task's complaint as one about the request, which has no ``payload`` around its fields."""
    problems = [Problem(_path(problem.path), problem.message, problem.hint) for problem in error.problems]
    return TaskRejected(error.code, _path(error.message), problems)


def _path(words: str) -> str:
    for inner, outer in (("$.payload.", "$."), ("$.payload:", "$:")):
        if words.startswith(inner):
            return outer + words[len(inner) :]
    return words
