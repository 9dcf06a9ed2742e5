"""Journals as a test looks at them: read from the memory server, folded, printed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from wpa.adapters.memory import MemoryServer
from wpa.engine.payloads import reference
from wpa.kernel.fold import fold
from wpa.model import events as ev
from wpa.model.codec import decode_event
from wpa.model.events import Event
from wpa.model.ids import idempotency_key
from wpa.model.state import State

__all__ = ["Failures", "LastEvent", "as_text", "payload", "read_journal", "state_of"]


def read_journal(server: MemoryServer, tenant: str, execution: str) -> list[Event]:
    """All events of an execution, in order; none where it never started."""
    found = server.events.read(f"workflow.events.{tenant}.{execution}")
    return [decode_event(message.data) for message in found]


def state_of(events: Iterable[Event]) -> State | None:
    """The state after ``events``; None where there are none. Raises IllegalTransition."""
    state: State | None = None
    for event in events:
        state = fold(state, event)
    return state


def payload(server: MemoryServer, value: Any) -> Any:
    """A recorded value, large ones taken from the object store."""
    key = reference(value)
    return value if key is None else msgspec.json.decode(server.blobs[key])


class LastEvent:
    """The last event of one execution, decoded once."""

    def __init__(self, server: MemoryServer, tenant: str, execution: str) -> None:
        self._server = server
        self._subject = f"workflow.events.{tenant}.{execution}"
        self._read = 0
        self._ends = False

    @property
    def ends(self) -> bool:
        """Whether the execution has ended, or can't go on with the code that there is."""
        if tail := self._server.events.read(self._subject, self._read):
            self._read = tail[-1].sequence
            event = decode_event(tail[-1].data)
            self._ends = event.event in ev.TERMINAL or "blocked" in event.data
        return self._ends


class Failures:
    """How many attempts at each slot are recorded as failed. Reads each event once."""

    def __init__(self, server: MemoryServer, tenant: str) -> None:
        self._server = server
        self._tenant = tenant
        self._read: dict[str, int] = {}
        self._run_keys: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def count(self, execution: str, key: str) -> int:
        """Of the slot with this idempotency key."""
        subject = f"workflow.events.{self._tenant}.{execution}"
        for message in self._server.events.read(subject, self._read.get(execution, 0)):
            self._read[execution] = message.sequence
            event = decode_event(message.data)
            if event.event == ev.CONTINUED:
                self._run_keys[execution] = f"{execution}.{event.data['run']}"
            elif event.event == ev.STEP_FAILED:
                failed = idempotency_key(self._run_keys.get(execution, execution), event.data["slot"])
                self._counts[failed] = self._counts.get(failed, 0) + 1
        return self._counts.get(key, 0)


def as_text(events: Iterable[Event]) -> str:
    """A journal, one line an event."""
    lines = []
    for event in events:
        data = event.data
        told = [str(data[key]) for key in ("slot", "reason", "failed_step") if data.get(key)]
        if error := data.get("error"):
            kind, message = (
                (error["type"], error["message"]) if isinstance(error, dict) else (error.type, error.message)
            )
            told.append(f"{kind}: {message}")
        if "signal" in data and isinstance(data["signal"], dict):
            told.append(str(data["signal"].get("name") or data["signal"].get("id")))
        if waiting := data.get("waiting_for"):
            told.append("for " + ", ".join(str(item["slot"]) for item in waiting))
        if running := data.get("next"):
            told.append(f"-> {', '.join(running)}")
        name = event.event.removeprefix("workflow_")
        line = f"{event.seq:4} {event.timestamp} {event.worker} #{event.epoch} {name:<18} {' '.join(told)}"
        lines.append(line.rstrip())
    return "\n".join(lines)
