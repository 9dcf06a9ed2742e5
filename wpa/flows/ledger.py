"""What one run of a flow has asked for, and what became of it.

The ledger numbers the slots, hands new wants to the kernel, and keeps what undoing, status and a
diagnosis of divergence need. It knows nothing of coroutines: whoever opens a slot leaves a function there
that is called when the slot is settled. Every operation is O(1), however long the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from wpa.kernel.program import (
    ExecutionInfo,
    Progress,
    Retry,
    Settled,
    StepPolicy,
    StepView,
    Wait,
    Waiting,
    Want,
    WantKind,
)
from wpa.model.ids import check_step, undo_slot

if TYPE_CHECKING:
    from wpa.flows.saga import Saga

__all__ = ["CONTINUE", "Ledger", "Slot"]

CONTINUE: Final = StepPolicy(on_error="continue")
"""How every step of a flow is run where nothing else is said: what a failure means, the flow decides."""

UNDO_POLICY: Final = StepPolicy(retry=Retry(max_attempts=10), on_error="continue")

TO_THEIR_END: Final = "wpa.flows.ledger: what is to be undone ends first"
"""A change like those of flows: journals of before tell of calls that were stopped when their flow failed."""

Status = Literal["wanted", "left", "completed", "failed", "dropped"]
"""``left``: nobody waits for it, but it is to end, and is undone then."""

_NOTHING: Final = Waiting()


class Slot:
    """One want and how it ended."""

    __slots__ = ("deliver", "ends", "saga", "settled", "status", "undo", "undone", "want")

    def __init__(self, want: Want, undo: str, saga: Saga | None) -> None:
        self.want = want
        self.undo = undo
        """The step type that undoes the step; empty where nothing does."""
        self.saga = saga
        self.status: Status = "wanted"
        self.settled: Settled | None = None
        self.undone = False
        """Whether the flow itself has undone it."""
        self.ends = False
        """Whether it is to end though nobody waits for it any more."""
        self.deliver: Callable[[Settled], None] | None = None

    def undo_inputs(self) -> dict[str, Any]:
        """What its undo step is given: the step's inputs, and the members of its output."""
        inputs = dict(self.want.inputs or {})
        if self.settled is not None and isinstance(self.settled.value, dict):
            inputs |= self.settled.value
        return inputs

    def undo_policy(self) -> StepPolicy:
        """How its undo step is to be run: by the worker group that did the work."""
        return msgspec.structs.replace(UNDO_POLICY, queue=self.want.policy.queue)


