"""Stored journals against today's code: would an execution that ran then go on now?

A journal is what ``wpa history ID --json`` writes. It is folded, and the program is rebuilt from it by the
kernel, exactly as a worker does it before it drives an execution on. Where the program does not ask for what
is recorded, the first event that it can't follow is named.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from wpa.engine.payloads import reference
from wpa.errors import WpaError
from wpa.kernel.execution import Execution
from wpa.kernel.fold import IllegalTransition
from wpa.kernel.program import Program
from wpa.model import events as ev
from wpa.model.codec import decode_event
from wpa.model.events import Event
from wpa.model.limits import Limits
from wpa.model.times import parse_ms
from wpa.testing.errors import HIDDEN, ReplayFailure, TestKitError
from wpa.testing.journal import state_of
from wpa.testing.workflows import WorkflowLike, program_of

__all__ = ["Divergence", "Journal", "assert_replays", "events_of", "journals", "replay"]

__tracebackhide__ = HIDDEN

Journal = Sequence[Event] | Sequence[Mapping[str, Any]] | str | Path
"""Events, the same as JSON objects, or the path of a file that holds them."""


class Divergence(NamedTuple):
    """Where today's code leaves the journal."""

    execution: str
    event: Event
    """The first event that the code does not lead to, or can't follow."""
    reason: str

    def __str__(self) -> str:
        event = self.event
        return f"{self.execution}, event {event.seq} ({event.event}, {event.timestamp}): {self.reason}"


def replay(
    workflow: WorkflowLike, journal: Journal, *, payloads: Mapping[str, Any] | None = None
) -> Divergence | None:
    """Check one stored journal against a workflow as it is now.

    A plan of another version than the recorded one is checked as a migration would be: whether what is
    settled fits it.

    Args:
        workflow: a plan (a document, or its path), or a flow.
        journal: see :data:`Journal`; of an execution that has ended, or not.
        payloads: large values by their key, where the journal refers to any.

    Returns None where it replays. Raises TestKitError for what is no journal of this workflow.
    """
    program, events = program_of(workflow), events_of(journal)
    if events[0].workflow_id != program.id:
        raise TestKitError(
            f"the journal of {events[0].execution_id} is one of workflow {events[0].workflow_id}, not of "
            f"{program.id}"
        )
    checker = _Checker(program, events, payloads or {})
    # With continue_as_new, what went before is forgotten: each run is checked at its own end.
    ends = [place for place, event in enumerate(events) if event.event in (ev.CONTINUED, ev.COMPLETED)]
    for end in [*ends, len(events)]:
        if (divergence := checker.check(end)) is not None:
            # The first place is where to look; what is known at the end says best what is wrong there.
            first = checker.first(end) or divergence
            return first._replace(reason=divergence.reason)
    return None


def assert_replays(
    workflow: WorkflowLike, path: Journal, *, payloads: Mapping[str, Any] | None = None
) -> None:
    """Check a stored journal, or every ``*.json`` in a folder, against a workflow as it is now.

    Raises ReplayFailure, an AssertionError, which names each event that today's code can't follow.
    """
    found: Iterable[Journal] = [path]
    if isinstance(path, str | Path) and Path(path).is_dir():
        found = journals(path)
    diverged = [replay(workflow, journal, payloads=payloads) for journal in found]
    told = [str(divergence) for divergence in diverged if divergence is not None]
    if told:
        raise ReplayFailure("\n\n".join(told))


def journals(folder: str | Path) -> list[Path]:
    """Every ``*.json`` in a folder, sorted. Raises TestKitError where there is none: nothing was checked."""
    found = sorted(Path(folder).glob("*.json"))
    if not found:
        raise TestKitError(
            f"{folder} holds no journal; store one with `wpa history ID --json > {folder}/ID.json`"
        )
    return found


def events_of(journal: Journal) -> list[Event]:
    """The events of a journal, however it is given. Raises TestKitError for what is none."""
    listed: Any
    where, listed = "the journal", journal
    if isinstance(journal, str | Path):
        where = str(journal)
        try:
            listed = msgspec.json.decode(Path(journal).read_bytes())
        except OSError as error:
            raise TestKitError(f"{where} can't be read: {error.strerror}") from None
        except msgspec.DecodeError as error:
            raise TestKitError(f"{where} is not JSON: {error}") from None
    try:
        found = [decode_event(msgspec.json.encode(event)) for event in listed]
    except (msgspec.DecodeError, TypeError) as error:
        raise TestKitError(
            f"{where} is no list of events, as `wpa history ID --json` writes it: {error}"
        ) from None
    if not found:
        raise TestKitError(f"{where} holds no events")
    cut = [event["seq"] for event in listed if isinstance(event, Mapping) and "cut" in event]
    if cut:
        raise TestKitError(
            f"{where} is not whole: event {cut[0]} was cut, for the server takes no answer with all of it; "
            "raise max_payload in its configuration, restart the workers, and read it again"
        )
    return found


class _Checker:
    """Rebuilds one journal's execution from its first events."""

    def __init__(self, program: Program, events: list[Event], payloads: Mapping[str, Any]) -> None:
        self._program = program
        self._events = events
        self._payloads = payloads

    def first(self, end: int) -> Divergence | None:
        """Where the program, which after ``end`` events has left the journal, left it; None: not before."""
        # It never comes back to the journal's way, so the place is found by halving.
        left = bisect_left(range(1, end), True, key=lambda length: self.check(length) is not None)
        return self.check(left + 1)

    def check(self, length: int) -> Divergence | None:
        """Whether the program can be rebuilt from the first events, and leads to the end, if that follows."""
        try:
            state = state_of(self._events[:length])
        except IllegalTransition as error:
            raise TestKitError(f"the journal is none that was ever recorded: {error}") from None
        if state is None:
            return None
        last = self._events[length - 1]
        if self._program.pinned and state.version != self._program.version:
            state.definition_hash = self._program.hash
        try:
            execution = Execution.rebuild(self._program, state, Limits(), self._resolve)
        except TestKitError:
            raise
        except WpaError as error:
            return Divergence(last.execution_id, last, str(error))
        reason = self._other_end(execution, self._events[length]) if length < len(self._events) else None
        return Divergence(last.execution_id, self._events[length], reason) if reason else None

    def _other_end(self, execution: Execution, recorded: Event) -> str | None:
        """Why the event that ends a run is not what the program leads to now."""
        key = {ev.COMPLETED: "output", ev.CONTINUED: "input"}.get(recorded.event)
        if key is None:
            return None
        asks = ", ".join(f"{want.kind} {want.slot}" for want in execution.wants.values())
        draft = execution.follow_up(parse_ms(recorded.timestamp))
        if draft is None or draft.event != recorded.event:
            now = f"asks for {asks}" if asks else f"leads to {draft.event if draft else 'nothing'}"
            return f"the execution had come to its end; the code of today {now}"
        before = self._resolve(recorded.data.get(key))
        after = msgspec.json.decode(msgspec.json.encode(draft.data[key]))
        return None if before == after else f"the {key} was {before!r}; today it would be {after!r}"

    def _resolve(self, value: Any) -> Any:
        key = reference(value)
        if key is None:
            return value
        if key not in self._payloads:
            raise TestKitError(
                f"the journal refers to the large payload {key}; give it: payloads={{{key!r}: ...}} "
                f"(`wpa payload {key}` prints it)"
            )
        return self._payloads[key]
