"""Stand-ins for steps: what they return, and how they fail.

A mock that gives one outcome after the other counts *attempts that were made*, not calls: an attempt that a
crash cut off, and that is made again, has the same outcome again. Otherwise a crash would change what the
world outside answers, and nothing could be compared.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import msgspec

from wpa.errors import StepFailed
from wpa.ports.steps import StepContext
from wpa.testing.errors import HIDDEN, TestKitError, Unmocked

__all__ = ["Child", "Fail", "Mock", "Returns", "child", "fail", "returns"]

__tracebackhide__ = HIDDEN


class Fail(msgspec.Struct, frozen=True, kw_only=True):
    """See :func:`fail`."""

    type: str
    message: str = ""
    times: int | None = None
    retryable: bool = True
    then: Any = None
    details: dict[str, Any] = msgspec.field(default_factory=dict)

    def error(self) -> StepFailed:
        """The error to raise; a new one each time."""
        message = self.message or f"the mock fails with {self.type}"
        return StepFailed(message, type=self.type, retryable=self.retryable, details=dict(self.details))


class Returns(msgspec.Struct, frozen=True):
    """See :func:`returns`."""

    value: Any


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """See :func:`child`."""

    workflow: str
    version: str = "1"
    outcome: Any = None

    @property
    def step_type(self) -> str:
        """What the calls of the stand-in are recorded under."""
        return f"child.{self.workflow}"


def fail(
    type: str,
    message: str = "",
    *,
    times: int | None = None,
    retryable: bool = True,
    then: Any = None,
    details: dict[str, Any] | None = None,
) -> Fail:
    """A mock that fails.

    Args:
        type: the error type, which ``retry_on``, ``give_up_on`` and ``except`` match.
        message: what the journal says.
        times: so many attempts fail; by default all of them.
        retryable: False makes the step give up at once, whatever its retry policy says.
        then: the outcome after ``times``: a value, an exception, a callable, another ``fail``.
        details: JSON data recorded with the failure.
    """
    return Fail(
        type=type, message=message, times=times, retryable=retryable, then=then, details=details or {}
    )


def returns(value: Any) -> Returns:
    """A mock that returns ``value`` whatever it is: for values that would be taken for something else, as
    a list (which means one outcome after the other), an exception, or a function."""
    return Returns(value)


def child(workflow: str, output: Any = None, *, error: Fail | None = None, version: str = "1") -> Child:
    """A stand-in for another workflow that the one under test starts.

    Args:
        workflow: its id.
        output: what it ends with: anything that can be a step's mock, so that a function of ``input``
            can compute it.
        error: makes it fail instead.
        version: the version that it is deployed as.
    """
    return Child(workflow=workflow, version=version, outcome=output if error is None else error)


NOTHING_MORE: Final = object()


class Mock:
    """One mock, ready to be called. Belongs to one world: it remembers who had which outcome."""

    def __init__(self, name: str, outcome: Any) -> None:
        self.name = name
        self._outcomes, self._rest = _unrolled(outcome)
        self._given: dict[tuple[str, int], int] = {}

    @property
    def counts(self) -> bool:
        """Whether its outcome depends on which attempt it is."""
        return bool(self._outcomes)

    async def __call__(self, ctx: StepContext, inputs: Any, failures: int) -> Any:
        """Make an attempt. Raises whatever the outcome is to raise.

        Args:
            ctx: the attempt's context, which names its slot by its idempotency key.
            inputs: the step's inputs, plain JSON.
            failures: how many attempts at this slot are recorded as failed.
        """
        outcome = self._rest
        if self._outcomes:
            number = self._given.setdefault((ctx.idempotency_key, failures), len(self._given))
            if number < len(self._outcomes):
                outcome = self._outcomes[number]
            elif outcome is NOTHING_MORE:
                raise Unmocked(
                    f"the mock of {self.name} has {len(self._outcomes)} outcomes, and this is attempt "
                    f"{number + 1}, with inputs {inputs!r}: add an outcome to its list"
                )
        return await _settle(self.name, outcome, ctx, inputs)


def _unrolled(outcome: Any) -> tuple[list[Any], Any]:
    """The outcomes that are given once each, and what comes after them."""
    if isinstance(outcome, Fail) and outcome.times is not None:
        more, rest = _unrolled(outcome.then)
        return [outcome] * outcome.times + more, rest
    if isinstance(outcome, list):
        single: list[Any] = []
        for item in outcome:
            single += [item] * item.times if isinstance(item, Fail) and item.times else [item]
        return single, NOTHING_MORE
    return [], outcome


async def _settle(name: str, outcome: Any, ctx: StepContext, inputs: Any) -> Any:
    if isinstance(outcome, Returns):
        return outcome.value
    if isinstance(outcome, Fail):
        raise outcome.error()
    if isinstance(outcome, BaseException):
        raise outcome
    if isinstance(outcome, type) and issubclass(outcome, BaseException):
        raise outcome(f"the mock of {name} fails")
    if not callable(outcome):
        return outcome
    answer = _called(name, outcome, ctx, {} if inputs is None else inputs)
    return await answer if inspect.isawaitable(answer) else answer


def _called(name: str, function: Callable[..., Any], ctx: StepContext, inputs: Any) -> Any:
    if not isinstance(inputs, dict):
        raise TestKitError(f"{name} was called with {inputs!r}, which is no JSON object of inputs")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin without a signature
        return function(**inputs)
    given = (ctx,) if next(iter(signature.parameters), "") == "ctx" else ()
    try:
        signature.bind(*given, **inputs)
    except TypeError as error:
        # The step itself would be called with these: it is the test that has to be mended.
        raise TestKitError(
            f"the mock of {name} takes {signature}, but the step's inputs are {inputs!r}: {error}"
        ) from None
    return function(*given, **inputs)
