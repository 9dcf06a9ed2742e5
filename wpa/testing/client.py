"""What somebody outside does: asks by messages, reads journals, waits. All that a test does goes this way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import msgspec

from wpa.errors import Problem, TaskRejected
from wpa.kernel.waits import waiting_for
from wpa.model.events import Event
from wpa.model.state import State, is_terminal
from wpa.plan.durations import parse_duration_ms
from wpa.testing.errors import HIDDEN, NotEnded, TestKitError
from wpa.testing.journal import LastEvent, as_text, payload, read_journal, state_of
from wpa.testing.result import Result
from wpa.testing.world import TENANT, World

__all__ = ["Client", "Duration", "milliseconds"]

__tracebackhide__ = HIDDEN

ANSWERS_WITHIN_MS: Final = 1_000

Duration = str | float | timedelta
"""``"24h"``, or seconds, or a timedelta."""


def milliseconds(duration: Duration) -> int:
    """A duration in milliseconds. Raises ValueError for one that can't be read, or that is negative."""
    if isinstance(duration, str):
        return parse_duration_ms(duration)
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if seconds < 0:
        raise ValueError(f"a duration of {seconds} s: time does not go back")
    return round(seconds * 1000)


class Client:
    """One world's client. ``default_skip``: whether waiting for an end lets time pass."""

    def __init__(self, world: World, *, default_skip: bool) -> None:
        self.world = world
        self._default_skip = default_skip
        self._unheard: list[str] = []
        """The inboxes of what was asked for a later moment."""

    # -- asking ------------------------------------------------------------------------------

    def ask(self, task: dict[str, Any], at_ms: int | None = None) -> None:
        """Send a task, and let everything happen that happens at once.

        Args:
            task: the message.
            at_ms: send it at this moment instead, in milliseconds since the Unix epoch. Time is not let pass
                for it.

        Raises TaskRejected where the engine refuses it. What it refuses later is raised by whatever lets
        the time pass.
        """
        inbox = self.world.inbox()
        data = msgspec.json.encode(task)
        if at_ms is not None and at_ms > self.world.clock.now_ms():
            self._unheard.append(inbox)
            self.world.at(at_ms, lambda: self.world.publish(data, inbox))
            return
        self.world.run(self._ask(data, inbox))
        self._hear(inbox)

    async def _ask(self, data: bytes, inbox: str) -> None:
        world = self.world
        await world.publish(data, inbox)
        await world.settle()
        if inbox not in world.answers:
            # The engine looks a second time before it refuses something.
            await world.until(
                lambda: inbox in world.answers or not world.in_hand, world.clock.now_ms() + ANSWERS_WITHIN_MS
            )

    def _hear(self, inbox: str) -> None:
        """Raise what was answered, if it was a refusal."""
        answer = self.world.answers.pop(inbox, None)
        if answer is None or answer["ok"]:
            return
        error = answer["error"]
        problems = [
            Problem(found["path"], found["message"], found.get("hint", ""))
            for found in error.get("problems", ())
        ]
        raise TaskRejected(error["code"], error["message"], problems)

    # -- time --------------------------------------------------------------------------------

    def pass_time(self, until_ms: int) -> None:
        """Let time pass until a moment. Raises TaskRejected for what was asked on the way, and refused."""
        self._until(lambda: False, until_ms)

    def _until(self, done: Callable[[], bool], limit_ms: int | None) -> None:
        self.world.run(self.world.until(done, limit_ms))
        heard = [inbox for inbox in self._unheard if inbox in self.world.answers]
        self._unheard = [inbox for inbox in self._unheard if inbox not in heard]
        for inbox in heard:
            self._hear(inbox)

    # -- looking -----------------------------------------------------------------------------

    def events(self, execution: str) -> list[Event]:
        """The journal so far; empty where the execution has not started."""
        return read_journal(self.world.server, TENANT, execution)

    def state(self, execution: str) -> State:
        """The state as it is recorded. Raises TestKitError where the execution has not started."""
        state = state_of(self.events(execution))
        if state is None:
            raise TestKitError(f"execution {execution} has not started")
        return state

    def result(self, execution: str) -> Result:
        """How the execution ended, once it has. Raises NotEnded where it won't by itself."""
        last = LastEvent(self.world.server, TENANT, execution)
        self._until(lambda: last.ends, None if self._default_skip else self.world.clock.now_ms())
        events = self.events(execution)
        state = state_of(events)
        if state is None or not is_terminal(state.status):
            raise NotEnded(self._why_not(execution, state, events))
        calls = [call for call in self.world.steps.calls if call.execution == execution]
        return Result.of(state, payload(self.world.server, state.output), events, calls)

    def _why_not(self, execution: str, state: State | None, events: list[Event]) -> str:
        if state is None:
            return f"execution {execution} has not started, and nothing will start it"
        if state.blocked is not None:
            return f"execution {execution} is blocked: {state.blocked.type}: {state.blocked.message}"
        open_now = waiting_for(state)
        shown = ", ".join(f"{item['slot']} ({_what(item)})" for item in open_now) or "nothing"
        if not self._default_skip:
            hint = "auto_skip is off: let time pass with skip()"
        elif state.status == "PAUSED":
            hint = "resume it"
        else:
            hint = "nothing that it waits for comes by itself: send the signal, or give the answer, first"
        return f"execution {execution} is {state.status} and waits for {shown}; {hint}\n{as_text(events)}"


def _what(item: dict[str, Any]) -> str:
    told = [str(item[key]) for key in ("kind", "name") if item.get(key)]
    return " ".join(told) + (f", until {item['until']}" if item.get("until") else "")
