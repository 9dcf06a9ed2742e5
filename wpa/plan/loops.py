"""Steps that run more than once: ``foreach`` item of a list, and ``repeat``.

Both keep count themselves: a settlement costs the same however many items or rounds there are. What
their expressions see of the rest of the plan is taken once, when the step starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from wpa.kernel.program import Settled, Turns, Wait, Want
from wpa.model.events import Failure
from wpa.plan.wants import decided, faulty, occurrence, truth, unusable

if TYPE_CHECKING:
    from wpa.plan.nodes import Node

__all__ = ["Foreach", "Loop", "Repeat"]

FOREACH_SLOT: Final = "foreach"
DELAY_SLOT: Final = "delay"


class Loop(Protocol):
    """One step's way through its occurrences."""

    open: dict[str, int]
    """Slots that are wanted and not settled, with their number from 0."""
    ended: bool
    output: Any
    error: Failure | None

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1, as far as that can be known."""
        ...

    def turns(self) -> Turns:
        """How many of its turns are done."""
        ...

    def start(self) -> list[Want]:
        """The first wants. There is always one."""
        ...

    def settle(self, settled: Settled) -> list[Want]:
        """One of the open slots has ended: the wants that follow. Look at ``ended`` afterwards."""
        ...

    def locals_of(self, slot: str) -> dict[str, Any] | None:
        """What the undo of a completed slot sees besides; None for a slot that isn't completed work."""
        ...


def _slot(node: Node, number: int) -> str:
    """The slot of the step's occurrence ``number``, from 0."""
    return f"{node.id}:{number + 1}" if number else node.id


class Foreach:
    """Runs a step for each item, so many at a time, in the order of the list."""

    def __init__(self, node: Node, items: list[Any], scope: dict[str, Any]) -> None:
        assert node.each is not None  # noqa: S101  the caller has looked
        self._node = node
        self._each = node.each
        self._items = items
        self._scope = scope
        self._next = 0
        self._left = len(items)
        self._completed: dict[str, int] = {}
        self.open: dict[str, int] = {}
        self.ended = False
        self.output: list[Any] = [None] * len(items)
        self.error: Failure | None = None
        self.lost: list[dict[str, Any]] = []
        """Items that gave up, where the others go on; in the order of the list once ended."""

    @property
    def share(self) -> float:
        return 1 - self._left / len(self._items) if self._items else 0.0

    def turns(self) -> Turns:
        total = len(self._items)
        failed = len(self.lost) + (self.error is not None)
        return Turns(done=total - self._left + (self.error is not None), failed=failed, total=total)

    def start(self) -> list[Want]:
        if not self._items:
            # Nothing will ever be settled, and yet it has to stand in the journal that the step ran.
            slot = f"{self._node.id}:{FOREACH_SLOT}"
            self.open[slot] = 0
            return [decided(self._node, slot, {"kind": "foreach", "items": 0})]
        return [self._item() for _ in range(min(self._each.concurrency, len(self._items)))]

    def _item(self) -> Want:
        number = self._next
        self._next += 1
        slot = _slot(self._node, number)
        self.open[slot] = number
        return occurrence(self._node, slot, {**self._scope, **self._local(number)}, self._each.policy)

    def _local(self, number: int) -> dict[str, Any]:
        return {self._each.name: self._items[number], "index": number}

    def settle(self, settled: Settled) -> list[Want]:
        number = self.open.pop(settled.slot)
        if settled.status == "decided":
            self.ended = True
            return []
        if settled.status == "failed":
            if not self._each.carry_on:
                self.ended, self.error = True, _of_item(number, settled.error)
                return []
            self.lost.append(_lost(number, settled.error))
        else:
            self.output[number] = settled.value
            self._completed[settled.slot] = number
        self._left -= 1
        if self._left == 0:
            self.ended = True
            self.lost.sort(key=lambda item: int(item["index"]))
        return [self._item()] if self._next < len(self._items) else []

    def locals_of(self, slot: str) -> dict[str, Any] | None:
        number = self._completed.get(slot)
        return None if number is None else {**self._local(number), "output": self.output[number]}


def _of_item(number: int, error: Failure | None) -> Failure:
    """The failure of the step as a whole: that of the item, and which one it was."""
    if error is None:
        return Failure(type="Unknown", message=f"item {number}: no reason was recorded")
    return Failure(
        type=error.type,
        message=f"item {number}: {error.message}",
        retryable=error.retryable,
        details=error.details,
    )


def _lost(number: int, error: Failure | None) -> dict[str, Any]:
    told = error or Failure(type="Unknown", message="")
    return {"index": number, "type": told.type, "message": told.message}


class Repeat:
    """Runs a step again and again, until its condition says that it is enough."""

    def __init__(self, node: Node, scope: dict[str, Any]) -> None:
        assert node.again is not None  # noqa: S101  the caller has looked
        self._node = node
        self._again = node.again
        self._scope = scope
        self._round = self._done = 0
        self._completed: dict[str, dict[str, Any]] = {}
        self.open: dict[str, int] = {}
        self.ended = False
        self.output: Any = None
        self.error: Failure | None = None

    @property
    def share(self) -> float:
        return 0.0

    def turns(self) -> Turns:
        failed = int(self.error is not None)
        return Turns(done=min(self._done + failed, self._again.max), failed=failed)

    def start(self) -> list[Want]:
        return [self._turn()]

    def _turn(self) -> Want:
        slot = _slot(self._node, self._round)
        self.open[slot] = self._round
        return occurrence(self._node, slot, {**self._scope, **self._local()})

    def _local(self) -> dict[str, Any]:
        return {"output": self.output, "index": self._round}

    def settle(self, settled: Settled) -> list[Want]:
        del self.open[settled.slot]
        if settled.status == "failed":
            self.ended, self.error = True, settled.error
            return []
        if settled.slot.partition(":")[2].startswith(DELAY_SLOT):
            return [self._turn()]
        self.output = settled.value
        self._done += 1
        if self._node.undo is not None:
            self._completed[settled.slot] = self._local()
        return self._after_round()

    def _after_round(self) -> list[Want]:
        again = self._again
        value, fault = truth(again.condition, {**self._scope, **self._local()})
        if fault is None and value is again.stops:
            self.ended = True
            return []
        self._round += 1
        if fault is None and self._round >= again.max:  # above it, where a migration has lowered it
            word = "until" if again.stops else "while"
            text = again.condition.expressions[0][1].text
            end = "did not become true" if again.stops else "is still true"
            fault = unusable(
                f"after {self._round} rounds `{word}: {text}` {end}; raise repeat.max, or mend the condition",
                "RepeatExhausted",
            )
        if fault is not None:
            slot = _slot(self._node, self._round)
            self.open[slot] = self._round
            return [faulty(self._node, slot, fault)]
        return [self._turn() if again.delay_ms is None else self._delay(again.delay_ms)]

    def _delay(self, delay_ms: int) -> Want:
        slot = f"{self._node.id}:{DELAY_SLOT}" + (f":{self._round}" if self._round > 1 else "")
        self.open[slot] = self._round
        return Want(
            slot=slot, step=self._node.id, kind="timer", uses="core.sleep", wait=Wait(delay_ms=delay_ms)
        )

    def locals_of(self, slot: str) -> dict[str, Any] | None:
        return self._completed.get(slot)
