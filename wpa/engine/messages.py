"""What a message comes to: the tasks that a plan's triggers make of it, or the reason why they can't.

It makes no difference how the message was heard: as it was published (:mod:`wpa.engine.triggers`), or out of
a stream that kept it (:mod:`wpa.engine.inlets`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from wpa.engine.door import ONCE_HEADER, TRIGGER_HEADER, VERSION_HEADER, Origin, letter_headers
from wpa.engine.services import Services
from wpa.errors import OverLimit, Problem, TaskRejected, TooLarge
from wpa.model.codec import LABEL_CHARS_MAX, check_bytes, decode_task
from wpa.model.tasks import SIGNAL, START, SignalPayload, SignalTask, StartPayload, Task, TaskMetadata
from wpa.model.times import rfc3339
from wpa.plan import Plan
from wpa.plan.expressions import ExpressionError
from wpa.plan.subjects import reserved
from wpa.plan.triggers import Signal, Start, Trigger

__all__ = ["Made", "Messages", "digest", "foreign", "own_subject"]

SOURCE: Final = "trigger"
"""``metadata.source`` of what is published."""

Made = tuple[bytes, dict[str, str]]
"""A task, and its headers."""


class Messages:
    """Applies triggers to messages. Stateless."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def tasks(self, tenant: str, plan: Plan, origin: Origin, data: bytes) -> Iterator[Made | TaskRejected]:
        """For each trigger that wants the message: the task, or why there can be none."""
        limits = self._services.limits
        same = [
            (number, trigger)
            for number, trigger in enumerate(plan.triggers)
            if (trigger.subject, trigger.stream) == (origin.pattern, origin.stream)
        ]
        try:
            check_bytes(data, limits, "message")
            message = _decoded(data)
        except TaskRejected as error:
            if same:
                yield error
            return
        # Names count the triggers that share the message, not those before them in the plan: a version that
        # adds one elsewhere must not make another execution of what is delivered once more.
        for count, (number, trigger) in enumerate(same or enumerate(plan.triggers)):
            name = f"{origin.message}{f'-{count}' if count else ''}"
            try:
                made = self._task(plan, trigger, name, origin, message)
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

    async def publish(self, tenant: str, made: Made) -> None:
        """Queue what a message came to. Raises OverLimit for more than the server takes, and Unavailable."""
        try:
            await self._services.ports.tasks.publish(tenant, *made)
        except TooLarge as error:
            raise OverLimit(f"the task that the message comes to is too large: {error}") from None

    def letter(self, origin: Origin, error: TaskRejected) -> dict[str, str]:
        """The headers of a message that is a dead letter: why, and what is needed to try it again."""
        headers = letter_headers(origin.subject, error, self._services.worker, self._services.clock.now_ms())
        return headers | self.about(origin)

    def about(self, origin: Origin) -> dict[str, str]:
        """The headers that make a task of the message itself."""
        return {TRIGGER_HEADER: _header(origin)}

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
        key = start.idempotency_key or _publishers_id(origin)
        headers = {VERSION_HEADER: plan.version}  # its mapping made the input, for its schema
        if key:
            headers[ONCE_HEADER] = digest(key)
        if origin.stream and not key and not start.execution_id:
            # Delivered again, perhaps to another version: whatever that makes of it, it is the same start.
            headers[ONCE_HEADER] = name
        if "traceparent" in origin.headers:
            headers["traceparent"] = origin.headers["traceparent"]
        task = Task(
            type=START,
            workflow_id=plan.id,
            execution_id=start.execution_id or f"{plan.id}-{digest(key) if key else name}",
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
        given = _publishers_id(origin)
        if len(given) > LABEL_CHARS_MAX or not given.isprintable():
            given = digest(given)
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
    """The triggers that listen to what is another tenant's, or nobody's to hear; they are never in force.

    The latter are refused at a deploy; that may have been before they were.
    """
    problems = []
    for number, trigger in enumerate(plan.triggers):
        if own_subject(tenant, trigger.subject) is None:
            theirs = f"{trigger.subject!r} is another tenant's; what steps emit is for their own tenant only"
            complaint = reserved(trigger.subject)
            hint = "" if complaint else f"write 'workflow.emit.{tenant}.'"
            problems.append(Problem(f"$.triggers[{number}].subject", complaint or theirs, hint))
    return problems


def own_subject(tenant: str, pattern: str) -> str | None:
    """What to listen to for a trigger's subject; None where nothing on it is for the tenant.

    Under ``workflow.emit.`` each tenant has its own subjects: a wildcard in the tenant's place means just
    those.
    """
    if reserved(pattern):
        return None
    tokens = pattern.split(".")
    if tokens[:2] != ["workflow", "emit"]:
        return pattern
    if tokens[2] == ">":
        return f"workflow.emit.{tenant}.>"
    if tokens[2] not in ("*", tenant):
        return None
    return ".".join(["workflow", "emit", tenant, *tokens[3:]])


def _publishers_id(origin: Origin) -> str:
    """What the publisher calls the message: ``Nats-Msg-Id``, or the CloudEvents source and id; or "".

    It does not count for what a stream has kept: there, each message has a place of its own, and what the
    stream took for two messages is two.
    """
    headers = origin.headers
    if origin.stream:
        return ""
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


def digest(*parts: str) -> str:
    """A short name for what the parts say together."""
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=10).hexdigest()
