"""Calling steps from a flow: how a call becomes a want, and a step's output a value."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final, TypeVar, get_type_hints, overload

from wpa.errors import StepFailed
from wpa.flows.ledger import CONTINUE
from wpa.flows.loop import FlowLoop, current
from wpa.flows.saga import saga_now
from wpa.flows.standins import genuine
from wpa.flows.values import Convert, Misfit, converter, dump, is_object, record
from wpa.kernel.program import Retry, StepPolicy
from wpa.kernel.retry import backoff_ms, may_retry
from wpa.model.events import Failure
from wpa.model.ids import check_queue

__all__ = ["Duration", "call", "failed", "milliseconds", "returned"]

T = TypeVar("T")
# What calls return is a Coroutine[object, object, T]: with Any in it, type checkers give up at gather().

Duration = float | timedelta
"""Seconds, or a timedelta."""

_OPTIONS: Final = ("step_name", "undo", "retry", "timeout", "deadline", "queue", "at_most_once", "priority")
_DEFAULTS: Final = (None, None, None, None, None, "", False, 5)
LATE: Final = 100
"""So many failures are as many as make any difference."""
BACKOFF_MS_MAX: Final = 100_000_000_000_000
_NO_OBJECT: Final = ("string", "integer", "number", "boolean", "null", "array")


@overload
def call(
    step: Callable[..., Coroutine[Any, Any, T]],
    *args: Any,
    step_name: str | None = None,
    undo: str | Callable[..., Any] | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    deadline: Duration | None = None,
    queue: str = "",
    at_most_once: bool = False,
    priority: int = 5,
    **inputs: Any,
) -> Coroutine[object, object, T]: ...
@overload
def call(
    step: str,
    *args: Any,
    step_name: str | None = None,
    undo: str | Callable[..., Any] | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    deadline: Duration | None = None,
    queue: str = "",
    at_most_once: bool = False,
    priority: int = 5,
    **inputs: Any,
) -> Coroutine[Any, Any, Any]: ...
@overload
def call(
    step: Callable[..., T],
    *args: Any,
    step_name: str | None = None,
    undo: str | Callable[..., Any] | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    deadline: Duration | None = None,
    queue: str = "",
    at_most_once: bool = False,
    priority: int = 5,
    **inputs: Any,
) -> Coroutine[object, object, T]: ...
def call(
    step: str | Callable[..., Any],
    *args: Any,
    step_name: str | None = None,
    undo: str | Callable[..., Any] | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    deadline: Duration | None = None,
    queue: str = "",
    at_most_once: bool = False,
    priority: int = 5,
    **inputs: Any,
) -> Coroutine[Any, Any, Any]:
    """Run a step, durably. Await it, or hand it to ``asyncio.gather``, a ``TaskGroup``, ``wait_for`` ...

    Args:
        step: the step type's name, ``"payments.charge"``, or the function that ``@step`` declared.
        args: inputs by position. Given the function, they are its parameters in order (without the context).
            Given a name, a single object (a dict, model, dataclass or struct) is the inputs themselves where
            its members fit the step's parameters, all those without a default among them; any other value
            is the parameter at its position, for which the worker has to know the step type's signature.
            Where it doesn't, a single object always is the inputs themselves.
        step_name: the step's id in status, events and slots; by default the step type's with ``_`` for ``.``.
        undo: the step type that undoes this one, or its function. It is given this step's inputs and the
            members of its output, as far as it takes them, when a :func:`saga` around or the execution fails.
        retry: when a failed attempt is tried again; a number is that of all attempts. By default three.
        timeout: of each attempt, in seconds.
        deadline: of all attempts together, in seconds from when the step is first wanted.
        queue: the worker group that is to run it.
        at_most_once: never attempt it a second time, not even when its worker dies.
        priority: 0 to 9; 9 is the most urgent of the steps that wait for a worker.
        inputs: the step's inputs, by name. One that is called like an option above is given in an object, or
            by position.

    Returns what the step returned: made what the function's return annotation says or, given a name, as JSON
    data whose objects are :class:`Record` (``charge.id`` is ``charge["id"]``). Awaiting it raises StepFailed
    when the step has given up; its ``type`` is the error's, as ``retry`` sees it.
    Raises NotInFlow outside of a flow, TypeError for inputs that can't be passed, InvalidName for a bad name.
    """
    loop = current("call()")
    uses, shape = (step, None) if isinstance(step, str) else _known(step)
    bound = _inputs(loop, uses, shape, args, inputs)
    policy = CONTINUE
    options = (step_name, undo, retry, timeout, deadline, queue, at_most_once, priority)
    if options != _DEFAULTS:
        _check_options(uses, _parameters(loop, uses, shape) or (), options, bound)
        policy = StepPolicy(
            retry=_retry(retry),
            timeout_ms=milliseconds("timeout", timeout),
            deadline_ms=milliseconds("deadline", deadline),
            on_error="continue",
            priority=_priority(priority),
            queue=check_queue(queue) if queue else "",
            at_most_once=at_most_once,
        )
    undone_by = "" if undo is None else undo if isinstance(undo, str) else _known(undo)[0]
    performing = _perform(
        loop, step_name or _step_id(uses), uses, bound, policy, undone_by, shape.convert if shape else record
    )
    # What Python says where the await was forgotten: "coroutine 'call(orders.charge)' was never awaited".
    performing.__qualname__ = f"call({uses})"  # type: ignore[attr-defined]
    return performing


async def _perform(
    loop: FlowLoop, step: str, uses: str, inputs: Any, policy: StepPolicy, undo: str, convert: Convert
) -> Any:
    slot = loop.ledger.open(
        step, "step", uses, inputs=inputs, policy=policy, undo=undo, saga=saga_now() if undo else None
    )
    settled = await loop.settled(slot)
    if settled.status == "failed":
        raise failed(settled.error)
    return returned(convert, settled.value, uses)


def failed(error: Failure | None) -> StepFailed:
    """A recorded failure as the exception that it is in a flow."""
    if error is None:
        return StepFailed("no reason was recorded", type="Unknown")
    return StepFailed(
        error.message, type=error.type, retryable=error.retryable, details=record(error.details)
    )


def returned(convert: Convert, value: Any, what: str) -> Any:
    """An output as a flow sees it. Raises StepFailed, type InvalidOutput, where it isn't what it is to be."""
    try:
        return convert(value)
    except Misfit as error:
        message = f"{what} returned what its annotation does not say: {error}"
        raise StepFailed(message, type="InvalidOutput", retryable=False) from None


