"""The step types of a test: real ones, mocked ones, and a clear word about those that are neither."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from types import ModuleType
from typing import Any

import msgspec

from wpa.errors import StepFailed
from wpa.hooks import core
from wpa.hooks.modules import steps_of
from wpa.hooks.steps import step_type_of
from wpa.model.steptype import StepSignature
from wpa.ports.steps import StepContext, StepType
from wpa.testing.errors import HIDDEN, TestKitError, Unmocked
from wpa.testing.faults import Faults
from wpa.testing.mocks import Mock

__all__ = ["Call", "Steps", "step_types"]

__tracebackhide__ = HIDDEN


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a step, as it was begun."""

    execution: str
    step: str
    uses: str
    inputs: Any
    attempt: int
    key: str
    """The idempotency key: the same for each attempt at a slot."""
    at_ms: int
    """When, in milliseconds since the Unix epoch."""

    @property
    def is_undo(self) -> bool:
        """Whether it is a compensation."""
        return self.key.endswith(":undo")

    @property
    def place(self) -> str:
        """The step's id, and for its compensation ``<id>:undo``."""
        return f"{self.step}:undo" if self.is_undo else self.step


def step_types(declared: Iterable[object]) -> dict[str, StepType]:
    """The step types behind ``declared``, by name, and the built-in ones.

    Args:
        declared: functions with ``@step``, step types, plugins (whatever has ``wpa_steps``), and plain
            modules, whose functions with ``@step`` are taken.

    Raises TestKitError for anything else.
    """
    found = {}
    for item in [*core.wpa_steps(), *declared]:
        for each in _listed(item):
            step_type = step_type_of(each)
            if step_type is None:
                raise TestKitError(
                    f"steps: {each!r} is no step; declare it with @step, or mock it by its name"
                )
            found[step_type.name] = step_type
    return found


def _listed(item: object) -> Iterable[object]:
    hook: Callable[[], Iterable[object]] | None = getattr(item, "wpa_steps", None)
    if callable(hook):
        return hook()
    if not isinstance(item, ModuleType):
        return [item]
    steps = steps_of(item)
    if not steps:
        raise TestKitError(f"steps: module {item.__name__} declares nothing with @step")
    return steps


class Steps:
    """One world's :class:`wpa.ports.steps.StepCatalog`. It knows every name: see :meth:`get`.

    Args:
        real: the step types that really run.
        mocks: stand-ins by step type (``payments.charge``), or, before those, by step id (``charge``;
            its compensation is ``charge:undo``).
        failures: how many attempts at a slot are recorded as failed: called with the execution's id and the
            idempotency key.
        now_ms: the world's time.
        faults: points at which to die, before and after each attempt.
        complain: told what the test has to mend.
        threads: one thread, for steps that are not async.
    """

    def __init__(
        self,
        real: Mapping[str, StepType],
        mocks: Mapping[str, Any],
        *,
        failures: Callable[[str, str], int],
        now_ms: Callable[[], int],
        faults: Faults | None,
        complain: Callable[[BaseException], None],
        threads: Executor,
    ) -> None:
        self.calls: list[Call] = []
        self._real = real
        self._mocks = {name: Mock(name, outcome) for name, outcome in mocks.items()}
        self._failures = failures
        self._now_ms = now_ms
        self._faults = faults
        self._complain = complain
        self._threads = threads
        self._known: dict[str, StepType] = {}

    def names(self) -> list[str]:
        mocked = [name for name in self._mocks if "." in name]
        return sorted({*self._real, *mocked})

    @property
    def signatures(self) -> dict[str, StepSignature]:
        """The public faces of the real step types, mocked or not."""
        return {name: found.signature for name, found in self._real.items()}

    def get(self, name: str) -> StepType | None:
        """A step type that records the call, and then is what the test says it is."""
        found = self._known.get(name)
        if found is None:
            real = self._real.get(name)
            nothing = StepSignature(name=name, input_schema={}, output_schema={})
            found = self._known[name] = StepType(
                name=name,
                fn=lambda ctx, inputs: self._attempt(name, real, ctx, inputs),
                isolation="async",
                takes_context=True,
                bind=lambda inputs: {"inputs": inputs},
                dump=lambda value: value,
                signature=nothing if real is None else real.signature,
            )
        return found

    # -- attempts ----------------------------------------------------------------------------

    async def _attempt(self, name: str, real: StepType | None, ctx: StepContext, inputs: Any) -> Any:
        call = Call(
            execution=ctx.execution,
            step=ctx.step,
            uses=name,
            inputs=msgspec.json.decode(msgspec.json.encode(inputs)),
            attempt=ctx.attempt,
            key=ctx.idempotency_key,
            at_ms=self._now_ms(),
        )
        self.calls.append(call)
        what = f"attempt {ctx.attempt} at step {call.place} ({name}) of {ctx.execution}"
        await self._reach(f"before {what}")
        try:
            output = await self._work(call, real, ctx)
        except Exception:
            await self._reach(f"after {what}")
            raise
        await self._reach(f"after {what}")
        return output

    async def _reach(self, point: str) -> None:
        if self._faults is not None:
            await self._faults.reach(point)

    async def _work(self, call: Call, real: StepType | None, ctx: StepContext) -> Any:
        mock = self._mocks.get(call.place) or self._mocks.get(call.uses)
        if mock is None:
            if real is None:
                raise self._unmocked(call)
            return real.dump(await self._really(real, call, ctx))
        if real is not None:
            real.bind(call.inputs)  # what the step would refuse, its mock refuses, too
        failures = self._failures(call.execution, call.key) if mock.counts else 0
        try:
            value = await mock(ctx, call.inputs, failures)
        except BaseException as error:
            if not _is_the_tests(error):
                raise
            raise self._complaint(error) from None
        return value if real is None else real.dump(value)

    async def _really(self, real: StepType, call: Call, ctx: StepContext) -> Any:
        arguments = real.bind(call.inputs)
        args = (ctx,) if real.takes_context else ()
        if real.isolation == "async":
            return await real.fn(*args, **arguments)
        # To its end before anything else happens: two threads could end in one order or the other.
        context = contextvars.copy_context()
        return self._threads.submit(context.run, real.fn, *args, **arguments).result()

    def _unmocked(self, call: Call) -> StepFailed:
        known = ", ".join(self.names())
        return self._complaint(
            Unmocked(
                f"step {call.step} of {call.execution} uses {call.uses}, with inputs {call.inputs!r}, and "
                f"the test says nothing of it: add it to mocks={{{call.uses!r}: ...}}, or its function to "
                f"steps=[...]; known are: {known}"
            )
        )

    def _complaint(self, error: BaseException) -> StepFailed:
        """Tell the test, and end the attempt in a way that the workflow can't mend."""
        self._complain(error)
        return StepFailed(str(error), type=type(error).__name__, retryable=False)


def _is_the_tests(error: BaseException) -> bool:
    """Whether what a mock raised is no step's failure, but the test's own: an assert, or ``pytest.fail``."""
    if isinstance(error, Exception):
        return isinstance(error, AssertionError)
    return not isinstance(error, asyncio.CancelledError | GeneratorExit | KeyboardInterrupt | SystemExit)
