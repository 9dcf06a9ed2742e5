"""What a flow can wait for beside its steps: signals, approvals, children."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Literal, TypeVar, get_type_hints, overload

from wpa.errors import StepFailed
from wpa.flows.calls import Duration, failed, milliseconds, returned
from wpa.flows.errors import TimedOut
from wpa.flows.loop import FlowLoop, current
from wpa.flows.standins import genuine
from wpa.flows.values import Convert, converter, dump, record
from wpa.kernel.program import Approval, Child, Escalation, Wait, WantKind
from wpa.model import ids
from wpa.model.events import Failure

__all__ = ["approval", "child", "escalate", "signal"]

T = TypeVar("T")

STEP_CHARS: Final = 64


class _Required:
    """Stands for "no default": a time-out raises."""


_REQUIRED: Final = _Required()


def signal(
    name: str, *, timeout: Duration | None = None, default: Any = _REQUIRED
) -> Coroutine[Any, Any, Any]:
    """Wait for a signal; one that came before is there at once.

    Args:
        name: the signal's name.
        timeout: how long to wait, in seconds; for ever where None.
        default: what a time-out gives. Without it, a time-out raises TimedOut, which is a TimeoutError.

    Returns the signal's payload, its objects as :class:`Record`.
    """
    loop = current("signal()")
    ids.check_signal(name)
    wait = Wait(
        signal=name,
        delay_ms=milliseconds("timeout", timeout),
        has_default=default is not _REQUIRED,
        default=None if default is _REQUIRED else dump(default),
    )
    return _await(loop, f"signal_{name}", "signal", "core.wait", wait, record)


def approval(
    message: str = "",
    *,
    users: Iterable[str] = (),
    roles: Iterable[str] = (),
    count: int = 1,
    timeout: Duration | None = None,
    default: Any = _REQUIRED,
    escalations: Iterable[Escalation] = (),
    name: str = "approval",
) -> Coroutine[Any, Any, Any]:
    """Wait until people have decided.

    Args:
        message: what they are asked.
        users, roles: who may answer; nobody named means anybody.
        count: so many different people have to approve. One rejection ends it.
        timeout: how long to wait, in seconds; for ever where None.
        default: what a time-out gives. Without it, a time-out raises TimedOut, which is a TimeoutError.
        escalations: who else may answer after a while: see :func:`escalate`.
        name: the step's id in status, events and slots.

    Returns a :class:`Record`: ``approved`` (bool) and ``answers``, each with ``by``, ``decision``,
    ``comment`` and ``at``.
    """
    loop = current("approval()")
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count must be a number of people, 1 or more, not {count!r}")
    asked = Approval(
        users=_names("users", users),
        roles=_names("roles", roles),
        count=count,
        escalations=tuple(sorted(escalations, key=lambda each: each.after_ms)),
        message=message,
    )
    wait = Wait(
        approval=asked,
        delay_ms=milliseconds("timeout", timeout),
        has_default=default is not _REQUIRED,
        default=None if default is _REQUIRED else dump(default),
    )
    return _await(loop, name, "approval", "core.approval", wait, record)


def escalate(after: Duration, *, users: Iterable[str] = (), roles: Iterable[str] = ()) -> Escalation:
    """Who else may answer an approval, ``after`` so many seconds."""
    after_ms = milliseconds("after", after)
    assert after_ms is not None  # noqa: S101  only None gives None
    return Escalation(after_ms=after_ms, users=_names("users", users), roles=_names("roles", roles))


@overload
def child(
    workflow: Callable[..., Coroutine[Any, Any, T]],
    input: Any = None,
    /,
    *,
    version: str = "",
    execution_id: str = "",
    detached: bool = False,
    on_cancel: Literal["cancel", "abandon"] = "cancel",
    **inputs: Any,
) -> Coroutine[object, object, T]: ...
@overload
def child(
    workflow: str,
    input: Any = None,
    /,
    *,
    version: str = "",
    execution_id: str = "",
    detached: bool = False,
    on_cancel: Literal["cancel", "abandon"] = "cancel",
    **inputs: Any,
) -> Coroutine[Any, Any, Any]: ...
def child(
    workflow: str | Callable[..., Any],
    input: Any = None,
    /,
    *,
    version: str = "",
    execution_id: str = "",
    detached: bool = False,
    on_cancel: Literal["cancel", "abandon"] = "cancel",
    **inputs: Any,
) -> Coroutine[Any, Any, Any]:
    """Start another workflow and wait for its end.

    Args:
        workflow: its id, or the function that ``@flow`` declared.
        input: its input, as a whole; or its members are given by name, as ``inputs``.
        version: a deployed version; where empty, the one deployed last.
        execution_id: the child's id; one is derived from this execution's where empty.
        detached: don't wait: go on as soon as it is started, whatever becomes of it.
        on_cancel: whether the child is cancelled, or left alone, when this flow stops waiting for it.

    Returns the child's output, as :func:`call` returns a step's. Awaiting it raises StepFailed of type
    ``ChildFailed`` when the child has failed; ``details`` tells its execution, status and error.
    """
    loop = current("child()")
    convert: Convert = record
    if isinstance(workflow, str):
        id = ids.check_workflow(workflow)
    else:
        program = getattr(workflow, "__wpa_flow__", None)
        if program is None:
            raise TypeError(
                f"child() takes a workflow's id or a function declared with @flow, not {workflow!r}"
            )
        id = program.id
        if not detached:
            convert = converter(_return_hint(workflow))
    if input is not None and inputs:
        raise TypeError(f"child({id}): give the input as a whole, or its members by name, not both")
    if on_cancel not in ("cancel", "abandon"):
        raise ValueError(f"on_cancel must be 'cancel' or 'abandon', not {on_cancel!r}")
    started = Child(
        workflow=id,
        version=ids.check_version(version) if version else "",
        input=dump(inputs if input is None else input),
        execution=ids.check_execution(execution_id) if execution_id else "",
        detached=detached,
        on_cancel=on_cancel,
    )
    return _await(loop, f"child_{id}"[:STEP_CHARS], "child", "core.workflow", Wait(child=started), convert)


def _await(
    loop: FlowLoop, step: str, kind: WantKind, uses: str, wait: Wait, convert: Convert
) -> Coroutine[Any, Any, Any]:
    waiting = _wait(loop, step, kind, uses, wait, convert)
    # For the warning that it was never awaited.
    waiting.__qualname__ = f"{kind}({step})"  # type: ignore[attr-defined]
    return waiting


async def _wait(loop: FlowLoop, step: str, kind: WantKind, uses: str, wait: Wait, convert: Convert) -> Any:
    settled = await loop.settled(loop.ledger.open(step[:STEP_CHARS], kind, uses, wait=wait))
    if settled.status == "failed":
        raise _missed(settled.error)
    return returned(convert, settled.value, step)


def _missed(error: Failure | None) -> StepFailed:
    if error is not None and error.type == "Timeout":
        return TimedOut(error.message, type="Timeout", retryable=False, details=record(error.details))
    return failed(error)


def _names(what: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"{what} must be a list of names, not one string: [{names!r}]")
    return tuple(names)


def _return_hint(fn: Callable[..., Any]) -> Any:
    try:
        return get_type_hints(fn, globalns=genuine(fn.__globals__), include_extras=True).get("return", Any)
    except NameError:
        return Any