def milliseconds(what: str, duration: Duration | None) -> int | None:
    """A duration in whole milliseconds, at least one. Raises ValueError for what is not positive."""
    if duration is None:
        return None
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < 1e11:
        raise ValueError(f"{what} must be a positive number of seconds or a timedelta, not {duration!r}")
    return max(1, round(seconds * 1000))


@functools.lru_cache(maxsize=1024)
def _step_id(uses: str) -> str:
    return uses.replace(".", "_")


def _retry(retry: Retry | int | None) -> Retry:
    if retry is None:
        return CONTINUE.retry
    if isinstance(retry, Retry):
        return _usable(retry)
    if isinstance(retry, bool) or not isinstance(retry, int) or retry < 1:
        raise ValueError(f"retry must be a Retry or the number of all attempts, 1 or more, not {retry!r}")
    return Retry(max_attempts=retry)


def _usable(retry: Retry) -> Retry:
    """A policy, if it can be followed: who finds out that it can't has made an attempt already."""
    try:
        again = may_retry(retry, Failure(type="", message=""), 1)
        waits_ms = [backoff_ms(retry, failures, "") for failures in (1, LATE)]
    except Exception as error:
        raise ValueError(
            f"retry can't be followed: {type(error).__name__}: {error}; it is {retry!r}"
        ) from None
    if again and max(waits_ms) > BACKOFF_MS_MAX:
        raise ValueError(f"retry waits for longer than anything may: {max(waits_ms)} ms; it is {retry!r}")
    return retry


def _priority(priority: int) -> int:
    if priority not in range(10):
        raise ValueError(f"priority must be 0 to 9, not {priority!r}")
    return priority


