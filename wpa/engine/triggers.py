"""Triggers: messages on NATS subjects that start executions, or wake them.

Every worker listens to the subjects of the triggers of every workflow's latest version. For each workflow and
subject the workers form one queue group, so each message reaches one of them. What it comes to is an ordinary
task on ``workflow.tasks.<tenant>``; from there on everything is as durable as ever. Up to there it is not:
core NATS keeps no messages, so one that is published while no worker listens, or that a worker holds when it
is killed, is not seen by anybody (``docs/triggers-and-schedules.md`` says what to do about that).

A message that a trigger wants and can't make a task of becomes a dead letter: its own bytes, and the reason.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, TypeVar

import msgspec

from wpa.engine.door import ONCE_HEADER, TRIGGER_HEADER, Origin, letter_headers
from wpa.engine.services import Services
from wpa.errors import NotFound, PlatformError, Problem, TaskRejected, TooLarge
from wpa.model.codec import LABEL_CHARS_MAX, check_bytes, decode_task
from wpa.model.tasks import SIGNAL, START, SignalPayload, SignalTask, StartPayload, Task, TaskMetadata
from wpa.model.times import rfc3339
from wpa.plan import Plan
from wpa.plan.expressions import ExpressionError
from wpa.plan.triggers import Signal, Start, Trigger
from wpa.ports.clock import Clock
from wpa.ports.live import Unsubscribe
from wpa.ports.tasks import Lease

__all__ = ["Triggers", "foreign", "own_subject"]

log = logging.getLogger("wpa.engine")

QUEUE_MAX: Final = 5_000
"""Of each workflow and subject, so many messages may wait here; more are dropped, and counted in the log."""
AT_A_TIME: Final = 32
RETRY_S: Final = 0.25
RETRY_MAX_S: Final = 5.0
WARN_EVERY_S: Final = 5.0
SOURCE: Final = "trigger"
"""``metadata.source`` of what is published."""

T = TypeVar("T")
Message = tuple[str, bytes, dict[str, str]]
"""Subject, data, headers."""
Made = tuple[bytes, dict[str, str]]
"""A task, and its headers."""


class _Ear:
    """Listens on one subject for the triggers of one workflow."""

    def __init__(self, tenant: str, pattern: str, clock: Clock) -> None:
        self._clock = clock
        self.tenant = tenant
        self.pattern = pattern
        self.plan: Plan | None = None
        self.queue: asyncio.Queue[Message] = asyncio.Queue(QUEUE_MAX)
        self.dropped = 0
        self.warned_at = float("-inf")
        self.unsubscribe: Unsubscribe | None = None
        self.task: asyncio.Task[None] | None = None

    def hear(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        """Called for each message; must not block."""
        try:
            self.queue.put_nowait((subject, data, headers))
        except asyncio.QueueFull:
            self.dropped += 1
            now = self._clock.monotonic_s()
            if now - self.warned_at > WARN_EVERY_S:
                self.warned_at = now
                log.error("messages on %s come too fast: %d are dropped so far", self.pattern, self.dropped)


class Triggers:
    """The triggers of all tenants, as far as this worker hears what they listen to."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._ears: dict[tuple[str, str], dict[str, _Ear]] = {}
        """By tenant and workflow, then by subject."""

    # -- following ---------------------------------------------------------------------------

    async def deployed(self, tenant: str, plan: Plan) -> None:
        """Listen for the triggers of this version, and no more for those of the one before.

        See :data:`wpa.engine.deployments.OnLatest`.
        """
        for problem in foreign(tenant, plan):
            log.error("a trigger of %s.%s %s is not in force: %s", tenant, plan.id, plan.version, problem)
        ears = self._ears.setdefault((tenant, plan.id), {})
        wanted = {trigger.subject: own_subject(tenant, trigger.subject) for trigger in plan.triggers}
        for pattern, subject in wanted.items():
            if subject is None:
                continue
            ear = ears.get(pattern)
            if ear is None:
                ear = _Ear(tenant, pattern, self._services.clock)
                ear.plan = plan
                await self._listen(ear, subject, plan.id)
                ears[pattern] = ear
            ear.plan = plan
        for pattern in ears.keys() - wanted.keys():
            await self._stop(ears.pop(pattern))

    async def _listen(self, ear: _Ear, subject: str, workflow: str) -> None:
        # The server delivers a message once to each queue name, whatever the subjects of its members: so
        # each subject of a workflow needs a name of its own, the same in all workers.
        queue = f"wpa-{_digest(ear.tenant, workflow, ear.pattern)}"
        ear.unsubscribe = await self._services.ports.live.watch(subject, ear.hear, queue)
        ear.task = asyncio.create_task(self._work(ear), name=f"wpa-trigger-{workflow}")
        log.info("listening on %s for %s.%s", subject, ear.tenant, workflow)

    async def _stop(self, ear: _Ear) -> None:
        if ear.unsubscribe is not None:
            await ear.unsubscribe()
        if ear.task is not None:
            await ear.queue.join()
            ear.task.cancel()

    async def close(self, within_s: float) -> None:
        """Listen no more; see to what was heard, for so long at most."""
        ears = [ear for found in self._ears.values() for ear in found.values()]
        self._ears.clear()
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(*(self._stop(ear) for ear in ears))
        except TimeoutError:
            left = sum(ear.queue.qsize() for ear in ears)
            log.error("%d messages for triggers were heard and are not seen to", left)
            for ear in ears:
                if ear.task is not None:
                    ear.task.cancel()

    def abandon(self) -> None:
        """Leave everything as it lies, as a crash would."""
        for found in self._ears.values():
            for ear in found.values():
                if ear.task is not None:
                    ear.task.cancel()

    # -- messages ----------------------------------------------------------------------------

    async def _work(self, ear: _Ear) -> None:
        while True:
            messages = [await ear.queue.get()]
            while not ear.queue.empty() and len(messages) < AT_A_TIME:
                messages.append(ear.queue.get_nowait())
            plan = ear.plan
            if plan is not None:
                await asyncio.gather(*(self._take(ear, plan, *message) for message in messages))
            for _ in messages:
                ear.queue.task_done()

    async def _take(self, ear: _Ear, plan: Plan, subject: str, data: bytes, headers: dict[str, str]) -> None:
        """Publish what a message comes to, or bury it. Never raises."""
        services = self._services
        origin = Origin(
            workflow=plan.id,
            subject=subject,
            pattern=ear.pattern,
            message=_digest(services.next_id()),
            headers=headers,
        )
        rejected: TaskRejected | None = None
        try:
            for made in self._made(ear.tenant, plan, origin, data):
                if isinstance(made, TaskRejected):
                    rejected = rejected or made
                else:
                    task, own = made
                    await _until_done(lambda: services.ports.tasks.publish(ear.tenant, task, own))  # noqa: B023
            if rejected is not None:
                await self._bury(ear.tenant, plan, origin, data, rejected)
        except TooLarge as error:
            log.error("a message on %s is lost, there is no room for it: %s", subject, error)
        except Exception:
            log.exception(
                "a message on %s is lost by an error of the engine's own; please report it", subject
            )

    async def _bury(self, tenant: str, plan: Plan, origin: Origin, data: bytes, error: TaskRejected) -> None:
        services = self._services
        log.warning("a message on %s is of no use to %s.%s: %s", origin.subject, tenant, plan.id, error)
        headers = letter_headers(origin.subject, error, services.worker, services.clock.now_ms())
        headers[TRIGGER_HEADER] = _header(origin)
        await _until_done(lambda: services.ports.tasks.bury(tenant, data, headers))

    async def retried(self, lease: Lease, origin: Origin) -> None:
        """See to a dead letter of ours that was queued again, and ack it.

        Raises TaskRejected where it is of no use still: it becomes a dead letter once more.
        """
        plan = await self._services.library.program(lease.tenant, origin.workflow)
        if not isinstance(plan, Plan):
            raise NotFound("unknown_trigger", f"workflow {origin.workflow} is no plan, it has no triggers")
        made = list(self._made(lease.tenant, plan, origin, lease.data))
        rejected = [error for error in made if isinstance(error, TaskRejected)]
        if rejected:
            raise rejected[0]
        for found in made:
            if not isinstance(found, TaskRejected):
                await self._services.ports.tasks.publish(lease.tenant, *found)
        lease.ack()

    # -- what a message comes to -------------------------------------------------------------

    def _made(self, tenant: str, plan: Plan, origin: Origin, data: bytes) -> Iterator[Made | TaskRejected]:
        """For each trigger that wants the message: the task, or why there can be none."""
        limits = self._services.limits
        same = [(number, t) for number, t in enumerate(plan.triggers) if t.subject == origin.pattern]
        try:
            check_bytes(data, limits, "message")
            message = _decoded(data)
        except TaskRejected as error:
            if same:
                yield error
            return
        for number, trigger in same or list(enumerate(plan.triggers)):
            try:
                made = self._task(
                    plan, trigger, f"{origin.message}{f'-{number}' if number else ''}", origin, message
                )
                if made is not None:
                    # Through the door, as everybody's: what is too large, too deep or badly named is
                    # found here, where the message is still at hand.
                    decode_task(made[0], tenant, limits)
                    yield made
            except ExpressionError as error:
                yield TaskRejected("bad_mapping", f"triggers[{number}] of {plan.id} {plan.version}: {error}")
            except TaskRejected as error:
                yield error
            except (RecursionError, ValueError, TypeError, OverflowError) as error:
                what = f"{type(error).__name__}: {error}"
                yield TaskRejected("bad_mapping", f"triggers[{number}] of {plan.id} {plan.version}: {what}")

    def _task(self, plan: Plan, trigger: Trigger, name: str, origin: Origin, message: Any) -> Made | None:
        found = trigger.match(origin.subject, message, origin.headers)
        if found is None:
            return None
        if isinstance(found, Signal):
            return self._signal(plan, found, name, origin)
        return self._start(plan, found, name, origin)

    def _start(self, plan: Plan, start: Start, name: str, origin: Origin) -> Made:
        problems = plan.check_input(start.input)
        if problems:
            message = f"the input does not fit the input schema of {plan.id} {plan.version}: {problems[0]}"
            raise TaskRejected("invalid_input", message, problems)
        key = start.idempotency_key or message_id(origin.headers)
        headers = {ONCE_HEADER: _digest(key)} if key else {}
        if "traceparent" in origin.headers:
            headers["traceparent"] = origin.headers["traceparent"]
        task = Task(
            type=START,
            workflow_id=plan.id,
            execution_id=start.execution_id or f"{plan.id}-{_digest(key) if key else name}",
            created_at=rfc3339(self._services.clock.now_ms()),
            metadata=TaskMetadata(source=SOURCE),
            payload=StartPayload(
                input_data=start.input, execution_context={"trigger": {"subject": origin.subject}}
            ),
        )
        return msgspec.json.encode(task), headers

    def _signal(self, plan: Plan, signal: Signal, name: str, origin: Origin) -> Made:
        problems = plan.check_signal(signal.name, signal.payload)
        if problems:
            raise TaskRejected("bad_signal", str(problems[0]), problems)
        given = message_id(origin.headers)
        if len(given) > LABEL_CHARS_MAX or not given.isprintable():
            given = _digest(given)
        task = SignalTask(
            type=SIGNAL,
            workflow_id=plan.id,
            execution_id=signal.execution_id,
            created_at=rfc3339(self._services.clock.now_ms()),
            metadata=TaskMetadata(source=SOURCE),
            payload=SignalPayload(signal=signal.name, payload=signal.payload, id=signal.id or given or name),
        )
        return msgspec.json.encode(task), {}