class Ledger:
    """See the module. Not thread-safe; owned by one run."""

    def __init__(self, info: ExecutionInfo) -> None:
        self.info = info
        self.told = 0
        """How many slots have been settled so far, and one more for a cancel: the run's logical time."""
        self.compensates = True
        """Whether what is left early is to be undone: not where somebody cancelled without compensation."""
        self.open_slots = 0
        self.closed = False
        """Nothing is asked for any more: the run has ended, or is thrown away."""
        self._slots: dict[str, Slot] = {}
        self._counts: dict[str, int] = {}
        self._new: list[Slot] = []
        self._dropped: list[str] = []
        self._left: list[str] = []
        self._recorded: list[Any] = []
        self._completed = self._failed = self._skipped = 0
        self._values: dict[int, deque[dict[str, Any]]] = {}
        self._patches: dict[str, bool] = {}
        for entry in info.recorded:
            if "patched" in entry:
                self._patches[entry["patched"]] = True
            else:
                self._values.setdefault(entry["at"], deque()).append(entry)

    @property
    def replaying(self) -> bool:
        """Whether what the flow does right now, it did before, and the journal knows of it."""
        info = self.info
        return self.told < info.replayed or (info.rebuilt and self.told == info.replayed)

    @property
    def seed(self) -> str:
        """What chance is drawn from right now."""
        for taken in self.info.taken_seeds:
            if self.told < taken.until:
                return taken.seed
        return self.info.seed or self.info.id

    # -- slots -------------------------------------------------------------------------------

    def open(
        self,
        step: str,
        kind: WantKind,
        uses: str,
        *,
        inputs: Any = None,
        policy: StepPolicy = CONTINUE,
        wait: Wait | None = None,
        trim: bool = False,
        undo: str = "",
        undoes: str = "",
        saga: Saga | None = None,
    ) -> Slot:
        """Want one more occurrence of ``step``. Raises InvalidName for a step id that can't be one."""
        count = self._counts.get(step)
        if count is None:
            check_step(step)
            self._counts[step] = 1
            slot_id = step
        else:
            self._counts[step] = count = count + 1
            slot_id = f"{step}:{count}"
        want = Want(
            slot=slot_id,
            step=step,
            kind=kind,
            uses=uses,
            inputs=inputs,
            policy=policy,
            wait=wait,
            trim=trim,
            undoes=undoes,
        )
        slot = Slot(want, undo, saga)
        if not self.closed:
            self._slots[slot_id] = slot
            self._new.append(slot)
            self.open_slots += 1
        return slot

    def drop(self, slot: Slot) -> None:
        """Not waited for any more. Does nothing for a slot that is settled, or dropped, already."""
        if slot.status != "wanted" or self.closed:
            return
        slot.deliver = None
        self.open_slots -= 1
        if slot.ends:
            slot.status = "left"
            self._left.append(slot.want.slot)
        else:
            self._skip(slot)

    def _skip(self, slot: Slot) -> None:
        slot.status = "dropped"
        self._skipped += 1
        self._dropped.append(slot.want.slot)

    def drop_all(self) -> tuple[str, ...]:
        """Drop what is still wanted: the run has ended. Returns all drops that no poll has told yet."""
        if self.open_slots:
            for slot in self._slots.values():
                self.drop(slot)
        untold = self.take()
        self._recorded.extend(untold.recorded)
        self._left.extend(untold.left)
        return untold.dropped

    def stop_all(self) -> tuple[str, ...]:
        """The same, and nothing is left to its end."""
        for slot in self._slots.values():
            slot.ends = False
            if slot.status == "left":
                self._skip(slot)
        return self.drop_all()

    def let_end(self) -> None:
        """From now on, who drops a call that may have to be undone leaves it: it may have taken effect, and
        only its end tells. What the kernel has not been asked for yet is dropped as ever."""
        fresh = {slot.want.slot for slot in self._new}
        ends = [
            slot
            for slot in self._slots.values()
            if slot.undo and slot.status == "wanted" and slot.want.slot not in fresh
        ]
        if ends and self.patched(TO_THEIR_END):
            for slot in ends:
                slot.ends = True

    def find(self, slot_id: str) -> Slot | None:
        """The slot of that id, if it was ever wanted."""
        return self._slots.get(slot_id)

    def settle(self, slot: Slot, settled: Settled) -> None:
        """A wanted slot has ended: note it, and tell whoever waits for it."""
        self.told += 1
        self.open_slots -= slot.status == "wanted"
        slot.settled = settled
        if settled.status == "failed":
            slot.status = "failed"
            self._failed += 1
        else:
            slot.status = "completed"
            self._completed += 1
            if slot.undo and slot.saga is not None:
                slot.saga.completed(slot)
        if slot.deliver is not None:
            slot.deliver(settled)
            slot.deliver = None

    def take(self) -> Waiting:
        """What is new since the last time."""
        rare = self._dropped or self._recorded or self._left
        if not self._new and not rare:
            return _NOTHING
        new, self._new = self._new, []
        if not rare:
            return Waiting(tuple([slot.want for slot in new]))
        # What came and went between two polls was never told, and is not to be taken back either.
        untold = {slot.want.slot for slot in new if slot.status == "dropped"}
        waiting = Waiting(
            wants=tuple([slot.want for slot in new if slot.status == "wanted"]),
            dropped=tuple([slot_id for slot_id in self._dropped if slot_id not in untold]),
            recorded=tuple(self._recorded),
            left=tuple(self._left),
        )
        self._dropped.clear()
        self._recorded.clear()
        self._left.clear()
        return waiting

    # -- recorded values ---------------------------------------------------------------------

    def recall(self) -> dict[str, Any] | None:
        """The next value that was recorded at this point of the run, if one was."""
        values = self._values.get(self.told)
        return values.popleft() if values else None

    def keep(self, entry: dict[str, Any]) -> None:
        """Record a value under the run's logical time."""
        self._recorded.append({"at": self.told, **entry})

    def patched(self, name: str) -> bool:
        """See :func:`wpa.flows.patched`. Whatever is answered first holds for the run."""
        known = self._patches.get(name)
        if known is None:
            known = self._patches[name] = not self.replaying
            if known:
                self._recorded.append({"patched": name})
        return known

    # -- views -------------------------------------------------------------------------------

    def undo(self, slot_id: str) -> Want | None:
        """The want that undoes a completed slot, unless nothing does or the flow has done so itself."""
        slot = self._slots.get(slot_id)
        if slot is None or slot.status != "completed" or not slot.undo or slot.undone:
            return None
        return Want(
            slot=undo_slot(slot_id),
            step=slot.want.step,
            uses=slot.undo,
            inputs=slot.undo_inputs(),
            policy=slot.undo_policy(),
            trim=True,
        )

    def progress(self) -> Progress:
        return Progress(
            total=len(self._slots), completed=self._completed, failed=self._failed, skipped=self._skipped
        )

    def steps(self, site_of: Callable[[Slot], str]) -> list[StepView]:
        """Every slot, in the order in which they were wanted; ``site_of`` says where one is waited for."""
        return [_view(slot, site_of) for slot in self._slots.values()]

    def asked(self) -> Iterable[str]:
        """Every slot in a few words, in the order in which they were wanted."""
        for slot in self._slots.values():
            want = slot.want
            yield f"{want.kind} {want.slot} uses {want.uses}"


def _view(slot: Slot, site_of: Callable[[Slot], str]) -> StepView:
    want = slot.want
    phase: Literal["wanted", "skipped", "settled"] = "settled"
    if slot.status == "wanted":
        phase = "wanted"
    elif slot.status in ("dropped", "left"):  # what has begun of them, its slot tells
        phase = "skipped"
    return StepView(
        step=want.step,
        slot=want.slot,
        kind=want.kind,
        uses=want.uses,
        phase=phase,
        inputs=want.inputs,
        site=site_of(slot) if phase == "wanted" else "",
    )