def _check_options(
    uses: str, parameters: tuple[str, ...], options: tuple[Any, ...], bound: dict[str, Any]
) -> None:
    """Refuse an option that may be meant for the step's parameter of the same name."""
    for option, given, default in zip(_OPTIONS, options, _DEFAULTS, strict=True):
        if given != default and option in parameters and option not in bound:
            raise TypeError(
                f"call({uses}): {option} is an option of call() and an input of the step; pass the input by "
                f"position, or in one object, call({uses!r}, {{{option!r}: ...}}), beside the option"
            )


# -- inputs ----------------------------------------------------------------------------------


class _Shape:
    """What a call has to know of a step's function, found out once and kept with the function."""

    __slots__ = ("convert", "parameters")

    def __init__(self, fn: Callable[..., Any], takes_context: bool) -> None:
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        parameters = [p.name for p in inspect.signature(fn).parameters.values() if p.kind not in variable]
        self.parameters = tuple(parameters[1:] if takes_context else parameters)
        names = genuine(getattr(inspect.unwrap(fn), "__globals__", {}))
        try:
            hint = get_type_hints(fn, globalns=names, include_extras=True).get("return", Any)
        except NameError:
            hint = Any
        self.convert = converter(hint)


def _known(step: Callable[..., Any]) -> tuple[str, _Shape]:
    declared = getattr(step, "__wpa_step__", None)
    uses = getattr(declared, "name", None)
    if not isinstance(uses, str):
        raise TypeError(
            f"call() takes a step type's name or a function declared with @step, not {step!r}; a plain "
            "function of the flow's own is called without call()"
        )
    shape = getattr(step, "__wpa_shape__", None)
    if shape is None:
        shape = _Shape(step, bool(getattr(declared, "takes_context", False)))
        step.__wpa_shape__ = shape  # type: ignore[attr-defined]
    return uses, shape


def _inputs(
    loop: FlowLoop, uses: str, shape: _Shape | None, args: tuple[Any, ...], inputs: dict[str, Any]
) -> dict[str, Any]:
    if not args:
        dumped: dict[str, Any] = dump(inputs)
        return dumped
    given: dict[str, Any]
    if shape is None and len(args) == 1 and is_object(args[0]):
        value = dump(args[0])
        signature = loop.signatures(uses) if loop.signatures is not None else None
        spread = signature is None or _is_inputs(signature.input_schema, value, inputs)
        given = value if spread else _by_position(uses, _parameters(loop, uses, None), (value,))
    else:
        given = _by_position(uses, _parameters(loop, uses, shape), args)
    if inputs:
        twice = given.keys() & inputs.keys()
        if twice:
            raise TypeError(f"call({uses}): {', '.join(sorted(twice))} is given twice")
        given |= dump(inputs)
    return given


def _is_inputs(schema: dict[str, Any], members: dict[str, Any], named: dict[str, Any]) -> bool:
    """Whether one object, with what is given by name, is a step's inputs, and not its first parameter."""
    parameters = schema.get("properties", {})
    if not parameters:
        return True
    known = bool(schema.get("additionalProperties")) or members.keys() <= parameters.keys()
    if known and {*members, *named}.issuperset(schema.get("required", ())):
        return True
    # A parameter that takes no object can't be meant: as inputs, the complaint names the members at fault.
    return next(iter(parameters.values())).get("type") in _NO_OBJECT


def _parameters(loop: FlowLoop, uses: str, shape: _Shape | None) -> tuple[str, ...] | None:
    """The names of a step's inputs, in order; None where they are not known here."""
    if shape is not None:
        return shape.parameters
    signature = loop.signatures(uses) if loop.signatures is not None else None
    return None if signature is None else tuple(signature.input_schema.get("properties", ()))


def _by_position(uses: str, parameters: tuple[str, ...] | None, args: tuple[Any, ...]) -> dict[str, Any]:
    if parameters is None:
        raise TypeError(
            f"call({uses!r}, ...): the step type's parameters are not known here, so its inputs can't be "
            f"passed by position; pass them by name, as in call({uses!r}, order_id=...), pass one object "
            "that holds them, or pass the step's function in place of its name"
        )
    if len(args) > len(parameters):
        raise TypeError(
            f"call({uses}) takes {len(parameters)} inputs ({', '.join(parameters)}), but {len(args)} were "
            "given by position"
        )
    return {name: dump(value) for name, value in zip(parameters, args, strict=False)}