def foreign(tenant: str, plan: Plan) -> list[Problem]:
    """The triggers that listen to what another tenant's steps emit; they are never in force."""
    return [
        Problem(
            f"$.triggers[{number}].subject",
            f"{trigger.subject!r} is another tenant's; what steps emit is for their own tenant only",
            f"write 'workflow.emit.{tenant}.'",
        )
        for number, trigger in enumerate(plan.triggers)
        if own_subject(tenant, trigger.subject) is None
    ]


def own_subject(tenant: str, pattern: str) -> str | None:
    """What to listen to for a trigger's subject; None where it is another tenant's.

    Under ``workflow.emit.`` each tenant has its own subjects: a wildcard in the tenant's place means just
    those.
    """
    tokens = pattern.split(".")
    if tokens[:2] != ["workflow", "emit"]:
        return pattern
    if tokens[2] == ">":
        return f"workflow.emit.{tenant}.>"
    if tokens[2] not in ("*", tenant):
        return None
    return ".".join(["workflow", "emit", tenant, *tokens[3:]])


def message_id(headers: dict[str, str]) -> str:
    """What the publisher calls the message: ``Nats-Msg-Id``, or the CloudEvents source and id; or ""."""
    if given := headers.get("Nats-Msg-Id", ""):
        return given
    given = headers.get("ce-id", "")
    return f"{headers.get('ce-source', '')} {given}".strip() if given else ""


def _decoded(data: bytes) -> Any:
    """JSON where it is; null where there is nothing; any other text as it is."""
    if not data.strip():
        return None
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return data.decode()


def _header(origin: Origin) -> str:
    """JSON that comes through a header unharmed: ASCII, in which white space says nothing."""
    text = json.dumps(msgspec.to_builtins(origin), separators=(",", ":"))
    return text.replace(" ", "\\u0020")


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=10).hexdigest()


async def _until_done(effect: Callable[[], Awaitable[T]]) -> T:
    """Wait out a server that is away. Raises TooLarge."""
    delay = RETRY_S
    while True:
        try:
            return await effect()
        except TooLarge:
            raise
        except PlatformError as error:
            log.debug("a trigger's effect is tried again: %s", error)
        await asyncio.sleep(delay)
        delay = min(delay * 2, RETRY_MAX_S)
