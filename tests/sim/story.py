"""One execution as its journal tells it: read and folded once, for all the checks.

To read it is the first of them: it is one chain of legal events, in which each slot is settled once between
two openings.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from tests.sim.world import Key, SimWorld
from wpa.kernel.fold import fold
from wpa.model import events as ev
from wpa.model.codec import decode_event
from wpa.model.events import Event
from wpa.model.ids import idempotency_key
from wpa.model.state import Signal, State, is_terminal
from wpa.model.times import parse_ms

__all__ = ["Story"]

ENDINGS: Final = (ev.COMPENSATING, ev.FAILED, ev.CANCELLED)


class Story:
    """What an execution's journal tells. Raises AssertionError where it tells what can't be."""

    def __init__(self, world: SimWorld, key: Key) -> None:
        self.key = key
        self.name = ".".join(key)
        self.events: list[Event] = []
        self.stored_ms: list[int] = []
        """When each event was stored, by the server's clock."""
        self.transitions: set[tuple[str, str]] = set()
        """The status before, and the event."""
        self.pauses: list[tuple[int, int]] = []
        """From when to when nothing may begin; by the server's clock."""
        self.drivers: list[tuple[int, str]] = []
        """Since when which worker drives."""
        self.elsewhere: set[str] = set()
        """The idempotency keys of the steps that are run by a queue's workers."""
        self.retry_at: dict[tuple[str, int], int] = {}
        """Before which moment an attempt under a key may not begin."""
        self.overdue: list[tuple[int, int, str]] = []
        """For each time that was over, when it was recorded, when it was due, and of what."""
        self.undone: Counter[str] = Counter()
        self.opened: dict[str, int] = {}
        """When each slot was first opened, by the idempotency key of its attempts."""
        self.failed: set[tuple[str, int]] = set()
        """The attempts of which it is recorded that they failed, by key and number."""
        self.let_go: list[tuple[str, int]] = []
        """The children that it stopped waiting for before their end, and since when. Those apart that may go on."""
        self.kept_seq = 0
        """The last event that its snapshot knows of."""
        self._undoable = world.undoable
        state: State | None = None
        for message in world.server.events.read(f"workflow.events.{key[0]}.{key[1]}"):
            event = decode_event(message.data)
            state = self._take(state, event, message.stored_ms)
            state.position = message.sequence
        assert state is not None, self.name
        self.state = state

    def _take(self, state: State | None, event: Event, stored_ms: int) -> State:
        before = state.status if state is not None else ""
        open_before = list(state.open) if state is not None else []
        children = _children(state) if state is not None else {}
        if state is not None:
            assert event.epoch >= state.epoch, f"{self.name}: epoch {event.epoch} after {state.epoch}"
            self._look_before(state, event, stored_ms)
        self.events.append(event)
        self.stored_ms.append(stored_ms)
        self.transitions.add((before, event.event))
        worker = state.worker if state is not None else ""
        state = fold(state, event)
        for slot_id in open_before:
            if slot_id not in state.open:
                ended = state.slots.get(slot_id)
                assert ended is None or ended.status != "open" or is_terminal(state.status), slot_id
        for slot_id in children.keys() - set(state.open):
            name, data = children[slot_id], event.data
            detached = data.get("output") == {
                "execution_id": name
            }  # as the version says that it was migrated to
            if data.get("slot") != slot_id or not (
                data.get("signals") or detached
            ):  # not by the child's own end
                self.let_go.append((name, stored_ms))
        assert len(set(state.open)) == len(state.open), self.name
        assert len(set(state.order)) == len(state.order), self.name
        if state.worker != worker:
            self.drivers.append((stored_ms, state.worker))
        self._look_after(before, state, event, stored_ms)
        return state

    def _look_before(self, state: State, event: Event, stored_ms: int) -> None:
        data = event.data
        if event.event in ENDINGS and state.status != "COMPENSATING" and not data.get("terminated"):
            lying = [signal.slot for signal in state.signals if _is_done(state, signal)]
            known = self._to_undo(state) is not None  # a flow may have let go of what it was
            assert not (known and lying), f"{self.name}: {event.event}, and nobody has taken {lying}"
        if event.event == ev.COMPENSATING:
            open_slots = (state.slots[slot_id] for slot_id in state.open)
            given_up = [slot.id for slot in open_slots if slot.kind == "remote" and slot.under_way]
            stopped = state.cancel is not None or not state.failing
            assert stopped or not given_up, f"{self.name}: {given_up} may do what is not undone"
            wanted = self._to_undo(state)
            assert wanted is None or data["undo"] == wanted, f"{self.name}: {data['undo']}, not {wanted}"
        elif event.event == ev.CANCELLED and not data.get("terminated") and not state.undo:
            compensates = state.cancel is not None and state.cancel.compensate
            assert not (compensates and self._to_undo(state)), f"{self.name}: cancelled, and nothing undone"
        elif event.event in (ev.STEP_COMPLETED, ev.STEP_FAILED):
            slot = state.slots.get(data["slot"])
            over = slot is not None and (slot.kind == "timer" or data.get("timed_out"))
            if over and slot is not None and slot.status == "open" and slot.until:
                self.overdue.append((stored_ms, parse_ms(slot.until), slot.id))
            if event.event == ev.STEP_FAILED:
                key = idempotency_key(state.key, data["slot"])
                self.failed.add((key, data.get("attempt", slot.attempt if slot is not None else 1)))
        elif event.event == ev.STEP_COMPENSATED:
            self.undone[data["slot"]] += 1

    def _to_undo(self, state: State) -> list[str] | None:
        """What was done and can be undone, the last first; None where only a flow's code knows."""
        undoable = self._undoable.get((state.tenant, state.workflow, state.version))
        if undoable is None:
            return None
        done = (state.slots[slot_id] for slot_id in reversed(state.order) if ":delay" not in slot_id)
        return [f"{slot.id}:undo" for slot in done if slot.status == "completed" and slot.step in undoable]

    def _look_after(self, before: str, state: State, event: Event, stored_ms: int) -> None:
        data = event.data
        if event.event == ev.STEP_FAILED and not data["final"]:
            failed = state.slots[data["slot"]]
            key = idempotency_key(state.key, failed.id)
            self.retry_at[key, failed.attempt] = parse_ms(failed.retry_at)
        elif event.event == ev.RESUMED and data.get("reopen"):
            self.retry_at.clear()
        for slot_id in data.get("next", ()):
            self.opened.setdefault(idempotency_key(state.key, slot_id), stored_ms)
        for slot_id, about in data.get("waits", {}).items():
            if about["kind"] == "remote":
                self.elsewhere.add(idempotency_key(state.key, slot_id))
        if state.status == "PAUSED" and before != "PAUSED":
            self.pauses.append((stored_ms, 1 << 60))
        elif before == "PAUSED" and state.status != "PAUSED":
            self.pauses[-1] = (self.pauses[-1][0], stored_ms)

    def driver_at(self, moment_ms: int) -> str:
        """Who drove it, by the journal."""
        driver = ""
        for since, worker in self.drivers:
            if since > moment_ms:
                break
            driver = worker
        return driver


def _children(state: State) -> dict[str, str]:
    """The children that are waited for, by slot; those apart that may go on when they are not any more."""
    slots = (state.slots[slot_id] for slot_id in state.open)
    return {slot.id: slot.name for slot in slots if slot.kind == "child" and not slot.abandon}


def _is_done(state: State, signal: Signal) -> bool:
    """Whether it says that work that is waited for has succeeded."""
    slot, told = state.slots.get(signal.slot), signal.payload
    if slot is None or slot.status != "open":
        return False
    if slot.kind == "child":
        return bool(told["status"] == "COMPLETED")
    return slot.kind == "remote" and told["attempt"] == slot.attempt and not told.get("error")
