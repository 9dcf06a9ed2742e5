"""Bytes to tasks and events, and back. The door's first half: what isn't a task gets a clear reason.

Everything a hostile or careless publisher may send ends in :class:`wpa.errors.TaskRejected`, never in
another exception, and in time linear in its size: nesting is measured without recursion before
anything recursive sees the bytes. A well-formed task pays only for a few scans at C speed.

Tolerated on purpose: fields of the envelope that this version doesn't know (publishers in other
languages add their own; they are not recorded), and a key that comes twice in one object (the last
one counts, as in every common JSON reader; to find it would take a second, slower parse of each task).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final

import msgspec

from wpa.errors import InvalidName, OverLimit, TaskRejected
from wpa.model.events import Event
from wpa.model.ids import check_execution, check_signal, check_tenant, check_version, check_workflow
from wpa.model.integers import complaint, may_hold_too_long, shown_text, too_long
from wpa.model.limits import Limits
from wpa.model.tasks import ASKS, START, Envelope, SignalTask, StepResultTask, Task
from wpa.model.times import parse_ms

__all__ = [
    "TASK_TYPES",
    "check_bytes",
    "decode_event",
    "decode_task",
    "encode_event",
    "not_json",
    "start_hash",
]

TASK_TYPES: Final = (START, *ASKS)
REASON_CHARS_MAX: Final = 2_000
"""Of ``reason`` and ``comment``, which are kept in the journal and the snapshot."""
LABEL_CHARS_MAX: Final = 256
"""Of ``task_id``, ``global_task_id``, each field of ``metadata``, and what a payload calls by a name."""
ROLES_MAX: Final = 256
"""They are recorded with all that is asked."""


class _Kind(msgspec.Struct):
    type: Any = msgspec.UNSET


_TASK = msgspec.json.Decoder(Task)
_ASKS: Final = {kind: msgspec.json.Decoder(struct) for kind, struct in ASKS.items()}
_KIND = msgspec.json.Decoder(_Kind)
_EVENT = msgspec.json.Decoder(Event)
_ENCODER = msgspec.json.Encoder()
_CANONICAL = msgspec.json.Encoder(order="deterministic")

_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_BRACKETS_TO_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""As signed bytes: +1 opens, -1 closes."""
_HALF_A_PAIR: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_SINGLE_QUOTES: Final = re.compile(rb"[\[{,:]\s*'")
_NOT_A_NUMBER = re.compile(rb"\b(?:NaN|Infinity)\b")
RFC3339: Final = re.compile(
    r"[0-9]{4}(?:-[0-9]{2}){2}[Tt ][0-9]{2}(?::[0-9]{2}){2}(?:\.[0-9]{1,12})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def decode_task(data: bytes, tenant: str, limits: Limits) -> Envelope:
    """Decode and check the task that was published on ``workflow.tasks.<tenant>``.

    Args:
        data: the message's bytes, untrusted.
        tenant: the subject's token; what the task itself says must agree with it.
        limits: what this tenant may send.

    Raises only TaskRejected, with the place as a JSON path in the message. Its ``code`` is one of
    ``not_json``, ``not_a_task``, ``unknown_type``, ``bad_number``, ``wrong_tenant``, ``invalid_name``
    (:class:`InvalidName`) and ``over_limit`` (:class:`OverLimit`).
    """
    check_bytes(data, limits)
    try:
        task: Envelope = _decode(data)
    except msgspec.ValidationError as error:
        raise _misfit(data, error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(data, error) from None
    if may_hold_too_long(data):
        _check_numbers(task)
    _check(task, tenant)
    return task


def check_bytes(data: bytes, limits: Limits, what: str = "task") -> None:
    """Raise TaskRejected for what should not even be looked at: too long, not UTF-8, or nested too deeply."""
    if len(data) > limits.task_bytes_max:
        raise OverLimit(f"the {what} has {len(data)} bytes; the most is {limits.task_bytes_max}")
    if not data.isascii():
        _check_utf8(data, what)
    if data.count(b"[") + data.count(b"{") > limits.nesting_max:
        _check_nesting(data, limits.nesting_max, what)


def _decode(data: bytes) -> Envelope:
    """By its type. Nearly every task is a start: only what is none is looked at a second time."""
    try:
        task = _TASK.decode(data)
        if task.type == START:
            return task
        kind: Any = task.type
    except msgspec.ValidationError:
        kind = _KIND.decode(data).type
        if not isinstance(kind, str) or kind not in _ASKS:
            raise
    decoder = _ASKS.get(kind)
    return task if decoder is None else decoder.decode(data)


def _check_utf8(data: bytes, what: str) -> None:
    """The decoder skips what it doesn't know without looking, so the whole is looked at here."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise TaskRejected(
            "not_json", f"the {what} is not valid UTF-8: {error.reason} at byte {error.start}"
        ) from None


def _check_nesting(data: bytes, most: int, what: str) -> None:
    """Refuse what is nested deeper than ``most``, without recursion and at C speed.

    Without its escapes, every second piece between quotes is outside of strings; a string that never
    ends hides the rest, which is no JSON anyway.
    """
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(data.split(b'"')[::2])
    steps = outside.translate(_BRACKETS_TO_STEPS, _NOT_BRACKETS)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > most:
        raise OverLimit(f"the {what} is nested more than {most} levels deep")


def not_json(data: bytes, error: Exception, what: str = "task") -> TaskRejected:
    """Why ``data`` is no JSON: what the decoder says, and the usual mistake that explains it."""
    if not data.strip():
        return TaskRejected("not_json", f"the {what} is empty: send a JSON object")
    hint = ""
    if _NOT_A_NUMBER.search(data):
        hint = "; NaN and Infinity are not JSON: send null or a string"
    elif data.startswith(b"\xef\xbb\xbf"):
        hint = "; it starts with a byte order mark: send it without"
    elif half := _HALF_A_PAIR.search(data):
        shown = half[0].decode()
        hint = f"; {shown} is half a character (byte {half.start()}): surrogates come in pairs"
    elif _SINGLE_QUOTES.search(data):
        hint = "; JSON takes double quotes, not single ones"
    return TaskRejected("not_json", f"the {what} is not valid JSON: {error}{hint}")


def _misfit(data: bytes, error: msgspec.ValidationError) -> TaskRejected:
    """JSON, but not a task: say where."""
    what, _, where = str(error).partition(" - at `")
    where = where.rstrip("`") or "$"
    if "out of range" in what:
        return TaskRejected("bad_number", f"{where}: {what}; send it as a string")
    try:
        kind = _KIND.decode(data).type
    except msgspec.ValidationError:
        return TaskRejected("not_a_task", f"$: a task is a JSON object; this is not one ({what})")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        # The misfit came first, but behind it the bytes aren't even JSON.
        return not_json(data, broken)
    if kind is msgspec.UNSET:
        return TaskRejected("not_a_task", f"$.type is missing; this version knows: {', '.join(TASK_TYPES)}")
    if isinstance(kind, str) and kind not in TASK_TYPES:
        return _unknown_type(kind)
    return TaskRejected("not_a_task", f"{where}: {what}")


def _unknown_type(kind: str) -> TaskRejected:
    known = ", ".join(TASK_TYPES)
    return TaskRejected("unknown_type", f"$.type is {shown_text(kind)}; this version knows: {known}")


def _check(task: Envelope, tenant: str) -> None:
    if task.type not in TASK_TYPES:
        raise _unknown_type(task.type)
    check_tenant(tenant)
    if task.tenant_id and task.tenant_id != tenant:
        _name("$.tenant_id", check_tenant, task.tenant_id)
        raise TaskRejected(
            "wrong_tenant",
            f"$.tenant_id is {shown_text(task.tenant_id)}, but the task came on workflow.tasks.{tenant}",
        )
    if isinstance(task, Task):
        _check_start(task)
    else:
        _check_ask(task)
    if task.execution_id:
        _name("$.execution_id", check_execution, task.execution_id)
    if not 0 <= task.priority <= 9:
        raise TaskRejected("not_a_task", f"$.priority is {task.priority}; it must be from 0 to 9")
    if task.created_at:
        _check_time("$.created_at", task.created_at)
    metadata = task.metadata
    labels = (
        f"{task.task_id}{task.global_task_id}"
        f"{metadata.agent_id}{metadata.session_id}{metadata.user_id}{metadata.source}"
    )
    # What is printable, and short enough, all together is so one by one: of nearly every start.
    if len(labels) > LABEL_CHARS_MAX or not labels.isprintable() or metadata.roles or task.type != START:
        _check_labels(task)


def _check_labels(task: Envelope) -> None:
    metadata, payload = task.metadata, getattr(task, "payload", None)
    if len(metadata.roles) > ROLES_MAX:
        raise OverLimit(f"$.metadata.roles has {len(metadata.roles)} roles; the most is {ROLES_MAX}")
    for name, value in (
        ("task_id", task.task_id),
        ("global_task_id", task.global_task_id),
        ("metadata.agent_id", metadata.agent_id),
        ("metadata.session_id", metadata.session_id),
        ("metadata.user_id", metadata.user_id),
        ("metadata.source", metadata.source),
        *((f"payload.{field}", getattr(payload, field, "")) for field in ("id", "worker", "status")),
        *((f"metadata.roles[{number}]", role) for number, role in enumerate(metadata.roles)),
    ):
        if value and (len(value) > LABEL_CHARS_MAX or not value.isprintable()):
            raise InvalidName(
                f"$.{name} is {shown_text(value)}; it must be at most {LABEL_CHARS_MAX} printable characters"
            )


def _check_ask(task: Envelope) -> None:
    if not task.execution_id:
        raise TaskRejected("not_a_task", f"$.execution_id is missing: a {task.type} needs one")
    if isinstance(task, SignalTask):
        _name("$.payload.signal", check_signal, task.payload.signal)
    elif isinstance(task, StepResultTask) and task.payload.started_at:
        _check_time("$.payload.started_at", task.payload.started_at)
    for field in ("reason", "comment"):
        words = getattr(getattr(task, "payload", None), field, "")
        if len(words) > REASON_CHARS_MAX:
            most = REASON_CHARS_MAX
            raise OverLimit(f"$.payload.{field} has {len(words)} characters; the most is {most}")


def _check_start(task: Task) -> None:
    if not task.workflow_id:
        raise TaskRejected("not_a_task", f"$.workflow_id is missing: a {START} needs one")
    _name("$.workflow_id", check_workflow, task.workflow_id)
    if task.version:
        _name("$.version", check_version, task.version)
    if task.start_at:
        _check_time("$.start_at", task.start_at)
    if task.parent is not None:
        _name("$.parent.execution_id", check_execution, task.parent.execution_id)
    if task.fork is not None:
        _name("$.fork.execution_id", check_execution, task.fork.execution_id)


def _name(path: str, check: Callable[[object], str], value: str) -> None:
    try:
        check(value)
    except InvalidName as error:
        raise InvalidName(f"{path}: {error.message}") from None


def _check_time(path: str, value: str) -> None:
    try:
        if not RFC3339.fullmatch(value):
            raise ValueError
        parse_ms(value.upper())
    except (ValueError, OverflowError):
        raise TaskRejected(
            "not_a_task",
            f"{path} is {shown_text(value)}; write it in RFC 3339 as 2026-11-20T10:00:00Z",
        ) from None


def _check_numbers(task: Envelope) -> None:
    """Refuse integers that other languages, and the expressions, can't hold."""
    payload = getattr(task, "payload", None)
    fields = payload.__struct_fields__ if isinstance(payload, msgspec.Struct) else ()
    for path, value in (
        ("$.priority", task.priority),
        *((f"$.payload.{field}", getattr(payload, field)) for field in fields),
    ):
        found = too_long(value)
        if found is not None:
            raise TaskRejected("bad_number", complaint(path + found))


def encode_event(event: Event) -> bytes:
    """The event as it is stored and seen."""
    return _ENCODER.encode(event)


def decode_event(data: bytes) -> Event:
    """The inverse of :func:`encode_event`. Raises msgspec.DecodeError for what is no event."""
    return _EVENT.decode(data)


def start_hash(task: Task) -> str:
    """What makes two starts the same: workflow, asked-for version, payload, and what it is a rerun of.

    Not who asked, when, under which task id or priority. Keys may come in any order; ``1`` and
    ``1.0`` differ, as they do to a step.
    """
    content: tuple[Any, ...] = (task.workflow_id, task.version, task.payload)
    if task.fork is not None:
        content += (task.fork,)
    return hashlib.blake2b(_CANONICAL.encode(content), digest_size=16).hexdigest()
