"""Loading an execution: the snapshot, then the tail of the journal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterator
from typing import Any, Final, NamedTuple, TypeVar, overload

from wpa.engine.payloads import Payloads, reference, stored_size
from wpa.errors import Unavailable
from wpa.kernel.execution import Execution
from wpa.kernel.fold import fold
from wpa.kernel.program import Program
from wpa.model.limits import Limits
from wpa.model.state import State, decode_state, is_terminal
from wpa.plan import Plan
from wpa.plan.names import outputs_read, reads_input
from wpa.ports import Ports
from wpa.ports.clock import Clock
from wpa.ports.journal import Stored

__all__ = [
    "Loaded",
    "Values",
    "folded",
    "in_turns",
    "kept_apart",
    "load",
    "load_latest",
    "read_snapshot",
    "referring",
    "revive",
    "revive_to_show",
]

T = TypeVar("T")

log = logging.getLogger("wpa.engine")

LOOK_EVERY_S: Final = 0.05
CAUGHT_UP_WITHIN_S: Final = 10.0
SHOWN_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of payloads that are loaded to show an execution that has ended."""


class Loaded(NamedTuple):
    """A folded state, and the revision of the snapshot it was built on (0: none)."""

    state: State
    revision: int
    snapshot_seq: int


async def load(ports: Ports, tenant: str, execution: str) -> Loaded | None:
    """The state of an execution now, or None where it never started.

    Raises Newer for a snapshot this worker can't read, Unavailable where the server can't say.
    """
    found = await ports.snapshots.get(tenant, execution)
    state: State | None = None
    revision = snapshot_seq = 0
    if found is not None:
        state, revision = read_snapshot(tenant, execution, found[0]), found[1]
        snapshot_seq = state.seq if state else 0
    tail = await ports.journal.read(tenant, execution, state.position if state else 0)
    state = folded(state, tail)
    return None if state is None else Loaded(state, revision, snapshot_seq)


def read_snapshot(tenant: str, execution: str, data: bytes) -> State | None:
    """A stored snapshot; None for one that is of no use: the journal is the truth, and makes it anew.

    Raises Newer for one that this worker can't read.
    """
    try:
        state = decode_state(data)
    except ValueError as error:
        reason = str(error)
    else:
        if (state.tenant, state.execution) == (tenant, execution):
            return state
        reason = f"it is that of {state.tenant}.{state.execution}"
    log.warning("the snapshot of %s.%s is ignored, its journal is read: %s", tenant, execution, reason)
    return None


@overload
def folded(state: State, tail: list[Stored]) -> State: ...
@overload
def folded(state: State | None, tail: list[Stored]) -> State | None: ...
def folded(state: State | None, tail: list[Stored]) -> State | None:
    """The state after these events, too."""
    for position, event in tail:
        state = fold(state, event)
        state.position = position
    return state


async def load_latest(ports: Ports, clock: Clock, tenant: str, execution: str) -> Loaded | None:
    """As :func:`load`, with all that was stored when it was asked, however far replicas lag behind.

    Raises Unavailable, too, where none of them has come to know it within ``CAUGHT_UP_WITHIN_S``.
    """
    if not ports.lags():
        return await load(ports, tenant, execution)
    latest = await ports.journal.latest(tenant, execution)
    deadline = clock.monotonic_s() + CAUGHT_UP_WITHIN_S
    while True:
        loaded = await load(ports, tenant, execution)
        if latest <= (0 if loaded is None else loaded.state.position):
            return loaded
        if clock.monotonic_s() >= deadline:
            raise Unavailable(f"no replica that was asked has all of {tenant}.{execution}")
        await clock.sleep(LOOK_EVERY_S)


class Values:
    """The large payloads of one execution, at hand. Called with a stored value, gives the value itself."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads
        self._values: dict[str, Any] = {}

    def __call__(self, value: Any) -> Any:
        key = reference(value)
        return value if key is None else self._values[key]

    def or_reference(self, value: Any) -> Any:
        """As called; what was not fetched stays a reference."""
        key = reference(value)
        return value if key is None else self._values.get(key, value)

    async def fetch(self, value: Any) -> None:
        """Have what ``value`` refers to at hand."""
        key = reference(value)
        if key is not None and key not in self._values:
            self._values[key] = await self._payloads.load(key)


async def revive(
    program: Program, state: State, limits: Limits, payloads: Payloads
) -> tuple[Execution, Values]:
    """The execution behind a loaded state, with its large payloads.

    Raises Diverged where the program doesn't ask for what is recorded.
    """
    values = Values(payloads)
    for stored in referring(state):
        await values.fetch(stored)
    return await in_turns(Execution.rebuilding(program, state, limits, values)), values


async def revive_to_show(
    program: Program, state: State, limits: Limits, payloads: Payloads
) -> Execution | None:
    """The execution behind a loaded state, to be looked at and not to be driven on.

    Of its large payloads, only those are loaded on which it depends what is wanted, and with which inputs;
    the others stay references. None for one that has ended and would need more than ``SHOWN_BYTES_MAX`` of
    them: what its journal says has to do.

    Raises Diverged where the program doesn't ask for what is recorded.
    """
    needed = list(_looked_at(program, state))
    if is_terminal(state.status) and sum(map(stored_size, needed)) > SHOWN_BYTES_MAX:
        return None
    values = Values(payloads)
    for stored in needed:
        await values.fetch(stored)
    return await in_turns(Execution.rebuilding(program, state, limits, values.or_reference))


async def in_turns(work: Generator[None, None, T]) -> T:
    """Do long work in the midst of others: their leases have to be kept alive meanwhile."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: T = done.value
            return found
        await asyncio.sleep(0)


def _looked_at(program: Program, state: State) -> Iterator[Any]:
    """The stored values that the program may look at. Of a flow nobody knows: all of them."""
    plan = program if isinstance(program, Plan) else None
    read = None if plan is None else outputs_read(plan)
    if plan is None or reads_input(plan):
        yield state.input
    for slot in state.slots.values():
        if read is None or slot.step in read:
            yield slot.output


def referring(state: State) -> Iterator[Any]:
    """Every stored value that may refer to a large payload."""
    yield state.input
    for slot in state.slots.values():
        yield slot.output
    for signal in state.signals:
        yield kept_apart(signal.slot, signal.payload)


def kept_apart(slot: str, payload: Any) -> Any:
    """The value, of what an execution is told, that may refer to a large payload.

    Of a result, which is for ``slot``, that is its output. Of a signal it is the payload as a whole: what
    stands in that is its sender's own, whatever it looks like.
    """
    if not slot:
        return payload
    return payload.get("output") if isinstance(payload, dict) else None
