"""One execution, undisturbed; or, with ``crash_everywhere``, once for each point where a worker can die."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from wpa.model import events as ev
from wpa.model.events import Event
from wpa.testing.environment import WorkflowEnvironment
from wpa.testing.errors import HIDDEN, CrashFailure
from wpa.testing.faults import Faults
from wpa.testing.handle import Run
from wpa.testing.journal import as_text
from wpa.testing.result import Result
from wpa.testing.workflows import WorkflowLike

__all__ = ["run"]

__tracebackhide__ = HIDDEN

Script = Callable[[Run], None]


def run(
    workflow: WorkflowLike,
    input: Any = None,
    *,
    others: Iterable[WorkflowLike] = (),
    script: Script | None = None,
    crash_everywhere: bool = False,
    execution_id: str = "",
    metadata: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    start_at: str = "",
    **options: Any,
) -> Result:
    """Start an execution, let the test do its part, and wait for its end.

    With ``crash_everywhere``, that is done again and again, in a new environment each time: the worker dies
    once, each time at another point (before and after each append, snapshot, alarm, task and ack, and
    before and after each attempt at a step), and another takes over. Whatever the point, the execution has to
    end with the same status, output and error; the journal has to be legal, with each slot settled once;
    each idempotency key has to come with the same inputs; and compensations have to run for the same steps,
    the last completed first.

    Args:
        workflow, others: as for :class:`wpa.testing.WorkflowEnvironment`.
        input, execution_id, metadata, variables, start_at: as for its ``start``.
        script: is called with the :class:`wpa.testing.Run` after its start: to send signals, give answers,
            skip time, and look. It has to do the same each time.
        crash_everywhere: see above. Mocks that are functions are shared by all those runs.
        options: the environment's: ``steps``, ``mocks``, ``now`` ...

    Returns the result of the undisturbed run. Raises CrashFailure, which names the point and shows the
    journals.
    """

    def once(faults: Faults | None) -> Result:
        with WorkflowEnvironment(workflow, *others, faults=faults, **options) as environment:
            started = environment.start(
                input,
                execution_id=execution_id,
                metadata=metadata,
                variables=variables,
                start_at=start_at,
            )
            try:
                if script is not None:
                    script(started)
                return started.result()
            except Exception as error:
                if faults is None or not faults.died_at:
                    raise
                what = f"{type(error).__name__}: {error}"
                raise _failure(faults.died_at, what, as_text(started.events)) from error

    if not crash_everywhere:
        return once(None)
    undisturbed = Faults()
    result = once(undisturbed)
    points = tuple(undisturbed.passed)
    for number, point in enumerate(points):
        faults = Faults(number)
        disturbed = once(faults)
        if faults.died_at != point:
            came_to = faults.died_at or "its end"
            what = f"the run came to {came_to!r} instead: it does not do the same each time"
            raise _failure(point, what, disturbed.journal, result.journal)
        for difference in _differences(result, disturbed):
            raise _failure(point, difference, disturbed.journal, result.journal)
    return msgspec.structs.replace(result, crash_points=points)


def _failure(point: str, what: str, disturbed: str, undisturbed: str = "") -> CrashFailure:
    text = f"a worker died {point}: {what}\n\nwith the crash:\n{disturbed}"
    if undisturbed:
        text += f"\n\nundisturbed:\n{undisturbed}"
    return CrashFailure(text)


def _differences(undisturbed: Result, disturbed: Result) -> Iterable[str]:
    """All that must be the same, and is not."""
    for name in ("status", "output", "failed_step"):
        before, after = getattr(undisturbed, name), getattr(disturbed, name)
        if before != after:
            yield f"its {name} is {after!r}, not {before!r}"
    before, after = _error(undisturbed), _error(disturbed)
    if before != after:
        yield f"its error is {after}, not {before}"
    yield from _other_inputs(disturbed)
    yield from _other_compensations(undisturbed, disturbed)


def _error(result: Result) -> str:
    return result.error.type if result.error is not None else "none"


def _other_inputs(disturbed: Result) -> Iterable[str]:
    """A key names one piece of work: a service that has seen it will not look at other inputs."""
    inputs: dict[str, Any] = {}
    for call in disturbed.calls:
        first = inputs.setdefault(call.key, call.inputs)
        if first != call.inputs:
            yield f"the idempotency key {call.key} came with {first!r}, and again with {call.inputs!r}"


def _other_compensations(undisturbed: Result, disturbed: Result) -> Iterable[str]:
    if sorted(undisturbed.undone) != sorted(disturbed.undone):
        yield f"undone are {disturbed.undone}, not {undisturbed.undone}"
    undone = [event.data["slot"].removesuffix(":undo") for event in _of(disturbed, ev.STEP_COMPENSATED)]
    completed = [event.data["slot"] for event in _of(disturbed, ev.STEP_COMPLETED)]
    in_reverse = [slot for slot in reversed(completed) if slot in undone]
    if undone != in_reverse:
        yield f"compensations ran in the order {undone}; the last completed first would be {in_reverse}"


def _of(result: Result, name: str) -> list[Event]:
    return [event for event in result.events if event.event == name]
