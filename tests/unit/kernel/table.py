"""The kernel's other half in a test: a journal in a list, time in a counter, crashes on demand."""

from __future__ import annotations

from typing import Any

import msgspec

from wpa.kernel import requests
from wpa.kernel.draft import Draft, seal
from wpa.kernel.execution import Attempt, Execution, Start
from wpa.kernel.fold import fold
from wpa.kernel.program import Program
from wpa.model.events import Event, Failure
from wpa.model.limits import Limits
from wpa.model.state import Signal, State, decode_state, encode_state, is_terminal
from wpa.model.times import parse_ms, rfc3339

EPOCH_MS = 1_795_000_000_000


class Table:
    """Keeps to the dialogue of :mod:`wpa.kernel.execution`, without a server."""

    def __init__(
        self,
        program: Program,
        data: Any = None,
        limits: Limits | None = None,
        start: Start | None = None,
    ) -> None:
        self.program, self.limits = program, limits or Limits()
        self.journal: list[Event] = []
        self.now_ms = EPOCH_MS
        self.epoch, self.serial = 1, 0
        self.to_run: list[str] = []
        start = start or Start(tenant="acme", execution="x1", start_hash="h", input=data, lease="1-1")
        self.execution, draft = Execution.start(program, start, self.now_ms, self.limits)
        self._store(
            Event(
                id="first",
                seq=1,
                event=draft.event,
                tenant_id="acme",
                workflow_id=program.id,
                execution_id="x1",
                timestamp=rfc3339(self.now_ms),
                worker="w1",
                data=draft.data,
            )
        )
        self.follow()

    @property
    def state(self) -> State:
        return self.execution.state

    @property
    def events(self) -> list[str]:
        return [event.event.removeprefix("workflow_") for event in self.journal]

    @property
    def last(self) -> Event:
        return self.journal[-1]

    def _store(self, event: Event) -> None:
        # Through the codec, as a real journal does it: what can't be encoded can't be stored.
        self.journal.append(msgspec.json.decode(msgspec.json.encode(event), type=Event))
        self.to_run += self.execution.record(event, len(self.journal))

    def record(self, draft: Draft) -> None:
        self.serial += 1
        worker = f"w{self.epoch}"
        self._store(seal(draft, self.state, id=f"e{self.serial}", worker=worker, epoch=self.epoch))

    def follow(self, busy: tuple[str, ...] = ()) -> None:
        while draft := self.execution.follow_up(self.now_ms, busy):
            self.record(draft)

    def attempt(self, slot: str, output: Any = None, error: Failure | None = None) -> None:
        started = self.now_ms
        self.now_ms += 10
        attempt = Attempt(slot=slot, started_ms=started, output=output, stored=output, error=error)
        self.record(self.execution.attempted(attempt, self.now_ms))
        self.follow()

    def ok(self, *slots: str) -> None:
        for slot in slots:
            self.attempt(slot, output={"did": slot})

    def fail(self, slot: str, type: str = "Boom", *, retryable: bool = True) -> None:
        self.attempt(slot, error=Failure(type=type, message=f"{slot} failed", retryable=retryable))

    def folded(self) -> State:
        """The journal, folded from nothing."""
        state: State | None = None
        for position, event in enumerate(self.journal, 1):
            state = fold(state, event)
            state.position = position
        assert state is not None
        return state

    def crash(self) -> None:
        """The worker dies; another folds the journal (through a snapshot) and takes over."""
        self.now_ms += 10_000
        state = decode_state(encode_state(self.folded()))
        self.execution = Execution.rebuild(self.program, state, self.limits)
        self.to_run = []
        if not is_terminal(state.status):
            self.epoch = state.epoch + 1
            reason = "the task was delivered again (2)"
            self.record(self.execution.recovered(f"w{self.epoch}", reason, self.now_ms))
            self.follow()

    # -- what others ask ---------------------------------------------------------------------

    def ask(self, draft: Draft | None) -> bool:
        """Append what somebody asks, as whoever it is would; whether there was anything to append."""
        if draft is None:
            return False
        driving = "lease" in draft.data
        self.epoch += driving
        self.serial += 1
        worker = f"w{self.epoch}" if driving else "other"
        self._store(seal(draft, self.state, id=f"e{self.serial}", worker=worker, epoch=self.epoch))
        self.follow()
        return True

    def rest(self) -> None:
        """Nothing runs: come to rest, and be looked at again only when something is due."""
        self.record(self.execution.resting(self.now_ms))

    def wake(self) -> None:
        """The alarm rings, at its moment."""
        assert self.state.wake_at, "no alarm is set"
        self.now_ms = max(self.now_ms, parse_ms(self.state.wake_at))
        self.ask(requests.woken(self.state, self.now_ms, f"due-{self.serial}"))

    def signal(self, name: str, payload: Any = None, id: str = "") -> bool:
        signal = Signal(id=id or f"s{self.serial}", name=name, payload=payload)
        return self.ask(requests.signalled(self.state, signal, self.now_ms, f"task-{self.serial}"))

    def tell(self, slot: str, payload: Any, by: dict[str, Any] | None = None, id: str = "") -> bool:
        """What is meant for one slot: an answer, a child's end, a remote result."""
        signal = Signal(id=id or f"t{self.serial}", slot=slot, payload=payload, by=by or {})
        return self.ask(requests.signalled(self.state, signal, self.now_ms, f"task-{self.serial}"))
